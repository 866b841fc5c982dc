"""Trainings of several processes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq_runs import (
    ONE_SHOT,
    PRUNED,
    assert_same,
    load,
    masks,
    prunable,
    sparsity,
    train_arguments,
)

# Every rank saves here, so that they can be compared; fairseq lets only the first one save.
RANK = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import fairseq_rnnprune.plugin
from fairseq.trainer import Trainer
from fairseq_cli.train import cli_main
Trainer.should_save_checkpoint_on_current_rank = True
cli_main()
"""


def train_two(data, folder, *options):
    """The last checkpoints of two processes that train together."""
    root = str(Path(__file__).parent.parent)
    distributed = [
        *("--ddp-backend", "legacy_ddp", "--distributed-backend", "gloo"),
        *("--distributed-world-size", "2", "--distributed-no-spawn"),
        *("--distributed-init-method", f"file://{folder / 'rendezvous'}"),
    ]
    folders = [folder / f"rank{rank}" for rank in range(2)]
    processes = []
    for rank, save_dir in enumerate(folders):
        save_dir.mkdir()
        arguments = train_arguments(data, save_dir, *options, *distributed)
        command = [sys.executable, "-c", RANK, root, *arguments, "--distributed-rank", str(rank)]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    outputs = [p.communicate(timeout=120)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs[0][-2000:] + outputs[1][-2000:]
    return [load(save_dir / "checkpoint_last.pt") for save_dir in folders]


def sparsity_of_all(state):
    return sparsity(torch.cat([weight.flatten() for weight in prunable(state).values()]))


def test_two_processes_end_with_the_same_masks_and_weights(data, tmp_path):
    # Masks come of the gradients as well, which the processes share.
    first, second = train_two(data, tmp_path, *PRUNED, "--prune-fisher-power", "0.25")
    assert first["optimizer_history"][-1]["num_updates"] == 10
    assert_same(first["model"], second["model"])
    assert_same(masks(first), masks(second))
    assert sparsity_of_all(first) == pytest.approx(0.8, abs=0.01)


def test_an_epoch_of_shuffled_groups_leaves_out_what_fills_none(data, tmp_path):
    epochs = ("--max-update", "0", "--max-epoch", "2", "--grouped-shuffling")
    first, _ = train_two(data, tmp_path, *ONE_SHOT, *epochs)
    # Of 7 batches, 3 for each process.
    assert first["optimizer_history"][-1]["num_updates"] == 6
    assert sparsity_of_all(first) == pytest.approx(0.8, abs=0.01)
