"""benchmarks/kernels.py runs, refuses to time wrong results, and says what it measured."""

import contextlib
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from benchmark_runs import BENCHMARKS, QUICK, run, scripts
from needs import needs_kernels, needs_triton

pytestmark = needs_kernels


@pytest.fixture
def load(monkeypatch):
    yield from scripts(monkeypatch)


@pytest.mark.parametrize("operation", ["gru", "matmul"])
def test_every_candidate_is_timed(load, monkeypatch, tmp_path, operation):
    options = [operation, *"--hidden 48 --steps 3 --batch 1 10 --sparsity 0.5 0.9".split()]
    results = run(load, monkeypatch, tmp_path, "kernels", *options, *QUICK)
    assert set(results) == {f"{operation}-h48-p{p}-b{b}-t1" for p in (50, 90) for b in (1, 10)}
    subjects = load("subjects")
    for result in results.values():
        figures = result["figures"]
        roofline = figures.pop("roofline", None)
        assert bool(roofline) == (operation == "matmul")
        names = {*subjects.DENSE, *(form.name for form in subjects.PACKED)}
        assert set(figures) == names | ({"csr-int64"} if operation == "matmul" else set())
        for row in figures.values():
            assert 0 < row["us_20"] <= row["us"] <= row["us_80"]
        assert figures["dense"]["speedup"] == figures["fp32-16x1"]["times_16x1"] == 1.0
        assert max(figures[name]["over_best"] for name in subjects.DENSE) == 1.0
        assert figures["dense-int8"]["error"] > 1e-3, "not quantised"


def test_the_command_of_a_result_measures_it_alone(load, monkeypatch, tmp_path):
    options = "gru --hidden 32 --steps 2 --batch 3 5".split()
    result = run(load, monkeypatch, tmp_path / "both", "kernels", *options, *QUICK)[
        "gru-h32-p90-b5-t1"
    ]
    command = result["command"].split()
    assert command[:2] == ["python", "benchmarks/kernels.py"]
    again = run(load, monkeypatch, tmp_path / "alone", "kernels", *command[2:], *QUICK)
    assert set(again) == {result["name"]}


@needs_triton
@pytest.mark.parametrize("operation", ["gru", "matmul"])
def test_forms_of_a_gpu_in_the_interpreter(tmp_path, operation):
    program = (
        "import kernels, subjects; kernels.FORMATS = {'cpu': subjects.TRITON[::6]}; kernels.main()"
    )
    options = [operation, *"--hidden 48 --steps 2 --batch 2".split(), *QUICK]
    subprocess.run(
        [sys.executable, "-c", program, *options, "--out", tmp_path],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(BENCHMARKS)},
        check=True,
    )
    (path,) = tmp_path.iterdir()
    names = set(json.loads(path.read_text())["figures"])
    assert names >= {"fp32-16x1", "bf16-16x4", "fp16-8x8", "int8-16x16"}


def test_on_a_gpu_graphs_are_timed(load, monkeypatch):
    harness = load("harness")
    events = []
    graph = SimpleNamespace(replay=lambda: events.append("replay"))
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    monkeypatch.setattr(torch.cuda, "graph", contextlib.nullcontext)
    ones = torch.ones(2)
    candidate = harness.Candidate("a", lambda: events.append("call") or ones, ones.double(), 1e-6)
    again = harness.replayed(candidate)
    assert events == ["call"]
    assert again.call() is ones
    assert events == ["call", "replay"]


def test_wrong_results_are_not_timed(load):
    harness = load("harness")
    ones, zeros, nan = torch.ones(2), torch.zeros(2), torch.full((2,), torch.nan)
    right = harness.Candidate("right", lambda: ones, ones.double(), 1e-6)
    arguments = SimpleNamespace(rounds=2, seconds=0, turn=0)
    assert list(harness.timed([right], arguments, baselines=["right"])) == ["right"]
    assert harness.parity(right) == 0.0
    for result in (zeros, nan):
        wrong = harness.Candidate("wrong", lambda result=result: result, ones.double(), 1.0 - 1e-6)
        with pytest.raises(SystemExit, match="wrong: error .* beyond"):
            harness.parity(wrong)
        # What is timed passes the same gate.
        with pytest.raises(SystemExit, match="wrong: error"):
            harness.timed([right, wrong], arguments)


def test_a_wrong_kernel_leaves_no_result(load, monkeypatch, tmp_path):
    wrong = lambda W, x, backend: torch.zeros(len(x), W.shape[0])  # noqa: E731
    monkeypatch.setattr(load("subjects"), "matmul", wrong)
    with pytest.raises(SystemExit, match="csr-int32: error .* beyond 1.0e-05"):
        run(load, monkeypatch, tmp_path, "kernels", *"matmul --hidden 48".split(), *QUICK)
    assert not list(tmp_path.iterdir())


def test_int8_errors_add_up_over_columns(load):
    limits = {form.name: form.limit for form in load("subjects").PACKED}
    assert limits["fp32-16x1"](0.0) == limits["fp32-16x1"](0.9) == 1e-5
    assert limits["int8-16x4"](0.95) == limits["int8-16x4"](0.9) == 0.15
    assert limits["int8-16x4"](0.6) == pytest.approx(0.3)


def test_turns_are_bounded_and_interleaved(load):
    harness = load("harness")
    order, ones = [], torch.ones(1)

    def candidate(name):
        return harness.Candidate(name, lambda: order.append(name) or ones, ones.double(), 1e-6)

    # No second is left, so there are as few rounds as there may be, and each turn is one call.
    samples = harness.measure([candidate("a"), candidate("b")], rounds=9, seconds=0, turn=0)
    assert {name: len(values) for name, values in samples.items()} == {"a": 3, "b": 3}
    estimates, warm_up_and_call = ["a", "b"], ["a", "a", "b", "b"]
    assert order == estimates + 3 * warm_up_and_call
    plenty = harness.measure([candidate("a")], rounds=4, seconds=10, turn=0.001)
    assert len(plenty["a"]) == 4


def test_block_masks_have_the_sparsity_asked_for(load):
    mask = load("harness").block_mask(torch.Size((40, 24)), (8, 4), 0.9)
    blocks = mask.view(5, 8, 6, 4).float().mean((1, 3))
    assert blocks.sum() == 3
    assert ((blocks == 0) | (blocks == 1)).all()
