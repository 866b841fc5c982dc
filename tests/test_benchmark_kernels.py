"""benchmarks/kernels.py runs, refuses to time wrong results, and says what it measured."""

import json
import sys

import pytest
import torch

from fairseq_rnnprune.sparse import cpu

pytestmark = pytest.mark.skipif(
    bool(cpu.unavailable_reasons()), reason="the native kernels were not compiled"
)


@pytest.fixture
def kernels(root, monkeypatch):
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    threads = torch.get_num_threads()
    import kernels

    yield kernels
    torch.set_num_threads(threads)
    sys.modules.pop("kernels")


def run(kernels, monkeypatch, folder, operation):
    options = "--hidden 48 --steps 3 --batch 2 --rounds 3 --calls 1".split()
    monkeypatch.setattr(sys, "argv", ["kernels.py", operation, *options, "--out", str(folder)])
    kernels.main()
    [path] = folder.iterdir()
    return json.loads(path.read_text())


@pytest.mark.parametrize("operation", ["gru", "matmul"])
def test_every_candidate_is_timed(kernels, monkeypatch, tmp_path, operation):
    result = run(kernels, monkeypatch, tmp_path, operation)
    assert result["name"] == f"{operation}-h48-p90-b2-t1"
    figures = result["figures"]
    assert {"dense", *(name for name, *_ in kernels.PACKED)} <= set(figures)
    for row in figures.values():
        assert 0 < row["us_20"] <= row["us"] <= row["us_80"]
    assert figures["dense"]["speedup"] == 1.0


def test_wrong_results_are_not_timed(kernels):
    right = kernels.Candidate("right", lambda: torch.ones(2), torch.ones(2).double(), 1e-6)
    wrong = kernels.Candidate("wrong", lambda: torch.zeros(2), torch.ones(2).double(), 1e-6)
    nan = kernels.Candidate("nan", lambda: torch.full((2,), torch.nan), torch.ones(2).double(), 1)
    assert kernels.parity(right) == 0.0
    for candidate in (wrong, nan):
        with pytest.raises(SystemExit, match=f"{candidate.name}: error .* beyond"):
            kernels.parity(candidate)


def test_block_masks_have_the_sparsity_asked_for(kernels):
    mask = kernels.block_mask(torch.Size((40, 24)), (8, 4), 0.9)
    blocks = mask.view(5, 8, 6, 4).float().mean((1, 3))
    assert blocks.sum() == 3
    assert ((blocks == 0) | (blocks == 1)).all()
