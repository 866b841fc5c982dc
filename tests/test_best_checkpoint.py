"""checkpoint_best.pt and early stopping of pruned trainings, by fairseq-train itself."""

import logging
import runpy
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq_cli import train
from fairseq_runs import PRUNED, STOPPED, load, prunable, sparsity, train_arguments, train_with

from fairseq_rnnprune.experiment import fairseq
from fairseq_rnnprune.optim import best_checkpoint

# Masks change after updates 2, 4, 6 and 8 of ten. The learning rate is high enough for the first,
# dense models to have the least loss.
WORSE = (*PRUNED, "--prune-sparsity", "0.95", "--lr", "3", "--prune-inner", "sgd")


@pytest.fixture(autouse=True)
def forgotten():
    forget_losses()
    yield
    forget_losses()


def forget_losses():
    """fairseq keeps the best loss in its functions, beyond the end of a training."""
    for function in (checkpoint_utils.save_checkpoint, train.should_stop_early):
        for name in ("best", "num_runs"):
            vars(function).pop(name, None)


def validated(data, folder, *more):
    """Arguments of a training with a validation and a checkpoint after every update."""
    often = ("--validate-interval-updates", "1", "--save-interval-updates", "1")
    arguments = train_arguments(data, folder, *often, *more)
    return [a for a in arguments if a != "--disable-validation"]


def run(data, folder, *more):
    train_with(validated(data, folder, *more))


def updates_of(state):
    return state["optimizer_history"][-1]["num_updates"]


def losses(folder):
    """Of the validation after each update."""
    states = map(load, folder.glob("checkpoint*[0-9].pt"))
    return {updates_of(state): state["extra_state"]["val_loss"] for state in states}


def best_of(folder):
    best = load(folder / "checkpoint_best.pt")
    return updates_of(best), best


def test_the_best_is_one_of_those_with_final_masks(data, tmp_path):
    run(data, tmp_path, *WORSE)
    found = losses(tmp_path)
    assert sorted(found) == [*range(1, 11)]
    assert min(found, key=found.get) < 9, "the test's own premise"
    updates, best = best_of(tmp_path)
    assert updates == min((9, 10), key=found.get)
    assert best["extra_state"]["best"] == found[updates]
    assert sparsity(torch.cat([w.flatten() for w in prunable(best).values()])) > 0.9


def test_so_are_those_that_are_kept_as_the_best(data, tmp_path):
    run(data, tmp_path, *WORSE, "--keep-best-checkpoints", "3")
    kept = map(load, tmp_path.glob("checkpoint.best_loss_*.pt"))
    assert sorted(updates_of(state) for state in kept) == [9, 10]


def test_the_loss_of_pruning_is_no_plateau(data, tmp_path):
    plateau = ("--lr-scheduler", "reduce_lr_on_plateau", "--lr-shrink", "0.5")
    window = ("--prune-start", "8", "--prune-end", "30", "--max-update", "0", "--max-epoch", "5")
    run(data, tmp_path, *WORSE, *plateau, *window)
    rates = [s["param_groups"][0]["lr"] for s in optimizer_states(tmp_path)]
    assert rates == [3] * 5


def optimizer_states(folder):
    """At the end of each epoch."""
    return [load(path)["last_optimizer_state"] for path in folder.glob("checkpoint[0-9].pt")]


def test_so_it_is_after_resuming(data, tmp_path):
    # The last update before masks are final; the first one after has a greater loss.
    run(data, tmp_path, *WORSE, "--max-update", "8")
    forget_losses()
    run(data, tmp_path, *WORSE, "--max-update", "9")
    found = losses(tmp_path)
    assert found[8] < found[9], "the test's own premise"
    updates, best = best_of(tmp_path)
    assert updates == 9 and best["extra_state"]["best"] == found[9]


def test_the_best_with_final_masks_is_remembered_on_resuming(data, tmp_path):
    run(data, tmp_path, *WORSE)
    forget_losses()
    run(data, tmp_path, *WORSE, "--max-update", "12", "--lr", "300")
    found = losses(tmp_path)
    assert found[10] < min(found[11], found[12]), "the test's own premise"
    assert best_of(tmp_path)[0] == 10


def test_a_longer_training_with_the_same_target_keeps_its_best(data, tmp_path):
    # All of 16 updates, then of 40, would be final after 8 and after 20.
    window = ("--prune-start", "1", "--prune-end", "50%")
    run(data, tmp_path, *WORSE, *window, "--max-update", "16")
    updates, best = best_of(tmp_path)
    assert updates >= 9
    forget_losses()
    run(data, tmp_path, *WORSE, *window, "--max-update", "40", "--lr", "300", *STOPPED)
    assert best_of(tmp_path)[1]["extra_state"]["best"] == best["extra_state"]["best"]
    # More sparsity is another matter.
    forget_losses()
    more = ("--prune-sparsity", "0.97", "--max-update", "60", "--lr", "300", *STOPPED)
    run(data, tmp_path, *WORSE, *window, *more)
    assert updates_of(load(tmp_path / "checkpoint_best.pt")) > 16


def test_patience_waits_for_final_masks(data, tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        run(data, tmp_path, *WORSE, "--patience", "1", "--max-update", "30")
    # At the first update after 9 that is not the best one so far.
    assert 9 < updates_of(load(tmp_path / "checkpoint_last.pt")) < 30
    assert "early stop since" in caplog.text


def test_a_training_that_stops_before_its_masks_are_final_says_so(data, tmp_path, caplog):
    run(data, tmp_path, *PRUNED, "--stop-time-hours", "1e-9")
    assert "the training ends after 1 updates with recurrent weights that are" in caplog.text


def test_so_does_one_that_ends_by_its_learning_rate(data, tmp_path, caplog):
    window = ("--max-update", "0", "--max-epoch", "3", "--prune-end", "100")
    rates = ("--lr-scheduler", "fixed", "--lr", "3,0.5", "--stop-min-lr", "1")
    run(data, tmp_path, *PRUNED, *window, *rates)
    assert "with recurrent weights that are" in caplog.text
    assert len([*tmp_path.glob("checkpoint[0-9].pt")]) == 2, "the test's own premise"


def test_dense_trainings_are_as_ever(data, tmp_path):
    run(data, tmp_path, "--optimizer", "sgd", "--lr", "0.1", "--keep-best-checkpoints", "1")
    assert len([*tmp_path.glob("checkpoint.best_loss_*.pt")]) == 1
    assert best_of(tmp_path)[1]["extra_state"]["best"] == min(losses(tmp_path).values())


def test_nothing_is_copied_at_every_update(data, tmp_path, monkeypatch):
    merge = best_checkpoint.OmegaConf.merge
    copied = []
    monkeypatch.setattr(
        best_checkpoint,
        "OmegaConf",
        SimpleNamespace(merge=lambda *a: copied.append(a) or merge(*a)),
    )
    run(data, tmp_path, *PRUNED)
    assert copied == []


def test_in_a_process_that_was_spawned_it_is_the_same(monkeypatch):
    # As multiprocessing prepares it where `python -m fairseq_cli.train` runs.
    main = ModuleType("__mp_main__")
    monkeypatch.delitem(sys.modules, "fairseq_cli.train")
    found = runpy.run_module("fairseq_cli.train", run_name="__mp_main__", alter_sys=True)
    vars(main).update(found)
    monkeypatch.setitem(sys.modules, "__main__", main)
    best_checkpoint.install()
    assert main.main.__globals__["validate_and_save"] is main.validate_and_save
    assert hasattr(main.validate_and_save, "__wrapped__")


def test_as_a_module_that_is_run_it_is_the_same(data, root, tmp_path):
    fairseq("train", *validated(data, tmp_path, *WORSE), "--user-dir", root / "user_dir")
    assert best_of(tmp_path)[0] in (9, 10)
