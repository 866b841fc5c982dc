"""What `--optimizer pruned` promises, through fairseq-train itself."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fairseq_runs import MAGNITUDE, PRUNED, load, run_train, train_arguments

from fairseq_rnnprune.optim.inner import inner_names

WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "output_projection.weight")


@pytest.fixture(scope="module")
def pruned(data, tmp_path_factory):
    """Ten updates in one go; checkpoint_1_5.pt holds the first five."""
    folder = tmp_path_factory.mktemp("pruned")
    return folder, run_train(data, folder, *PRUNED)


def prunable(state):
    return {n: w for n, w in state["model"].items() if n.endswith(WEIGHTS)}


def masks(state):
    return state["last_optimizer_state"]["rnnprune"]["masks"]


def assert_same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def sparsity(tensor):
    return float((tensor == 0).float().mean())


def test_ends_at_the_asked_sparsity_with_exact_zeros(pruned):
    _, state = pruned
    for name, weight in prunable(state).items():
        assert sparsity(weight) == pytest.approx(0.8, abs=1.5 / weight.numel()), name
        assert torch.equal(masks(state)[name].view_as(weight), weight != 0)
    assert "decoder.embed_tokens.weight" not in masks(state)


def test_the_checkpoint_is_an_ordinary_one(pruned, data, tmp_path):
    dense = run_train(data, tmp_path, "--optimizer", "adam")
    assert dense["model"].keys() == pruned[1]["model"].keys()
    assert [n for n in dense["model"] if "mask" in n or "orig" in n] == []


@pytest.mark.parametrize(
    "more",
    [
        ("--prune-inner", "adam", "--prune-block-shape", "4,3"),
        ("--prune-inner", "nag", "--prune-block-shape", "4,3"),
        ("--prune-start", "0.2e", "--prune-end", "1.5e"),
        # Stopped in the second epoch.
        ("--batch-size", "16"),
    ],
    ids=["adam", "nag", "epochs", "second epoch"],
)
def test_five_updates_and_five_more_are_ten(data, tmp_path, more):
    options = (*PRUNED, *more)
    whole = run_train(data, tmp_path / "whole", *options)
    first = next((tmp_path / "whole").glob("checkpoint_*_5.pt"))
    resumed = run_train(data, tmp_path / "half", *options, "--restore-file", str(first))
    assert_same(whole["model"], resumed["model"])
    assert_same(masks(whole), masks(resumed))
    for key in ("updates", "thresholds"):
        assert (
            whole["last_optimizer_state"]["rnnprune"][key]
            == resumed["last_optimizer_state"]["rnnprune"][key]
        )
    moments = [s["last_optimizer_state"]["state"] for s in (whole, resumed)]
    for a, b in zip(moments[0].values(), moments[1].values(), strict=True):
        assert all(torch.equal(torch.as_tensor(a[k]), torch.as_tensor(b[k])) for k in a)


def test_update_freq_counts_an_update_once(data, tmp_path):
    state = run_train(data, tmp_path, *PRUNED, "--update-freq", "3")
    assert state["last_optimizer_state"]["rnnprune"]["updates"] == 10


SKIP = "--skip-remainder-batch"


@pytest.mark.parametrize("more", [("2", SKIP), ("1", SKIP), ("5", SKIP), ("2",), ("1,2",)])
def test_one_shot_meets_the_last_update_of_epochs(data, tmp_path, more):
    # Two epochs of 15 batches, so that one is left over by twos; to skip the rest, fairseq always
    # leaves out the last batch, and by fives four more.
    epochs = ("--max-update", "0", "--max-epoch", "2", "--update-freq", *more)
    one_shot = ("--optimizer", "pruned", "--prune-schedule", "one-shot", "--prune-sparsity", "0.8")
    state = run_train(data, tmp_path, *one_shot, *MAGNITUDE, *epochs)
    for weight in prunable(state).values():
        assert sparsity(weight) == pytest.approx(0.8, abs=0.01)


def test_moments_of_pruned_weights_are_zero(pruned):
    _, state = pruned
    flat = {tuple(w.shape): w for w in prunable(state).values()}
    seen = 0
    for moments in state["last_optimizer_state"]["state"].values():
        weight = flat.get(tuple(moments["exp_avg"].shape))
        if weight is not None:
            seen += 1
            assert moments["exp_avg"][weight == 0].abs().max() == 0
            assert moments["exp_avg_sq"][weight == 0].abs().max() == 0
    assert seen == 3


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


@pytest.mark.parametrize("power", ["0", "0.25"])
def test_half_precision(data, tmp_path, power):
    half = ("--fp16", "--fp16-no-flatten-grads", "--prune-fisher-power", power)
    state = run_train(data, tmp_path, *PRUNED, *half)
    assert state["last_optimizer_state"]["rnnprune"]["updates"] == 10
    for name, weight in prunable(state).items():
        assert torch.equal(masks(state)[name].view_as(weight), weight != 0)


@pytest.mark.parametrize("how", ["--reset-optimizer", "--no-save-optimizer-state"])
def test_masks_are_rebuilt_from_the_zeros(data, pruned, tmp_path, how):
    options = [*PRUNED, "--max-update", "12"]
    if how == "--reset-optimizer":
        source = pruned[0] / "checkpoint_last.pt"
        options += [how, "--reset-dataloader", "--reset-lr-scheduler", "--reset-meters"]
        # Fewer updates than the first change of masks: what is zero stays so by itself.
        options += ["--max-update", "2"]
    else:
        source = tmp_path / "checkpoint_last.pt"
        run_train(data, tmp_path, *PRUNED, how)
        assert "last_optimizer_state" not in load(source)
    before = load(source)
    after = run_train(data, tmp_path / "after", *options, "--restore-file", str(source))
    for name, weight in prunable(before).items():
        dropped = weight == 0
        assert dropped.any()
        assert prunable(after)[name][dropped].abs().max() == 0, name
        assert not torch.equal(prunable(after)[name], weight)


def test_averaging_keeps_common_zeros(pruned):
    folder, last = pruned
    earlier = load(next(folder.glob("checkpoint_*_5.pt")))
    for name, weight in prunable(last).items():
        mean = (weight + earlier["model"][name]) / 2
        common = (weight == 0) & (earlier["model"][name] == 0)
        assert torch.equal(mean == 0, common)
        # Masks only shrink, so that the zeros of the earlier checkpoint are the common ones.
        assert torch.equal(common, earlier["model"][name] == 0)


def test_sparsity_and_threshold_are_in_the_log(data, tmp_path, caplog):
    with caplog.at_level("INFO"):
        run_train(data, tmp_path, *PRUNED, "--prune-types", "recurrent,input")
    inner = [json.loads(r.message) for r in caplog.records if r.name == "train_inner"]
    assert [float(r["sparsity"]) for r in inner][-1] == pytest.approx(0.8, abs=2e-3)
    assert float(inner[-1]["sparsity_recurrent"]) == pytest.approx(0.8, abs=2e-3)
    assert float(inner[-1]["threshold_input"]) > 0
    assert "sparsity_linear" not in inner[-1]


def test_sparsity_is_in_tensorboard(data, tmp_path):
    run_train(data, tmp_path, *PRUNED, "--tensorboard-logdir", str(tmp_path / "board"))
    events = b"".join(f.read_bytes() for f in (tmp_path / "board").rglob("*tfevents*"))
    assert b"sparsity_recurrent" in events and b"threshold_linear" in events


def test_gradients_of_pruned_weights_do_not_count_in_the_norm(data, tmp_path, monkeypatch):
    from fairseq_rnnprune.optim.pruned import PrunedOptimizer

    norms = []
    clip = PrunedOptimizer.clip_grad_norm

    def spy(self, max_norm, aggregate_norm_fn=None):
        kept = []
        for w in self.pruner.weights:
            kept.append((w.weight.grad * (w.weight != 0)).norm())
        others = [
            p.grad.norm()
            for p in self.params
            if p.grad is not None and all(p is not w.weight for w in self.pruner.weights)
        ]
        norms.append((clip(self, max_norm, aggregate_norm_fn), torch.stack(kept + others).norm()))
        return norms[-1][0]

    monkeypatch.setattr(PrunedOptimizer, "clip_grad_norm", spy)
    run_train(data, tmp_path, *PRUNED)
    assert len(norms) == 10
    for measured, expected in norms:
        assert measured.item() == pytest.approx(expected.item(), rel=1e-5)


METHODS = {
    "ramp": "--prune-schedule ramp --prune-ramp 4",
    "ramp with q": "--prune-schedule ramp --prune-ramp 4 --prune-q 0.15 "
    "--prune-min-sparsity 0.8 --prune-max-sparsity 0.8",
    "hard": "--prune-schedule hard --prune-start 5",
    "one-shot": "--prune-schedule one-shot --prune-start 9",
    "l1": "--prune-schedule hard --prune-start 5 --prune-penalty l1 --prune-penalty-strength 0.1",
    "group lasso": "--prune-schedule ramp --prune-ramp 4 --prune-block-shape 2,2 "
    "--prune-penalty group-lasso --prune-penalty-strength 0.1",
    "random": "--prune-score random",
    "fisher in blocks": "--prune-fisher-power 0.25 --prune-block-shape 2,2 --prune-score l2",
    "global": "--prune-allocation global",
    "lamp in blocks": "--prune-allocation lamp --prune-block-shape 2,2 --prune-score l2",
    "LPCNet's": "--prune-keep-diagonal --prune-block-shape 2,2 --prune-types recurrent "
    "--prune-sparsity 0.9/0.9/0.6",
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_its_sparsity_and_resumes_exactly(data, tmp_path, method):
    options = (*PRUNED, *shlex.split(METHODS[method]))
    state = run_train(data, tmp_path / "whole", *options)
    achieved = sparsity(torch.cat([state["model"][name].flatten() for name in masks(state)]))
    # A gate of 16 x 16 has 64 blocks of 2 x 2.
    assert achieved == pytest.approx(0.8, abs=1 / 64)
    first = next((tmp_path / "whole").glob("checkpoint_*_5.pt"))
    resumed = run_train(data, tmp_path / "half", *options, "--restore-file", str(first))
    assert_same(state["model"], resumed["model"])
    assert_same(masks(state), masks(resumed))


def test_a_penalty_ends_when_masks_are_final(data, tmp_path, monkeypatch):
    from fairseq_rnnprune.optim import pruned as module

    amounts = []
    monkeypatch.setattr(module, "shrink", lambda w, penalty, amount: amounts.append(amount))
    run_train(data, tmp_path, *PRUNED, *shlex.split(METHODS["l1"]))
    # Three weights, after each of the updates 0 to 5; the learning rate is 0.01.
    assert amounts == pytest.approx([0.01 * 0.1] * 3 * 6)


def test_resuming_with_pruned_diagonals_is_refused(data, pruned, tmp_path):
    restore = ("--restore-file", str(pruned[0] / "checkpoint_last.pt"), "--max-update", "20")
    with pytest.raises(ValueError, match="use --prune-keep-diagonal as before"):
        run_train(data, tmp_path, *PRUNED, "--prune-keep-diagonal", *restore)


def test_schedules_in_epochs_and_per_cent(data, tmp_path, caplog):
    # 120 sentences make some 50 blocks of 16 tokens, so an epoch has about seven updates.
    with caplog.at_level("INFO"):
        run_train(
            *(data, tmp_path, "--optimizer", "pruned", "--prune-freq", "1", "--max-update", "40"),
            *("--prune-start", "1e", "--prune-end", "75%"),
        )
    length = int(re.search(r"grouped total_num_itrs = (\d+)", caplog.text)[1])
    assert f"CubicSchedule(start={length}, end=30, freq=1" in caplog.text


BAD = [
    (["--prune-start", "-5"], "--prune-start: expected updates"),
    (["--prune-start", "8", "--prune-end", "4"], "0 <= start < end, got start=8, end=4"),
    (["--prune-start", "soon"], "--prune-start: expected updates .* got 'soon'"),
    (["--prune-schedule", "ramp", "--prune-score", "random"], "got random; take max, mean or l2"),
    (["--prune-schedule", "ramp", "--prune-fisher-power", "0.5"], "of 0 with a ramp, .* got 0.5"),
    (["--prune-score", "random", "--prune-fisher-power", "1"], "of 0 with random scores, got 1"),
    (["--prune-fisher-power", "-1"], r"a fisher_power in \[0, 1\], got -1"),
    (
        ["--prune-inner", "nag", "--prune-fisher-power", "0.5"],
        "without; optimise with adam",
    ),
    (["--prune-allocation", "lamp", "--prune-schedule", "ramp"], "with lamp allocation, got Quant"),
    (["--prune-allocation", "global", "--prune-sparsity", "0.9/0.9/0.8"], "give a .* single spars"),
    (["--prune-min-sparsity", "0.96"], r"min_sparsity in \[0, max_sparsity = 0.95\], got 0.96"),
    (["--prune-penalty-strength", "0"], "--prune-penalty-strength: expected more than 0, got 0"),
    (["--prune-sparsity", "0.9/0.8"], "expected 3 sparsities, one per gate of"),
    (["--prune-sparsity", "0.9/0.9/0.8"], "expected 1 sparsities, one per gate of .*projection"),
    (["--prune-types", "input", "--prune-keep-diagonal"], "expected recurrent weights, whose diag"),
    (["--prune-schedule", "ramp", "--prune-q", "0"], "expected q > 0, got 0"),
    (["--prune-schedule", "ramp", "--prune-q", "-1"], "expected q > 0, got -1"),
    (["--prune-schedule", "ramp", "--prune-q", "much"], "--prune-q: expected VALUE or TYPE=VALUE"),
    (["--prune-sparsity", "1.0"], r"expected final in \[0, 1\), got 1.0"),
    (["--prune-sparsity", "-0.1"], r"expected final in \[0, 1\), got -0.1"),
    (["--prune-sparsity", "recurrent=0.9"], "a value for each of recurrent,input,linear"),
    (["--prune-max-sparsity", "1"], "max_sparsity in"),
    (["--prune-block-shape", "64,1"], "got 64 x 1; choose a smaller block"),
    (["--prune-block-shape", "4"], "--prune-block-shape: expected VALUE or TYPE=VALUE"),
    (["--prune-types", "recurrent,gates"], "--prune-types: expected some of .*'recurrent,gates'"),
    (["--prune-types", ""], "--prune-types: expected some of"),
    (["--prune-freq", "100"], "a mask update between start=1 and end=9, got none with freq=100"),
    (["--prune-freq", "0"], "freq >= 1, got 0"),
    (["--prune-inner", "pruned"], "--prune-inner: expected one of .*adam"),
    (["--fp16"], "add --fp16-no-flatten-grads"),
    (["--memory-efficient-fp16"], "expected weights in fp32, got --memory-efficient-fp16"),
    (["--amp"], "expected checkpoints with the optimizer's masks, got --amp"),
    (["--use-bmuf"], "expected the updates of one optimizer, got --use-bmuf"),
    (["--arch", "lstm_lm"], "expected weights of type .* got a model with none"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: " ".join(v)[:40])
def test_bad_input_is_refused_at_start(data, tmp_path, options, message):
    early = ("--save-interval-updates", "1")
    with pytest.raises(ValueError, match=message):
        run_train(data, tmp_path, *PRUNED, *early, *options)
    assert not list(tmp_path.glob("*.pt"))


def test_resuming_with_another_inner_optimizer_is_refused(data, pruned, tmp_path):
    restore = ("--restore-file", str(pruned[0] / "checkpoint_last.pt"), "--max-update", "20")
    other = ("--prune-inner", "sgd")
    with pytest.raises(
        ValueError, match="--prune-inner: expected adam as in the checkpoint, got s"
    ):
        run_train(data, tmp_path, *PRUNED, *other, *restore)
    state = run_train(data, tmp_path, *PRUNED, *other, *restore, "--reset-optimizer")
    assert state["last_optimizer_state"]["rnnprune"]["inner"] == "sgd"


def test_masks_that_come_too_late_are_told(data, tmp_path, caplog):
    run_train(data, tmp_path, *PRUNED, "--prune-end", "30")
    assert "masks are final after 30 updates, but the training ends after 10" in caplog.text


def test_resuming_under_another_block_shape_is_refused(data, pruned, tmp_path):
    restore = ("--restore-file", str(pruned[0] / "checkpoint_last.pt"), "--max-update", "20")
    with pytest.raises(ValueError, match=r"block shape \(1, 1\) for input .* got \(2, 2\)"):
        run_train(data, tmp_path, *PRUNED, "--prune-block-shape", "2,2", *restore)


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


def test_two_processes_end_with_the_same_masks_and_weights(data, tmp_path):
    root = str(Path(__file__).parent.parent)
    distributed = [
        *("--ddp-backend", "legacy_ddp", "--distributed-backend", "gloo"),
        *("--distributed-world-size", "2", "--distributed-no-spawn"),
        *("--distributed-init-method", f"file://{tmp_path / 'rendezvous'}"),
    ]
    processes = []
    for rank in range(2):
        folder = tmp_path / f"rank{rank}"
        folder.mkdir()
        # Masks come of the gradients as well, which the processes share.
        options = (*PRUNED, "--prune-fisher-power", "0.25")
        arguments = train_arguments(data, folder, *options, *distributed)
        command = [sys.executable, "-c", RANK, root, *arguments, "--distributed-rank", str(rank)]
        processes.append(
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        )
    outputs = [p.communicate(timeout=120)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0], outputs[0][-2000:] + outputs[1][-2000:]
    first, second = (load(tmp_path / f"rank{rank}" / "checkpoint_last.pt") for rank in range(2))
    assert first["optimizer_history"][-1]["num_updates"] == 10
    assert_same(first["model"], second["model"])
    assert_same(masks(first), masks(second))
    weights = torch.cat([weight.flatten() for weight in prunable(first).values()])
    assert sparsity(weights) == pytest.approx(0.8, abs=0.01)
