"""benchmarks/memory.py, with its commands in this process: each start takes seconds."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from benchmark_runs import BENCHMARKS, run, scripts

from fairseq_rnnprune import cli
from fairseq_rnnprune.layers import GRU

NAMES = ("peak_mb", "resident_mb", "used_mb")
needs_linux = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="memory is read from /proc"
)


@pytest.fixture
def load(monkeypatch):
    yield from scripts(monkeypatch)


@pytest.fixture
def memory(load, monkeypatch, capsys):
    """The script, whose processes are calls."""

    def fairseq(name, *arguments):
        with monkeypatch.context() as process:
            process.setattr(sys, "argv", ["", *map(str, arguments)])
            importlib.import_module(f"fairseq_cli.{name}").cli_main()

    def choice(command):
        with monkeypatch.context() as process:
            process.setattr(sys, "argv", command[1:])
            capsys.readouterr()
            load("memory").main()
        return capsys.readouterr().out

    script = load("memory")
    # The module that load has imported beside the script.
    monkeypatch.setattr(sys.modules["fairseq_generate"], "fairseq", fairseq)
    monkeypatch.setattr(script, "rnnprune", lambda *a: cli.main(list(map(str, a))))
    monkeypatch.setattr(script, "run", choice)
    return script


@needs_linux
@pytest.mark.filterwarnings("ignore:torch.(ao.quantization|quantize_per_tensor)")
def test_every_choice_transcribes(memory, load, monkeypatch, tmp_path):
    seen, transcribe = [], memory.transcribe_files

    def spy(sources, speech, *more):
        seen.append(speech.model.rnn)
        return transcribe(sources, speech, *more)

    monkeypatch.setattr(memory, "transcribe_files", spy)
    # This process is no fresh one: it has had more in memory than any choice needs.
    reports = iter([dict.fromkeys(NAMES, 200.0 + i) for i in range(6)])
    monkeypatch.setattr(memory, "resident", lambda: next(reports))
    options = ["--size", "2x128", "--work", str(tmp_path / "work"), "--audio-seconds", "0.5"]
    result = run(load, monkeypatch, tmp_path / "out", "memory", *options)["memory-2x128"]
    figures = result["figures"]
    assert figures["weights_mb"] == pytest.approx(4e-6 * figures["parameters"])
    assert figures["imports"] == dict.fromkeys(NAMES, 200.0)
    disks = {}
    for i, choice in enumerate(("dense", "dense-int8", "fp32", "bf16", "int8"), start=1):
        disks[choice] = figures[choice]["disk_mb"]
        assert figures[choice] == {**dict.fromkeys(NAMES, i), "disk_mb": disks[choice]}
    assert disks["dense"] == disks["dense-int8"] > figures["weights_mb"] > 3 * disks["fp32"]
    assert disks["fp32"] > disks["bf16"] > disks["int8"]
    assert [rnn.sparse is not None for rnn in seen if isinstance(rnn, GRU)] == [False, *3 * [True]]
    quantised = seen[1].layer
    assert quantised.__class__.__module__.startswith("torch.ao.nn.quantized.dynamic")
    assert "--size 2x128 --sparsity 0.9 --audio-seconds 0.5 --seed 1" in result["command"]
    for name in ("table", "int8"):
        layout = json.loads((BENCHMARKS / "results" / "memory" / f"{name}.json").read_text())
        assert all(text.format_map(result) for _, text in layout["columns"])


def test_memory_is_counted_from_the_imports_on(memory, monkeypatch, tmp_path):
    rows = {"imports": {"peak_mb": 9.0, "resident_mb": 8.0}}
    others = {"peak_mb": 11.0, "resident_mb": 8.5}
    monkeypatch.setattr(memory, "count_parameters", lambda _: {"parameters": 10})
    monkeypatch.setattr(memory, "run", lambda command: json.dumps(rows.get(command[-1], others)))
    file = tmp_path / "model"
    file.write_bytes(bytes(3_000_000))
    figures = memory.compare(dict.fromkeys(memory.CHOICES, file), 1.0, 1)
    assert figures["int8"] == {"peak_mb": 2.0, "resident_mb": 0.5, "disk_mb": 3.0}
    assert figures.keys() == {"parameters", "weights_mb", *memory.CHOICES}


@needs_linux
def test_memory_is_the_kernels(memory):
    # The first call returns what earlier tests have freed.
    memory.resident()
    before = memory.resident()
    block = torch.ones(50_000_000)
    during = memory.resident()
    del block
    after = memory.resident()
    assert set(after) == set(NAMES) and after["used_mb"] <= after["resident_mb"] + 10
    assert during["resident_mb"] - before["resident_mb"] == pytest.approx(200, rel=0.05)
    assert during["resident_mb"] - after["resident_mb"] == pytest.approx(200, rel=0.05)
    assert after["peak_mb"] >= during["resident_mb"] - 10


def test_either_a_size_or_a_checkpoint(memory, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["memory.py"])
    with pytest.raises(SystemExit):
        memory.main()
    assert "expected either --size or --checkpoint" in capsys.readouterr().err
