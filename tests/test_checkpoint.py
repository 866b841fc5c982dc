"""Reading checkpoints: what is found in them, and one clear line for everything else."""

import argparse
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from fairseq_rnnprune.checkpoint import read_checkpoint

WEIGHT = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


def save(path, model=None, epoch=4, batches=0, updates=93, update_freq=1, **more):
    """Writes what fairseq-train writes, as far as it matters here."""
    parts = {
        "model": {"out.weight": WEIGHT} if model is None else model,
        "args": None,
        "cfg": {
            "optimization": {"update_freq": [update_freq], "max_epoch": 5},
            "model": argparse.Namespace(arch="lstm_lm"),
        },
        "optimizer_history": [{"num_updates": 1}, {"num_updates": updates}],
        "extra_state": {"train_iterator": {"epoch": epoch, "iterations_in_epoch": batches}},
        "last_optimizer_state": {"state": {}, "rnnprune": {"block_shape": {"input": [4, 2]}}},
    }
    torch.save({**parts, **more}, path)
    return path


@pytest.mark.parametrize(
    "tensor",
    [
        WEIGHT.to(torch.float8_e4m3fn),
        WEIGHT.to_sparse(),
        WEIGHT.to("meta"),
    ],
    ids=["float8", "coo", "meta"],
)
def test_kinds_of_tensors_that_nothing_can_be_said_of_are_refused(tmp_path, tensor):
    path = save(tmp_path / "c.pt", {"good.weight": WEIGHT, "other.weight": tensor})
    with pytest.raises(ValueError, match=r"c.pt: expected dense tensors, .* got other.weight: "):
        read_checkpoint(path)


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    checkpoint = read_checkpoint(
        save(tmp_path / "c.pt", {"out": WEIGHT, "scale": torch.tensor(torch.nan)})
    )
    with pytest.raises(ValueError, match="c.pt: expected finite weights, got NaN or inf in scale;"):
        checkpoint.check_finite()


def test_all_parts(tmp_path):
    checkpoint = read_checkpoint(save(tmp_path / "c.pt"))
    assert list(checkpoint.model) == ["out.weight"]
    assert torch.equal(checkpoint.model["out.weight"], WEIGHT)
    assert (checkpoint.updates, checkpoint.epochs) == (93, 3.0)
    assert checkpoint.option("optimization", "max_epoch") == 5
    assert checkpoint.option("optimization", "absent") is None
    assert checkpoint.option("absent", "max_epoch") is None
    assert checkpoint.block_shapes == {"input": (4, 2)}


def test_options_of_old_versions_are_flat(tmp_path):
    args = argparse.Namespace(update_freq=[1], max_epoch=7)
    checkpoint = read_checkpoint(save(tmp_path / "c.pt", cfg=None, args=args))
    assert checkpoint.option("optimization", "max_epoch") == 7


@pytest.mark.parametrize(
    "epoch, batches, updates, update_freq, epochs",
    [
        (2, 0, 31, 1, 1.0),
        # Two epochs and 10 batches of 2 per update: 45 - 5 updates in two epochs, 20 in each.
        (3, 10, 45, 2, 2.25),
        # The first epoch is not over: its length is not known.
        (1, 10, 5, 2, None),
        (1, 0, 0, 1, None),
    ],
)
def test_epochs(tmp_path, epoch, batches, updates, update_freq, epochs):
    path = save(tmp_path / "c.pt", None, epoch, batches, updates, update_freq)
    assert read_checkpoint(path).epochs == epochs


def test_state_of_another_program_has_no_block_shapes(tmp_path):
    path = save(tmp_path / "c.pt", last_optimizer_state={"rnnprune": "?"})
    assert read_checkpoint(path).block_shapes == {}


def test_a_plain_state_dict_has_no_history(tmp_path):
    torch.save({"out.weight": WEIGHT, "step": torch.tensor(3)}, tmp_path / "state.pt")
    checkpoint = read_checkpoint(tmp_path / "state.pt")
    assert list(checkpoint.model) == ["out.weight", "step"]
    assert (checkpoint.updates, checkpoint.epochs, checkpoint.block_shapes) == (None, None, {})
    assert checkpoint.config == {}


def test_copies_of_a_tied_matrix_are_one_again(tmp_path):
    zeros = torch.zeros(2, 2)
    model = {
        "embed.weight": WEIGHT,
        "half.weight": WEIGHT.half(),
        "out.weight": WEIGHT.clone(),
        "zeros.weight": zeros,
        "other_zeros.weight": zeros.clone(),
        "bias": torch.ones(2),
        "other_bias": torch.ones(2),
    }
    read = read_checkpoint(save(tmp_path / "c.pt", model)).model
    assert list(read) == list(model)
    at = {name: tensor.data_ptr() for name, tensor in read.items()}
    assert at["embed.weight"] == at["out.weight"]
    assert len(set(at.values())) == len(model) - 1


class Runs:
    """An object whose unpickling writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "ran")


def truncated(path, tmp_path):
    path.write_bytes(save(tmp_path / "whole.pt").read_bytes()[:-200])


def truncated_old_format(path, tmp_path):
    whole = tmp_path / "whole.pt"
    torch.save({"w": torch.ones(100)}, whole, _use_new_zipfile_serialization=False)
    path.write_bytes(whole.read_bytes()[:-200])


def other_zip(path, tmp_path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("hello.txt", "hello")


def python_pickle(path, tmp_path):
    path.write_bytes(pickle.dumps({"model": [1, 2, 3]}))


@pytest.mark.parametrize(
    "write, message",
    [
        (lambda path, _: None, "a checkpoint file, got none at"),
        (lambda path, _: path.mkdir(), "got the directory .*checkpoint_best.pt"),
        (lambda path, _: path.touch(), "got the empty file"),
        (truncated, "got .*, which is truncated; copy it again"),
        (truncated_old_format, "truncated or of another format"),
        (lambda path, _: path.write_text("hello\n" * 9), "truncated or of another format"),
        (other_zip, "truncated or of another format"),
        (python_pickle, "truncated or of another format"),
        (lambda path, _: torch.save({"model": {}}, path), "which holds no tensors of a model"),
        (lambda path, _: torch.save([WEIGHT], path), "which holds no tensors of a model"),
        (lambda path, _: torch.save(torch.nn.GRU(2, 2), path), "an object of .*GRU"),
    ],
)
def test_anything_else_is_one_clear_line(tmp_path, write, message):
    path = tmp_path / "c.pt"
    write(path, tmp_path)
    with pytest.raises(ValueError, match=f"read_checkpoint: expected.*{message}") as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)


def test_code_in_a_checkpoint_never_runs(tmp_path):
    path = save(tmp_path / "c.pt", extra_state=Runs(tmp_path / "trace"))
    with pytest.raises(ValueError, match="which could run code; name a file that fairseq-train"):
        read_checkpoint(path)
    assert not (tmp_path / "trace").exists()


def test_reading_leaves_fairseqs_own_reading_alone(tmp_path):
    torch.serialization.add_safe_globals([argparse.Namespace])
    torch.save({"model": {"w": torch.ones(1)}}, tmp_path / "c.pt")
    read_checkpoint(tmp_path / "c.pt")
    assert argparse.Namespace in torch.serialization.get_safe_globals()
