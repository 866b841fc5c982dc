"""Schedules in epochs and per cent, by the updates that fairseq makes of an epoch."""

import re

import pytest
from fairseq_runs import ONE_SHOT, prunable, run_train, sparsity

SKIP = "--skip-remainder-batch"


@pytest.mark.parametrize("more", [("2", SKIP), ("1", SKIP), ("5", SKIP), ("2",), ("1,2",)])
def test_one_shot_meets_the_last_update_of_epochs(data, tmp_path, more):
    # Two epochs of 15 batches, so that one is left over by twos; to skip the rest, fairseq always
    # leaves out the last batch, and by fives four more.
    epochs = ("--max-update", "0", "--max-epoch", "2", "--update-freq", *more)
    state = run_train(data, tmp_path, *ONE_SHOT, *epochs)
    for weight in prunable(state).values():
        assert sparsity(weight) == pytest.approx(0.8, abs=0.01)


def test_schedules_in_epochs_and_per_cent(data, tmp_path, caplog):
    # 120 sentences make some 50 blocks of 16 tokens, so an epoch has about seven updates.
    with caplog.at_level("INFO"):
        run_train(
            *(data, tmp_path, "--optimizer", "pruned", "--prune-freq", "1", "--max-update", "40"),
            *("--prune-start", "1e", "--prune-end", "75%"),
        )
    length = int(re.search(r"grouped total_num_itrs = (\d+)", caplog.text)[1])
    assert f"CubicSchedule(start={length}, end=30, freq=1" in caplog.text
