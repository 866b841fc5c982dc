"""Trainings that go on with other options or another optimizer: targets are met, or a warning."""

import logging
from types import SimpleNamespace

import pytest
import torch
from fairseq.data.iterators import StreamingEpochBatchIterator
from fairseq_runs import FP16, MAGNITUDE, PRUNED, STOPPED, make_data, prunable, run_train, sparsity
from torch import nn

from fairseq_rnnprune.optim import trainer_hooks
from fairseq_rnnprune.optim.targets import warn_at_start
from fairseq_rnnprune.optim.updates import read_updates
from fairseq_rnnprune.pruning import (
    OneShotSchedule,
    Prunable,
    Pruner,
    misses_target,
    prunable_parameters,
    read_tag,
    tag_prunable,
)

DENSE = ("--optimizer", "adam")
# Epochs go on, updates count from 0.
ANEW = ("--reset-optimizer", "--reset-lr-scheduler", "--reset-meters")


def in_epochs(count):
    return ("--max-update", "0", "--max-epoch", str(count))


def method(schedule):
    freq = ("--prune-freq", "2", "--prune-sparsity", "0.8")
    return ("--optimizer", "pruned", "--prune-schedule", schedule, *MAGNITUDE, *freq)


def restore(folder):
    return ("--restore-file", str(folder / "checkpoint_last.pt"))


def sparsities(state):
    return [sparsity(w) for w in prunable(state).values()]


@pytest.mark.parametrize("schedule", ["cubic", "hard", "one-shot", "ramp"])
def test_pruning_a_dense_checkpoint_counts_the_epochs_that_are_left(data, tmp_path, schedule):
    run_train(data, tmp_path / "dense", *DENSE, *in_epochs(3))
    more = (*method(schedule), *in_epochs(5), *ANEW, *restore(tmp_path / "dense"))
    state = run_train(data, tmp_path, *more)
    assert state["last_optimizer_state"]["rnnprune"]["updates"] == 14
    assert min(sparsities(state)) > 0.78


def test_of_update_freq_the_values_of_the_epochs_that_are_left_count(data, tmp_path):
    run_train(data, tmp_path / "dense", *DENSE, *in_epochs(2))
    # Seven batches an epoch, from the third on in 4 updates.
    more = (*method("one-shot"), *in_epochs(5), "--update-freq", "1,1,2,2")
    state = run_train(data, tmp_path, *more, *ANEW, *restore(tmp_path / "dense"))
    assert state["last_optimizer_state"]["rnnprune"]["updates"] == 12
    assert min(sparsities(state)) > 0.78


def test_such_a_training_resumes_with_its_schedule(data, tmp_path):
    run_train(data, tmp_path / "dense", *DENSE, *in_epochs(2))
    more = (*method("hard"), *in_epochs(4))
    run_train(data, tmp_path, *more, *ANEW, *restore(tmp_path / "dense"), "--max-update", "10")
    state = run_train(data, tmp_path, *more, "--max-update", "0")
    assert state["last_optimizer_state"]["rnnprune"]["epochs_before"] == 2
    assert state["last_optimizer_state"]["rnnprune"]["updates"] == 14
    assert min(sparsities(state)) > 0.78


def test_zeros_of_types_that_are_left_out_are_told(data, tmp_path, caplog):
    run_train(data, tmp_path / "all", *PRUNED)
    more = (*ANEW, *restore(tmp_path / "all"), "--prune-types", "recurrent")
    run_train(data, tmp_path, *PRUNED, *more)
    assert "% of decoder.gru.weight_ih_l0" in caplog.text
    assert "are zeros, which will be trained, as --prune-types leaves them out" in caplog.text
    assert "% of decoder.gru.weight_hh_l0" not in caplog.text


def test_a_training_that_ends_before_its_masks_are_final_is_told(data, tmp_path, caplog):
    (tmp_path / "few").mkdir()
    few = make_data(tmp_path / "few", lines=16)
    shards = f"{data}:{few}"
    state = run_train(shards, tmp_path, *method("one-shot"), *in_epochs(2))
    assert max(sparsities(state)) < 0.1
    assert "updates with recurrent weights that are 0.0 % sparse, not as asked by" in caplog.text
    assert "give --max-update" in caplog.text


def test_epochs_that_are_shorter_when_resumed_are_told(data, tmp_path, caplog):
    more = (*method("cubic"), *in_epochs(6))
    run_train(data, tmp_path, *more, *STOPPED)
    assert "masks are final after" not in caplog.text
    # As if it went on with four processes: two updates an epoch instead of seven.
    run_train(data, tmp_path, *more, "--update-freq", "4", *STOPPED)
    told = [r.getMessage() for r in caplog.records if "masks are final after" in r.getMessage()]
    assert len(told) == 1 and "after 21 updates, but the training ends after 13" in told[0]


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        return iter(())


def test_streamed_batches_have_no_number():
    cfg = SimpleNamespace()
    streamed = StreamingEpochBatchIterator(Stream())
    assert trainer_hooks._updates_of_an_epoch(cfg, streamed) == []
    with pytest.raises(ValueError, match="--prune-end: expected a known epoch length for 2e, got"):
        read_updates(cfg, "--prune-end", "2e", [])
    assert read_updates(cfg, "--prune-end", "200", []) == 200


def test_equal_epochs_are_nothing_to_tell(data, tmp_path, caplog):
    more = (*method("cubic"), *in_epochs(2))
    run_train(data, tmp_path, *more, *STOPPED)
    run_train(data, tmp_path, *more)
    assert "masks are final after" not in caplog.text


def test_a_matrix_of_zeros_is_told(caplog):
    pairs = [
        (Prunable("a", "linear"), torch.zeros(4, 4)),
        (Prunable("b", "linear"), torch.ones(4, 4)),
    ]
    schedule = OneShotSchedule(5, 0.5)
    warn_at_start(Pruner(pairs, {"linear": schedule}, {"linear": (1, 1)}), None)
    assert [r.getMessage().split(",")[0] for r in caplog.records] == ["a is all zeros"]


def test_masks_that_come_too_late_are_told(data, tmp_path, caplog):
    run_train(data, tmp_path, *PRUNED, "--prune-end", "30")
    assert "masks are final after 30 updates, but the training ends after 10" in caplog.text


@pytest.mark.parametrize("schedule", ["cubic", "one-shot"])
def test_a_training_that_meets_its_target_is_not_warned_of(data, tmp_path, caplog, schedule):
    with caplog.at_level(logging.INFO):
        run_train(data, tmp_path, *method(schedule), *in_epochs(2))
    assert "not as asked" not in caplog.text
    assert "pruning recurrent (decoder.gru.weight_hh_l0) by " in caplog.text


def test_a_target_that_is_met_already_may_have_masks_that_are_not_final(data, tmp_path, caplog):
    run_train(data, tmp_path / "sparse", *PRUNED)
    more = (*ANEW, *restore(tmp_path / "sparse"), "--prune-end", "30")
    run_train(data, tmp_path, *PRUNED, *more)
    assert "masks are final after" not in caplog.text and "not as asked" not in caplog.text


def test_zeros_that_larger_blocks_do_not_keep_are_told(data, tmp_path, caplog):
    run_train(data, tmp_path / "single", *PRUNED)
    blocks = ("--prune-block-shape", "4,4", *ANEW, *restore(tmp_path / "single"))
    assert "are zeros" not in caplog.text
    run_train(data, tmp_path, *PRUNED, *blocks)
    assert "% of decoder.gru.weight_hh_l0 are zeros, which will be trained" in caplog.text
    assert "as they lie in blocks of 4 x 4 with other weights" in caplog.text


def test_a_target_that_is_passed_already_is_told(data, tmp_path, caplog):
    run_train(data, tmp_path / "sparse", *PRUNED)
    run_train(data, tmp_path / "sparse", *PRUNED, "--max-update", "12")
    assert "more zeros" not in caplog.text
    less = (*ANEW, *restore(tmp_path / "sparse"), "--prune-sparsity", "0.5")
    run_train(data, tmp_path, *PRUNED, *less)
    assert "recurrent weights begin with more zeros (79.9 %) than CubicSchedule" in caplog.text
    assert "masks only shrink; begin with a denser checkpoint" in caplog.text


def test_a_target_that_is_asked_for_too_late_is_told(data, tmp_path, caplog):
    run_train(data, tmp_path, *PRUNED)
    assert "not as asked" not in caplog.text
    more = ("--prune-sparsity", "0.9", "--max-update", "12")
    run_train(data, tmp_path, *PRUNED, *more)
    assert "recurrent weights are 79.9 % sparse, not as asked, and stay so" in caplog.text
    assert "with recurrent weights that are 79.9 % sparse, not as asked by Cubic" in caplog.text
    assert "their masks are final: resume with --prune-end" in caplog.text


def test_what_shares_a_target_is_told_together(data, tmp_path, caplog):
    run_train(data, tmp_path, *PRUNED, "--prune-allocation", "global", "--prune-end", "30")
    told = [line for line in caplog.text.splitlines() if "not as asked" in line]
    assert len(told) == 1
    assert "with input+recurrent+linear weights that are" in told[0]


@pytest.mark.parametrize(
    "allocation, reached, asked, missed",
    [
        ("uniform", 0.8, 0.8, False),
        ("uniform", 0.8, 0.85, True),
        ("uniform", (0.9, 0.9, 0.6), (0.9, 0.9, 0.6), False),
        ("uniform", (0.9, 0.9, 0.6), (0.9, 0.9, 0.8), True),
        # The larger weights keep more; the target is for all together.
        ("global", 0.8, 0.8, False),
        ("global", 0.8, 0.85, True),
    ],
)
def test_a_target_is_met_within_a_block_and_a_point(allocation, reached, asked, missed):
    gru = nn.GRU(32, 32)
    nn.init.normal_(gru.weight_ih_l0, std=3.0)
    weights = prunable_parameters(gru)
    types = ("input", "recurrent")
    once = dict.fromkeys(types, OneShotSchedule(0, reached))
    pruner = Pruner(weights, once, dict.fromkeys(types, (4, 4)), allocation=allocation)
    pruner.step()
    assert (pruner.sparsity("input") < 0.7) == (allocation == "global")
    pruner.schedules = dict.fromkeys(types, OneShotSchedule(0, asked))
    assert [misses_target(pruner, t) for t in types] == [missed, missed]


@pytest.mark.parametrize("before", [(), FP16], ids=["fp32", "fp16"])
@pytest.mark.parametrize("after", [(), FP16], ids=["then fp32", "then fp16"])
def test_masks_are_not_lost_to_a_dense_optimizer(before, after, data, tmp_path, caplog):
    run_train(data, tmp_path, *PRUNED, *before)
    more = (*DENSE, *after, "--max-update", "12")
    with pytest.raises(ValueError, match="expected --optimizer pruned, as the checkpoint has mas"):
        run_train(data, tmp_path, *more)
    state = run_train(data, tmp_path, *more, "--reset-optimizer")
    assert max(sparsities(state)) < 0.1
    assert "% of decoder.gru.weight_hh_l0" in caplog.text
    assert "--optimizer adam has no masks; give --optimizer pruned" in caplog.text


def test_a_dense_training_that_goes_on_is_not_told_of_zeros(data, tmp_path, caplog):
    run_train(data, tmp_path, *DENSE)
    state = run_train(data, tmp_path, *DENSE, "--max-update", "12")
    assert state["optimizer_history"][-1]["num_updates"] == 12
    assert "are zeros" not in caplog.text


def test_a_dense_checkpoint_in_half_precision_is_refused(data, tmp_path):
    run_train(data, tmp_path, *DENSE, *FP16)
    with pytest.raises(ValueError, match="expected the checkpoint of a pruned training, got one"):
        run_train(data, tmp_path, *PRUNED, *FP16, "--max-update", "12")


@pytest.mark.parametrize("name, tagged", [("composite", False), ("adam", True)])
def test_composite_optimizers_see_no_tags(name, tagged):
    model, built = nn.GRU(4, 4), []
    model.weight_ih_l0.optim_overrides = {"lr": 1.0}
    tag_prunable(model)
    cfg = SimpleNamespace(optimizer=SimpleNamespace(_name=name))
    trainer = SimpleNamespace(cfg=cfg, model=model)
    trainer_hooks._build_for_masks(built.append, trainer)
    assert built == [trainer]
    assert (read_tag(model.weight_hh_l0) is not None) == tagged
    assert hasattr(model.weight_hh_l0, "optim_overrides") == tagged
    assert model.weight_ih_l0.optim_overrides["lr"] == 1.0
