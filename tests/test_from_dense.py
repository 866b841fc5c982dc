"""Pruning that begins with a trained dense model: `fairseq-train --finetune-from-model`."""

import shutil

import pytest
import torch
from fairseq_runs import PRUNED, assert_same, load, make_data, prunable, run_train, sparsity


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def dense(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    run_train(data, folder, "--optimizer", "adam")
    return folder / "checkpoint_last.pt"


def from_model(checkpoint):
    return (*PRUNED, "--finetune-from-model", str(checkpoint))


def test_its_weights_are_pruned_and_updates_count_anew(data, dense, tmp_path):
    # At no learning rate what is kept stays as it was.
    state = run_train(data, tmp_path, *from_model(dense), "--lr", "0")
    assert state["last_optimizer_state"]["rnnprune"]["updates"] == 10
    trained = prunable(load(dense))
    for name, weight in prunable(state).items():
        kept = weight != 0
        assert torch.equal(weight[kept], trained[name][kept])
        assert trained[name][~kept].abs().max() <= trained[name][kept].abs().min()
        assert sparsity(weight) == pytest.approx(0.8, abs=0.01)


def test_it_resumes_bit_for_bit_without_the_dense_model(data, dense, tmp_path):
    copy = shutil.copy(dense, tmp_path / "dense.pt")
    whole = run_train(data, tmp_path / "run", *from_model(copy))
    (halfway,) = (tmp_path / "run").glob("checkpoint_*_5.pt")
    (tmp_path / "resumed").mkdir()
    shutil.copy(halfway, tmp_path / "resumed" / "checkpoint_last.pt")
    copy.unlink()
    resumed = run_train(data, tmp_path / "resumed", *from_model(copy))
    assert_same(resumed["model"], whole["model"])
