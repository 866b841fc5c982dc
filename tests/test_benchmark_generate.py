"""benchmarks/generate.py, with fairseq's commands in this process: each start takes seconds."""

import contextlib
import importlib
import io
import json
import logging
import sys

import pytest
from benchmark_runs import BENCHMARKS, run, scripts
from fairseq.logging.meters import StopwatchMeter

from fairseq_rnnprune.layers import GRU, Linear

OPTIONS = (
    "--hidden 32 --embedding 8 --vocabulary 40 --prompts 2 --length 6 --rounds 1 --beam 2".split()
)


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
def generate(load, monkeypatch):
    """The script, whose processes are calls."""

    def call(main, arguments):
        monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
        with printed() as text:
            main()
        return text.getvalue()

    def fairseq(name, *arguments):
        return call(importlib.import_module(f"fairseq_cli.{name}").cli_main, arguments)

    def timed_generate(command):
        # It replaces these for the rest of its process.
        with monkeypatch.context() as process:
            for owner, name in ((GRU, "forward"), (Linear, "forward"), (StopwatchMeter, "stop")):
                process.setattr(owner, name, getattr(owner, name))
            return call(load("timed_generate").main, command[2:])

    script = load("generate")
    monkeypatch.setattr(script, "fairseq", fairseq)
    monkeypatch.setattr(script, "run", timed_generate)
    return script


def test_every_variant_is_timed(generate, load, monkeypatch, tmp_path):
    work = ["--work", str(tmp_path / "work")]
    results = run(load, monkeypatch, tmp_path / "out", "generate", *OPTIONS, *work)
    result = results["generate-h32-16x1-beam2"]
    layout = json.loads((BENCHMARKS / "results" / "generate" / "table.json").read_text())
    for _, text in layout["columns"]:
        assert text.format_map(result)
    for row in result["figures"].values():
        assert all(row[key] > 0 for key in ("recurrent_us", "output_us", "fairseq_us"))
        assert row["tokens_per_s"] == pytest.approx(1e6 / row["us_per_token"])
    assert result["figures"]["dense"]["process_speedup"] == 1.0


def test_other_text_is_refused(generate):
    dense = "H-0\t-1.0\tw1 w2\nH-1\t-3.0\tw5\n"
    other = dense.replace("-3.0\tw5", "-3.1\tw6")
    assert generate.check_text({"dense": dense, "fp32": dense.replace("-1.0", "-1.1")}) == 1.0
    assert generate.check_text({"dense": dense, "fp32": other}, least=0.5) == 0.5
    for outputs in ((dense, other), (dense, ""), ("", ""), ("", dense)):
        with pytest.raises(SystemExit, match="expected the same text"):
            generate.check_text(dict(zip(("dense", "fp32"), outputs, strict=True)))
