"""A pruner goes on from what a checkpoint has of it: masks, thresholds, whether they are final."""

import pytest
import torch
from pruner_samples import pruner_of, ramp, resumed, run

from fairseq_rnnprune.pruning import OneShotSchedule


def test_a_saved_mask_wins_over_a_weight_that_happens_to_be_zero():
    weight = torch.tensor([[1.0, 5.0]])
    saved = pruner_of(weight, OneShotSchedule(9, 0.5)).state_dict()
    weight[0, 0] = 0.0
    later = pruner_of(weight, OneShotSchedule(9, 0.5))
    later.load_state_dict(saved)
    weight[0, 0] = 2.0
    later.step()
    assert weight.tolist() == [[2.0, 5.0]]


def test_a_target_that_was_missed_is_not_final_when_a_later_window_meets_it():
    weight = torch.arange(1.0, 21).view(4, 5)
    first = pruner_of(weight, OneShotSchedule(0, 0.5))
    run(first, 2)
    # More is asked for when it is too late, and then in time.
    second = resumed(first, weight, OneShotSchedule(0, 0.8))
    assert second.is_final() and second.sparsity() == 0.5
    third = resumed(second, weight, OneShotSchedule(9, 0.8))
    assert not third.is_final()
    run(third, 8)
    assert third.is_final() and third.sparsity() == 0.8


def test_a_target_that_was_met_is_final_whatever_the_later_window():
    weight = torch.arange(1.0, 21).view(4, 5)
    first = pruner_of(weight, OneShotSchedule(0, 0.8))
    run(first, 2)
    longer = OneShotSchedule(9, 0.8)
    assert resumed(first, weight, longer).is_final()
    assert not resumed(first, weight, longer, allocation="global").is_final()


def resumed_under(cap):
    """A pruner that a cap of 0.5 has held, and the one that goes on from it under another cap."""
    weight = torch.randn(20, 10)
    pruner = pruner_of(weight, ramp(slope=20.0), max_sparsity=0.5)
    run(pruner, 5)
    later = resumed(pruner, weight, ramp(slope=20.0), max_sparsity=cap)
    run(later, 5)
    return pruner, later


def test_a_resumed_run_stays_at_the_cap():
    pruner, later = resumed_under(0.5)
    assert later.thresholds == pruner.thresholds and later.sparsity() == 0.5


def test_a_resumed_run_under_a_lower_cap_keeps_its_zeros(caplog):
    pruner, later = resumed_under(0.3)
    assert later.sparsity() == 0.5 and later.thresholds == pruner.thresholds
    assert "is held at 0, where" in caplog.text


def test_a_resumed_run_goes_on_to_a_higher_cap():
    assert resumed_under(0.9)[1].sparsity() == 0.9


def test_masks_start_from_zeros():
    weight = torch.tensor([[0.0, 5.0]])
    pruner = pruner_of(weight, OneShotSchedule(100, 0.5))
    weight[0, 0] = 1.0
    pruner.step()
    assert weight.tolist() == [[0.0, 5.0]]


def test_a_saved_pruner_goes_on_as_if_it_had_never_stopped():
    def start():
        torch.manual_seed(0)
        weight = torch.randn(12, 6)
        return weight, pruner_of(weight, ramp(slope=0.05), (2, 3))

    weight, pruner = start()
    run(pruner, 10)
    half_weight, half = start()
    run(half, 5)
    later = resumed(half, half_weight.clone(), ramp(slope=0.05), (2, 3))
    run(later, 5)
    assert torch.equal(later.weights[0].weight, weight)
    assert later.updates == pruner.updates and later.thresholds == pruner.thresholds
    assert torch.equal(later.weights[0].block_mask, pruner.weights[0].block_mask)


def test_block_shapes_may_be_lists():
    schedule = OneShotSchedule(0, 0.5)
    pruner = pruner_of(torch.randn(8, 8), schedule, [4, 4])
    pruner.step()
    later = resumed(pruner, torch.randn(8, 8), schedule, [4, 4])
    assert torch.equal(later.weights[0].block_mask, pruner.weights[0].block_mask)


@pytest.mark.parametrize("size", [8, 32])
def test_masks_of_another_size_are_refused(size):
    schedule = OneShotSchedule(0, 0.5)
    pruner = pruner_of(torch.randn(16, 16), schedule, (4, 4))
    with pytest.raises(ValueError, match=r"masks of w of \(1, .* they are of a model of another"):
        resumed(pruner, torch.randn(size, size), schedule, (4, 4))
