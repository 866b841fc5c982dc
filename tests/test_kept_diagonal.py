"""Recurrent diagonals that pruning spares."""

import pytest
import torch
from pruner_samples import RECURRENT, pruner_of, ramp, run

from fairseq_rnnprune.pruning import OneShotSchedule, Prunable, Pruner, QuantileRamp
from fairseq_rnnprune.pruning.masked_weight import MaskedWeight


@pytest.mark.parametrize("block_shape", [(1, 1), (2, 3), (4, 4)])
def test_a_kept_diagonal_outlives_its_blocks(block_shape):
    torch.manual_seed(0)
    weight = torch.randn(2 * 8, 8)
    diagonals = torch.eye(8, dtype=torch.bool).repeat(2, 1)
    # The diagonal decides nothing: neither a small one nor a large one.
    weight[diagonals] = torch.tensor([1e-3, 1e3] * 8)
    before = weight.clone()
    schedule = OneShotSchedule(0, 0.75)
    pruner = pruner_of(weight, schedule, block_shape, gates=2, keep_diagonal=True)
    run(pruner, 1)
    assert torch.equal(weight[diagonals], before[diagonals])
    dropped = int((weight == 0).sum())
    assert 96 - block_shape[0] * block_shape[1] < dropped <= 96
    scores = before.abs().masked_fill(diagonals, 0)
    if block_shape == (1, 1):
        assert scores[weight == 0].max() < scores[(weight != 0) & ~diagonals].min()
    resumed = pruner_of(weight, schedule, block_shape, gates=2, keep_diagonal=True)
    assert resumed.sparsity() == pruner.sparsity()
    with pytest.raises(ValueError, match="expected diagonals pruned as in the checkpoint"):
        resumed.load_state_dict(pruner_of(weight, schedule, block_shape, gates=2).state_dict())


@pytest.mark.parametrize("score", ["mean", "l2"])
def test_blocks_with_a_kept_diagonal_are_judged_by_the_rest(score):
    # All weights are alike, so are then all blocks, whatever of them is the diagonal.
    weight = torch.ones(8, 8)
    weight.fill_diagonal_(9.0)
    masked = MaskedWeight(RECURRENT, weight, (4, 4), keep_diagonal=True)
    torch.testing.assert_close(masked.scores(score), torch.ones(1, 2, 2))


@pytest.mark.parametrize(
    ("schedule", "options"),
    [
        (QuantileRamp(0, 2, 8, 1, 0.75), {}),
        (ramp(slope=1.0, end=8), {"min_sparsity": 0.75, "max_sparsity": 0.75}),
        (ramp(slope=99.0, end=8), {"max_sparsity": 0.75}),
    ],
)
def test_a_kept_diagonal_counts_for_ramps_too(schedule, options):
    weight = torch.randperm(64).view(8, 8) + 1.0
    pruner = pruner_of(weight, schedule, keep_diagonal=True, **options)
    run(pruner, 9)
    assert pruner.sparsity() == 0.75
    # More than all but the diagonal and the best of the others cannot go.
    most = pruner_of(weight, QuantileRamp(0, 2, 8, 1, 0.875), keep_diagonal=True)
    run(most, 9)
    assert int((weight != 0).sum()) == 9


@pytest.mark.parametrize(
    "schedule", [OneShotSchedule(0, 0.9), QuantileRamp(0, 2, 8, 1, 0.9), OneShotSchedule(0, (0.9,))]
)
def test_a_target_that_leaves_no_diagonal_is_refused(schedule):
    with pytest.raises(ValueError, match="of at most 0.875 where the diagonal of .* got 0.9; ask"):
        pruner_of(torch.ones(8, 8), schedule, keep_diagonal=True)
    pruner_of(torch.ones(8, 8), OneShotSchedule(0, 0.875), keep_diagonal=True)
    # What is advised can be had: all but the diagonal is 0.99739... of it.
    with pytest.raises(ValueError, match="of at most 0.9973 where"):
        pruner_of(torch.ones(384, 384), OneShotSchedule(0, 0.9975), keep_diagonal=True)
    pruner_of(torch.ones(384, 384), OneShotSchedule(0, 0.9973), keep_diagonal=True)
    # Of each gate 0.885 of 64 is 56, of both together 113, one more than their blocks hold.
    twice = torch.ones(16, 8)
    pruner_of(twice, OneShotSchedule(0, (0.885, 0.885)), gates=2, keep_diagonal=True)


def test_a_ramp_that_is_to_end_beyond_the_diagonal_is_refused():
    with pytest.raises(
        ValueError, match="of at most 0.875 where the diagonal of w is kept, got 0.9"
    ):
        pruner_of(torch.ones(8, 8), ramp(slope=1.0), keep_diagonal=True, min_sparsity=0.9)


def test_other_weights_can_give_what_a_diagonal_keeps():
    """Where all share one target, it may be beyond what one matrix has in blocks."""
    both = [(RECURRENT, torch.rand(8, 8)), (Prunable("input", "input"), torch.rand(8, 24))]
    schedules = dict.fromkeys(("recurrent", "input"), OneShotSchedule(0, 0.9))
    shapes = dict.fromkeys(schedules, (1, 1))
    pruner = Pruner(both, schedules, shapes, keep_diagonal=True, allocation="global")
    run(pruner, 1)
    assert int(both[0][1].count_nonzero() + both[1][1].count_nonzero()) == 26
    with pytest.raises(ValueError, match="of at most 0.875 "):
        Pruner(both, schedules, shapes, keep_diagonal=True)


def test_a_cap_is_not_reached_by_counting_less_than_there_is(caplog):
    weight = torch.arange(1.0, 65.0).view(8, 8)
    pruner = pruner_of(weight, ramp(slope=7.0, end=8), keep_diagonal=True, max_sparsity=0.8)
    run(pruner, 9)
    # Below 56 are 55, of which 7 on the diagonal: 48 of 64, though 86 % of what is in blocks.
    assert pruner.thresholds == {"recurrent": 56.0} and pruner.sparsity() == 48 / 64
    assert "is held at" not in caplog.text


def test_everything_but_the_diagonal_can_go():
    weight = torch.ones(4, 4)
    pruner = pruner_of(weight, OneShotSchedule(0, 0.75), keep_diagonal=True)
    run(pruner, 1)
    assert torch.equal(weight, torch.eye(4)) and pruner.sparsity() == 0.75
    with pytest.raises(ValueError, match="expected square gates in w, .* got 4 x 3 in 1 gates"):
        pruner_of(torch.ones(4, 3), OneShotSchedule(0, 0.9), keep_diagonal=True)
