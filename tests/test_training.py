"""What `--optimizer pruned` promises, through fairseq-train itself."""

import json
import shlex

import pytest
import torch
from fairseq_runs import (
    FP16,
    PRUNED,
    assert_same,
    load,
    masks,
    prunable,
    run_eval_lm,
    run_train,
    sparsity,
)

from fairseq_rnnprune.checkpoint import read_checkpoint


def test_ends_at_the_asked_sparsity_with_exact_zeros(pruned):
    _, state = pruned
    for name, weight in prunable(state).items():
        assert sparsity(weight) == pytest.approx(0.8, abs=1.5 / weight.numel()), name
        assert torch.equal(masks(state)[name].view_as(weight), weight != 0)
    assert "decoder.embed_tokens.weight" not in masks(state)


@pytest.mark.parametrize("more", [(), ("--ema-fp32",), (*FP16, "--ema-fp32")], ids=" ".join)
def test_averages_are_as_sparse(data, tmp_path, more):
    state = run_train(data, tmp_path, *PRUNED, "--store-ema", "--ema-decay", "0.5", *more)
    copies = [state["extra_state"][k] for k in ("ema", "ema_fp32_params") if more or k == "ema"]
    for name, mask in masks(state).items():
        for copy in copies:
            assert torch.equal(copy[name] != 0, mask.view_as(copy[name])), name
            assert not torch.equal(copy[name].float(), state["model"][name].float()), name


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
        ("--dropout", "0.4", "--prune-dropout-power", "0.5"),
        # Stopped in the second epoch.
        ("--batch-size", "16"),
    ],
    ids=["adam", "nag", "epochs", "dropout", "second epoch"],
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


def test_an_average_of_checkpoints_keeps_their_common_zeros(pruned, data, tmp_path):
    folder, last = pruned
    paths = [folder / "checkpoint_last.pt", next(folder.glob("checkpoint_*_5.pt"))]
    earlier = load(paths[1])["model"]
    # As fairseq's scripts/average_checkpoints.py has it, which the package on PyPI lacks.
    mean = {name: (tensor + earlier[name]) / 2 for name, tensor in last["model"].items()}
    paths.append(tmp_path / "average.pt")
    torch.save({**last, "model": mean}, paths[2])
    later, before, average = (read_checkpoint(path).model for path in paths)
    for name in prunable(last):
        # Masks only shrink, so that the zeros of the earlier checkpoint are the common ones.
        assert (before[name] == 0).any() and (later[name][before[name] == 0] == 0).all()
        assert torch.equal(average[name] == 0, before[name] == 0)
    perplexities = [run_eval_lm(data, path) for path in paths]
    assert len(set(perplexities)) == 3 and max(perplexities) < 30


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
