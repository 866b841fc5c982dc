"""The dense optimizer inside `--optimizer pruned`, and its options."""

import pytest
from fairseq_runs import PRUNED, prunable, run_train, sparsity

from fairseq_rnnprune.optim.inner import inner_names


@pytest.mark.parametrize("inner", sorted(set(inner_names()) - {"adam", "cpu_adam", "lamb"}))
def test_any_dense_optimizer_can_be_inside(data, tmp_path, inner):
    state = run_train(data, tmp_path, *PRUNED, "--prune-inner", inner)
    for weight in prunable(state).values():
        assert sparsity(weight) == pytest.approx(0.8, abs=0.01)


def test_options_of_the_inner_optimizer_arrive(data, tmp_path):
    options = ("--prune-inner", "adam", "--adam-betas", "(0.5, 0.6)", "--weight-decay", "0.25")
    state = run_train(data, tmp_path, *PRUNED, *options)
    group = state["last_optimizer_state"]["param_groups"][0]
    assert tuple(group["betas"]) == (0.5, 0.6) and group["weight_decay"] == 0.25
    none = run_train(data, tmp_path / "0", *PRUNED, "--prune-inner", "nag", "--momentum", "0")
    assert none["last_optimizer_state"]["param_groups"][0]["momentum"] == 0
    momentum = run_train(data, tmp_path / "nag", *PRUNED, "--prune-inner", "nag")
    assert momentum["last_optimizer_state"]["param_groups"][0]["momentum"] == 0.99


@pytest.mark.parametrize(
    "inner, option, value",
    [
        ("sgd", "momentum", 0.9),
        ("sgd", "weight_decay", 0.25),
        ("adafactor", "decay_rate", -0.5),
        ("adadelta", "rho", 0.95),
        ("adagrad", "weight_decay", 0.25),
        ("adamax", "eps", 1e-5),
    ],
)
def test_options_of_optimizers_without_a_dataclass_arrive(data, tmp_path, inner, option, value):
    given = {"rho": "adadelta-rho", "eps": "adamax-eps"}.get(option, option.replace("_", "-"))
    state = run_train(data, tmp_path, *PRUNED, "--prune-inner", inner, f"--{given}={value}")
    assert state["last_optimizer_state"]["param_groups"][0][option] == value


def test_resuming_with_another_inner_optimizer_is_refused(data, pruned, tmp_path):
    restore = ("--restore-file", str(pruned[0] / "checkpoint_last.pt"), "--max-update", "20")
    other = ("--prune-inner", "sgd")
    with pytest.raises(
        ValueError, match="--prune-inner: expected adam as in the checkpoint, got s"
    ):
        run_train(data, tmp_path, *PRUNED, *other, *restore)
    state = run_train(data, tmp_path, *PRUNED, *other, *restore, "--reset-optimizer")
    assert state["last_optimizer_state"]["rnnprune"]["inner"] == "sgd"
