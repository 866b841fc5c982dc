"""benchmarks/generate.py and translate.py, with fairseq's commands in this process."""

import contextlib
import importlib
import io
import json
import logging
import sys

import pytest
from benchmark_runs import BENCHMARKS, run, scripts
from fairseq.logging.meters import StopwatchMeter

OPTIONS = (
    "--hidden 32 --embedding 8 --vocabulary 40 --prompts 2 --length 6 --rounds 1 --beam 2".split()
)
TRANSLATION = "--hidden 32 --embedding 16 --vocabulary 40 --sentences 3 --rounds 1 --beam 2".split()


@pytest.fixture
def load(monkeypatch):
    yield from scripts(monkeypatch)


@contextlib.contextmanager
def printed():
    """What is printed and logged meanwhile."""
    text = io.StringIO()
    handler, logger = logging.StreamHandler(text), logging.getLogger("fairseq_cli.generate")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    with contextlib.redirect_stdout(text):
        yield text
    logger.removeHandler(handler)
    logger.setLevel(level)


@pytest.fixture
def script(load, monkeypatch):
    """A function that imports a script by name, whose processes are calls."""

    def call(main, arguments):
        monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
        with printed() as text:
            main()
        return text.getvalue()

    def fairseq(name, *arguments):
        return call(importlib.import_module(f"fairseq_cli.{name}").cli_main, arguments)

    def timed_generate(command):
        timed = load("timed_generate")
        # It replaces these for the rest of its process.
        with monkeypatch.context() as process:
            for owner, name, _ in (*timed.METHODS, (StopwatchMeter, "stop", None)):
                process.setattr(owner, name, getattr(owner, name))
            return call(timed.main, command[2:])

    def load_script(name):
        module, shared = load(name), load("fairseq_generate")
        monkeypatch.setattr(shared, "fairseq", fairseq)
        monkeypatch.setattr(shared, "run", timed_generate)
        monkeypatch.setattr(module, "fairseq", fairseq)
        return module

    return load_script


def columns_of(kind, result):
    """The row of a result in its table; KeyError if the layout asks for what is not there."""
    layout = json.loads((BENCHMARKS / "results" / kind / "table.json").read_text())
    return [text.format_map(result) for _, text in layout["columns"]]


def test_every_variant_is_timed(script, monkeypatch, tmp_path):
    work = ["--work", str(tmp_path / "work")]
    results = run(script, monkeypatch, tmp_path / "out", "generate", *OPTIONS, *work)
    result = results["generate-h32-16x1-beam2"]
    assert all(columns_of("generate", result))
    for row in result["figures"].values():
        assert all(row[key] > 0 for key in ("recurrent_us", "output_us", "fairseq_us"))
        assert row["tokens_per_s"] == pytest.approx(1e6 / row["us_per_token"])
    assert result["figures"]["dense"]["process_speedup"] == 1.0


def test_every_variant_translates(script, monkeypatch, tmp_path):
    work = tmp_path / "work"
    options = [*TRANSLATION, "--batch", "1", "2", "--work", str(work)]
    results = run(script, monkeypatch, tmp_path / "out", "translate", *options)
    assert set(results) == {f"translate-h32-16x4-batch{batch}" for batch in (1, 2)}
    trained = ["--data", str(work / "data"), "--checkpoint", str(work / "checkpoint_last.pt")]
    trained += ["--name", "small", "--batch", "3", "--rounds", "1", "--beam", "2"]
    results |= run(script, monkeypatch, tmp_path / "trained", "translate", *trained)
    for result in results.values():
        assert all(columns_of("translate", result)) and all(columns_of("translate_trained", result))
        figures = result["figures"]
        assert list(figures) == ["dense", "fp32", "bf16", "int8"]
        assert figures["fp32"]["same_text"] == 1.0
        for row in figures.values():
            for part in ("encoder", "decoder", "attention", "output", "fairseq"):
                assert row[f"{part}_us"] > 0
            assert row["sentences_per_s"] == pytest.approx(1e6 / row["us_per_sentence"])
    command = results["translate-small-batch3"]["command"]
    assert "--checkpoint MODEL.pt --data DATA --name small --beam 2 --batch 3 " in command


def test_a_checkpoint_needs_its_data(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["translate.py", "--checkpoint", "model.pt"])
    with pytest.raises(SystemExit):
        script("translate").main()
    assert "expected --checkpoint and --data, or neither of them" in capsys.readouterr().err


def test_a_call_counts_to_its_own_part_alone(load, monkeypatch):
    timed = load("timed_generate")

    class Model:
        part = "decoder"

        def run(self):
            return now.append(now[-1] + 2), self.attend(), now.append(now[-1] + 3)

        def attend(self):
            return now.append(now[-1] + 10), self.project()

        def project(self):
            now.append(now[-1] + 100)

    now = [0.0]
    monkeypatch.setattr(timed.time, "perf_counter", lambda: now[-1])
    timed.time_method(Model, "run", lambda model: model.part)
    timed.time_method(Model, "attend", lambda _: "attention")
    timed.time_method(Model, "project", lambda _: "attention")
    Model().run()
    Model().project()
    assert timed.seconds == {"decoder": 5.0, "attention": 10.0 + 100.0 + 100.0}


def test_the_log_is_read(load):
    shared = load("fairseq_generate")
    log = (
        "| Translated 1,200 sentences (4,800 tokens) in 12.0s (99.9 sentences/s, 400.00 tokens/s)\n"
    )
    found = shared.Translated.of(log)
    assert found == (1200, 4800, 400.0)
    # 4 tokens a sentence.
    assert found.per_second("token") == 400.0 and found.per_second("sentence") == 100.0
    seconds = {"decoder": 0.6, "output": 0.12, "generation": 1.2}
    assert shared.parts(log + json.dumps(seconds), "sentence", {"decoder": "recurrent"}) == {
        "recurrent_us": pytest.approx(500.0),
        "fairseq_us": pytest.approx(500.0),
    }
    with pytest.raises(ValueError, match="expected the log of fairseq-generate, got no"):
        shared.Translated.of("Translated nothing")


def test_other_text_is_refused(load):
    generate = load("fairseq_generate")
    dense = "H-0\t-1.0\tw1 w2\nH-1\t-3.0\tw5\n"
    other = dense.replace("-3.0\tw5", "-3.1\tw6")
    assert generate.check_text({"dense": dense, "fp32": dense.replace("-1.0", "-1.1")}) == 1.0
    assert generate.check_text({"dense": dense, "fp32": other}, least=0.5) == 0.5
    for outputs in ((dense, other), (dense, ""), ("", ""), ("", dense)):
        with pytest.raises(SystemExit, match="expected the same text"):
            generate.check_text(dict(zip(("dense", "fp32"), outputs, strict=True)))
