"""The `rnnprune` command in this process, and checkpoints to run it on."""

import json

import torch

from fairseq_rnnprune import cli


def run(capsys, *arguments):
    """Runs the command; returns exit status, standard output and standard error."""
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def _save(path, weights, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        "model": weights,
        "optimizer_history": [{"num_updates": 4000}],
        "extra_state": {"train_iterator": {"epoch": 11, "iterations_in_epoch": 0}},
    }
    torch.save({**parts, **more}, path)
    return path


def save_dense(folder):
    """A dense model of 4000 updates in 10 epochs: |w| is 1 to 48, 0.1 to 4.8, 0.01 to 0.4."""
    weights = {
        "gru.weight_ih_l0": torch.arange(1.0, 49).view(12, 4),
        "gru.weight_hh_l0": -torch.arange(1.0, 49).view(12, 4) / 10,
        "gru.bias_ih_l0": torch.zeros(12),
        "out.weight": torch.arange(1.0, 41).view(10, 4) / 100,
    }
    return _save(folder / "dense" / "c.pt", weights)


def save_sparse(folder):
    """A recurrent matrix that has lost 36 of 48 elements, in blocks of 2 x 2."""
    weight = torch.zeros(12, 4)
    weight[:4, :2] = 1.0
    weight[4:6] = 1.0
    weights = {"gru.weight_hh_l0": weight, "gru.weight_ih_l0": torch.ones(12, 4)}
    state = {"rnnprune": {"block_shape": {"recurrent": [2, 2]}}}
    path = _save(folder / "sparse" / "c.pt", weights, last_optimizer_state=state)
    line = {"num_updates": "10", "sparsity": "0.3", "sparsity_recurrent": "0.6"}
    (path.parent / "train.log").write_text(json.dumps({**line, "threshold_recurrent": 0.1}) + "\n")
    return path
