"""A resumed pruner that would choose otherwise than before says so."""

import logging

import pytest
import torch

from fairseq_rnnprune.pruning import CubicSchedule, Prunable, Pruner


def pruner_of(end=10, **options):
    weight = (Prunable("w", "recurrent", 1), torch.arange(1.0, 5.0).repeat(4, 1))
    schedules = {"recurrent": CubicSchedule(0, end, 1, 0.5)}
    return Pruner([weight], schedules, {"recurrent": (1, 1)}, **options)


@pytest.mark.parametrize(
    "before, now, option",
    [
        ({}, {"fisher_power": 0.25}, "--prune-fisher-power 0.0"),
        ({"score": "l2"}, {"score": "mean"}, "--prune-score l2"),
        ({"allocation": "global"}, {}, "--prune-allocation global"),
    ],
)
def test_another_choice_is_told_with_the_option_that_undoes_it(before, now, option, caplog):
    saved = pruner_of(**before).state_dict()
    with caplog.at_level(logging.WARNING):
        pruner_of(**now).load_state_dict(saved)
    assert f"to go on as before give {option}" in caplog.text
    assert len(caplog.records) == 1


def test_a_checkpoint_without_the_entry_may_have_been_pruned_by_magnitude(caplog):
    saved = pruner_of().state_dict()
    del saved["choice"]
    with caplog.at_level(logging.WARNING):
        pruner_of(score="l2").load_state_dict(saved)
        assert not caplog.records
        pruner_of(fisher_power=0.25).load_state_dict(saved)
    assert "does not say" in caplog.text and "if it was magnitude, give 0" in caplog.text


def test_the_same_choice_and_final_masks_are_not_worth_a_word(caplog):
    with caplog.at_level(logging.WARNING):
        pruner_of(score="l2").load_state_dict(pruner_of(score="l2").state_dict())
        final = pruner_of(end=2)
        for _ in range(3):
            final.step()
        pruner_of(end=2, score="l2").load_state_dict(final.state_dict())
    assert not caplog.records
