"""The pruner follows Algorithm 1 on plain tensors, with a torch optimizer where one matters."""

import logging

import pytest
import torch
from pruner_samples import RECURRENT, pruner_of, ramp, run

from fairseq_rnnprune.pruning import (
    CubicSchedule,
    OneShotSchedule,
    Prunable,
    Pruner,
    QuantileRamp,
)


def test_masks_change_after_the_update_that_the_schedule_names():
    weight = torch.tensor([[1.5, 2.0, 3.5]])
    pruner = pruner_of(weight, ramp())
    # threshold(n) = n + 1 for n >= 1, so update 1 prunes what is below 2; 2 itself stays.
    assert [pruner.step() for _ in range(2)] == [False, True]
    assert weight.tolist() == [[0.0, 2.0, 3.5]]
    assert pruner.thresholds == {"recurrent": 2.0}
    run(pruner, 1)
    assert weight.tolist() == [[0.0, 0.0, 3.5]]
    assert pruner.sparsity() == pytest.approx(2 / 3)


def test_masks_only_shrink():
    weight = torch.tensor([[1.5, 9.0]])
    pruner = pruner_of(weight, ramp())
    run(pruner, 2)
    weight[0, 0] = 50.0  # one update lifts it far above the threshold
    run(pruner, 1)
    assert weight.tolist() == [[0.0, 9.0]]


@pytest.mark.parametrize("block_shape", [(1, 1), (2, 2), (4, 1), (3, 2)])
def test_cubic_hits_its_target_within_one_block(block_shape):
    torch.manual_seed(0)
    weight = torch.randn(3 * 7, 10)
    pruner = pruner_of(weight, CubicSchedule(0, 11, 5, final=0.8), block_shape, gates=3)
    run(pruner, 11)
    pruned = int((weight == 0).sum())
    assert 0.8 * weight.numel() - block_shape[0] * block_shape[1] < pruned <= 0.8 * weight.numel()


def test_blocks_go_as_one_and_never_across_gates():
    weight = torch.ones(4, 2)
    weight[1:3] = 5.0  # rows 1 and 2 touch, but belong to different gates
    pruner = pruner_of(weight, OneShotSchedule(0, 0.5), (2, 2), gates=2, score="max")
    weight[0] = 6.0
    run(pruner, 1)
    assert weight.tolist() == [[6.0, 6.0], [5.0, 5.0], [0.0, 0.0], [0.0, 0.0]]


def test_the_cap_stops_a_runaway_ramp(caplog):
    torch.manual_seed(0)
    weight = torch.randn(50, 40)
    pruner = pruner_of(weight, ramp(slope=20.0), max_sparsity=0.9)
    with caplog.at_level(logging.WARNING):
        run(pruner, 50)
    assert int((weight == 0).sum()) == int(0.9 * weight.numel())
    assert caplog.text.count("is held at") == 1 and "max_sparsity = 0.9" in caplog.text
    assert pruner.thresholds["recurrent"] < 20.0


def test_the_cap_holds_where_weights_have_shrunk(caplog):
    weight = torch.arange(1.0, 101.0).view(10, 10)
    pruner = pruner_of(weight, ramp(slope=5.0), max_sparsity=0.6)
    run(pruner, 10)
    assert pruner.sparsity() < 0.6
    threshold = pruner.thresholds["recurrent"]
    # Nearly all lie below that threshold now.
    weight *= 0.5
    run(pruner, 10)
    assert pruner.sparsity() == 0.6
    assert pruner.thresholds["recurrent"] == threshold


def test_dead_rows_and_gates_are_reported(caplog):
    weight = torch.tensor([[0.1, 0.2], [5.0, 6.0], [0.3, 0.1], [0.2, 0.1]])
    pruner = pruner_of(weight, OneShotSchedule(0, 0.75), gates=2)
    with caplog.at_level(logging.WARNING):
        run(pruner, 1)
    assert "w: 1 of 2 gates are wholly pruned" in caplog.text
    weight = torch.tensor([[0.1, 0.2], [5.0, 6.0]])
    with caplog.at_level(logging.WARNING):
        run(pruner_of(weight, OneShotSchedule(0, 0.5)), 1)
    assert "w: 1 of 2 rows are wholly pruned" in caplog.text


@pytest.mark.parametrize("name", ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad"])
def test_momentum_and_decay_revive_nothing(name):
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(8, 8))
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    optimizer = getattr(torch.optim, name)([weight], lr=0.1, weight_decay=0.1, **options)
    pruner = pruner_of(weight, OneShotSchedule(5, 0.5))
    for _ in range(20):
        weight.grad = torch.randn(8, 8)
        optimizer.step()
        pruner.step(optimizer.state)
    dropped = weight == 0
    assert int(dropped.sum()) == 32
    for moment in optimizer.state[weight].values():
        if moment.shape == weight.shape:
            assert moment[dropped].abs().max() == 0 and moment[~dropped].abs().max() > 0


def test_gradients_of_pruned_weights_are_zeroed():
    weight = torch.nn.Parameter(torch.tensor([[0.1, 5.0]]))
    pruner = pruner_of(weight, OneShotSchedule(0, 0.5))
    pruner.step()
    weight.grad = torch.full((1, 2), 3.0)
    pruner.mask_gradients()
    assert weight.grad.tolist() == [[0.0, 3.0]]


def test_a_threshold_never_falls():
    pruner = pruner_of(torch.arange(1.0, 17.0).view(4, 4), CubicSchedule(0, 40, 1, 0.5), (2, 2))
    seen = []
    for _ in range(45):
        run(pruner, 1)
        seen.append(pruner.thresholds["recurrent"])
    assert seen == sorted(seen) and seen[-1] > 0
    assert pruner.sparsity() == 0.5


def test_each_type_has_its_own_schedule():
    weights = {t: torch.arange(1.0, 11.0).view(1, 10) for t in ("recurrent", "input")}
    pruner = Pruner(
        [(Prunable(t, t), w) for t, w in weights.items()],
        {"recurrent": OneShotSchedule(0, 0.5), "input": OneShotSchedule(0, 0.2)},
        {"recurrent": (1, 1), "input": (1, 1)},
    )
    run(pruner, 1)
    assert pruner.sparsity("recurrent") == 0.5 and pruner.sparsity("input") == pytest.approx(0.2)
    assert pruner.thresholds == {"recurrent": 5.0, "input": 2.0}


def test_all_masks_are_final_when_those_of_every_type_are():
    weights = {t: torch.arange(1.0, 11.0).view(1, 10) for t in ("recurrent", "input")}
    schedules = {"recurrent": OneShotSchedule(0, 0.5), "input": OneShotSchedule(3, 0.2)}
    pruner = Pruner(
        [(Prunable(t, t), w) for t, w in weights.items()], schedules, dict.fromkeys(weights, (1, 1))
    )
    run(pruner, schedules["recurrent"].end)
    assert pruner.is_final("recurrent")
    assert not pruner.is_final("input") and not pruner.is_final()
    run(pruner, schedules["input"].end - pruner.updates)
    assert pruner.is_final("input") and pruner.is_final()


def test_bad_input_is_refused():
    weight = torch.randn(4, 4)
    with pytest.raises(ValueError, match="at least one weight to prune, got none"):
        Pruner([], {}, {})
    with pytest.raises(ValueError, match=r"max_sparsity in \(0, 1\), got 1"):
        pruner_of(weight, ramp(), max_sparsity=1)
    with pytest.raises(ValueError, match="within 4 x 4, one gate of w, got 16 x 1"):
        pruner_of(weight, ramp(), (16, 1))
    saved = pruner_of(weight, ramp(), (2, 2)).state_dict()
    with pytest.raises(ValueError, match=r"block shape \(2, 2\) for recurrent .* got \(1, 1\)"):
        pruner_of(weight, ramp()).load_state_dict(saved)
    saved["masks"]["other"] = saved["masks"].pop("w")
    with pytest.raises(ValueError, match=r"masks of the same weights, .*\['other', 'w'\]"):
        pruner_of(weight, ramp(), (2, 2)).load_state_dict(saved)


def test_every_gate_has_its_own_target():
    torch.manual_seed(0)
    weight = torch.randn(3 * 8, 10)
    pruner = pruner_of(weight, CubicSchedule(0, 11, 5, (0.9, 0.5, 0.2)), gates=3)
    run(pruner, 11)
    by_gate = (weight == 0).view(3, -1).sum(1)
    assert by_gate.tolist() == [72, 40, 16]
    with pytest.raises(ValueError, match="expected 2 sparsities, one per gate of w, got 3"):
        pruner_of(torch.randn(4, 4), OneShotSchedule(0, (0.9, 0.5, 0.2)), gates=2)


def test_random_scores_are_drawn_beside_the_weight():
    weight = torch.ones(4, 4)
    pruner = pruner_of(weight, OneShotSchedule(0, 0.5), score="random")
    with torch.device("meta"):
        pruner.step()
    assert weight.count_nonzero() == 8


def test_random_scores_ignore_the_weights_and_stay_the_same():
    weight, other = torch.arange(1.0, 401.0).view(20, 20), torch.ones(20, 20)
    masks = []
    for w in (weight, other):
        pruner = pruner_of(w, CubicSchedule(0, 9, 2, 0.5), score="random")
        run(pruner, 9)
        masks.append(w != 0)
    assert torch.equal(*masks) and int(masks[0].sum()) == 200
    # Magnitudes would keep the lower half only.
    assert 60 < int(masks[0][:10].sum()) < 140


@pytest.mark.parametrize("block_shape", [(1, 1), (2, 2)])
def test_a_ramp_without_q_ends_at_its_sparsity_while_weights_grow(block_shape):
    torch.manual_seed(0)
    weight = torch.randn(40, 30)
    pruner = pruner_of(weight, QuantileRamp(0, 20, 60, 2, 0.9), block_shape)
    reached = []
    for _ in range(60):
        weight *= 1.05
        pruner.step()
        reached.append(pruner.sparsity())
    assert reached == sorted(reached) and 0 < reached[20] < 0.5
    assert reached[-1] == pytest.approx(0.9, abs=0.01)


def test_a_shrinking_quantile_lowers_no_threshold_and_raises_no_sparsity():
    weight = torch.arange(1.0, 101.0).view(10, 10)
    pruner = pruner_of(weight, QuantileRamp(0, 1, 20, 1, 0.5))
    run(pruner, 10)
    threshold = pruner.thresholds["recurrent"]
    weight *= 0.1
    run(pruner, 1)
    assert pruner.thresholds["recurrent"] == threshold
    # All weights lie below it now; half of them were to go.
    assert pruner.sparsity() == pytest.approx(0.5, abs=0.01)


def test_the_last_change_reaches_the_least_sparsity(caplog):
    weight = torch.arange(1.0, 101.0).view(10, 10)
    pruner = pruner_of(weight, ramp(slope=1.0, end=5), min_sparsity=0.5, max_sparsity=0.6)
    run(pruner, 4)
    assert pruner.sparsity() == pytest.approx(0.03)
    run(pruner, 1)
    # The ramp asks for 5, which prunes 4 of 100; 51 is the 50th percentile.
    assert pruner.sparsity() == 0.5 and pruner.thresholds == {"recurrent": 51.0}
    assert "is raised to 51, where their sparsity reaches min_sparsity = 0.5" in caplog.text
    with pytest.raises(ValueError, match=r"min_sparsity in \[0, max_sparsity = 0.6\], got 0.7"):
        pruner_of(weight, ramp(), min_sparsity=0.7, max_sparsity=0.6)


def test_the_row_of_padding_does_not_begin_as_pruned():
    """Where an output layer is tied to an embedding, that row is trained like any other."""
    tied = Prunable("embed", "linear", padding=1)

    def sparsity(weight, block_shape=(1, 1), prunable=tied):
        once = {"linear": OneShotSchedule(0, 0.5)}
        return Pruner([(prunable, weight)], once, {"linear": block_shape}).sparsity()

    weight = torch.ones(100, 30)
    weight[1] = 0.0
    # A number may be zero by chance.
    weight[7, 3] = 0.0
    assert sparsity(weight) == sparsity(weight, (1, 30)) == 0
    assert sparsity(weight, prunable=Prunable("plain", "linear")) == pytest.approx(31 / 3000)
    weight[50:] = 0.0
    assert sparsity(weight) == pytest.approx(1531 / 3000)


def test_a_type_needs_a_schedule_and_a_block_shape():
    with pytest.raises(ValueError, match="expected a schedule and a block shape for recurrent wei"):
        Pruner([(RECURRENT, torch.ones(2, 2))], {"input": ramp()}, {"recurrent": (1, 1)})


def test_an_optimizer_of_other_tensors_is_told(caplog):
    old, new = (torch.nn.Parameter(torch.ones(4, 4)) for _ in range(2))
    adam = torch.optim.Adam([new], lr=0.1)
    new.grad = torch.ones(4, 4)
    adam.step()
    pruner = pruner_of(old, OneShotSchedule(1, 0.5))
    run(pruner, 1)
    assert not caplog.records
    pruner.step(adam.state)
    assert "the optimizer has no state of any weight that is pruned" in caplog.text


def test_an_optimizer_is_no_state():
    weight = torch.nn.Parameter(torch.ones(4, 4))
    pruner = pruner_of(weight, OneShotSchedule(0, 0.5))
    with pytest.raises(TypeError, match="state of an optimizer, which is a mapping, got SGD; give"):
        pruner.step(torch.optim.SGD([weight], lr=0.1))
    assert pruner.updates == 0 and weight.count_nonzero() == 16


def test_weights_without_memory_are_refused():
    weight = torch.empty(4, 4, device="meta")
    with pytest.raises(ValueError, match="expected w in memory, got a Tensor on meta without"):
        pruner_of(weight, OneShotSchedule(0, 0.5))
