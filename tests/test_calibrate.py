"""From a dense model to q: exact quantiles of block scores, and the default window."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_rnnprune.pruning import Prunable, RampSchedule, block_scores, block_sizes
from fairseq_rnnprune.pruning.calibrate import (
    ScoredWeight,
    default_freq,
    default_window,
    quantile_of,
    score_weights,
    sparsity_below,
)


def scored(weight, block_shape=(1, 1)):
    return ScoredWeight(
        Prunable("out.weight", "linear"),
        block_scores(weight, block_shape),
        block_sizes(tuple(weight.shape), block_shape),
    )


def test_quantile_by_hand():
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0], [-6.0, 7.0, -8.0, 9.0, -10.0]])
    weights = [scored(weight)]
    # Below 10 are nine of ten elements.
    assert quantile_of(weights, 0.9) == 10.0
    assert sparsity_below(weights, 10.0) == 0.9
    assert quantile_of(weights, 0.5) == 6.0
    assert quantile_of(weights, 0.05) == 1.0


def test_a_threshold_is_shared_by_all_tensors_of_a_type():
    small, large = scored(torch.full((2, 2), 0.1)), scored(torch.full((2, 2), 9.0))
    assert quantile_of([small, large], 0.5) == 9.0
    assert (sparsity_below([small], 9.0), sparsity_below([large], 9.0)) == (1.0, 0.0)
    assert sparsity_below([small, large], 9.0) == 0.5


def test_ragged_blocks_count_by_element():
    # Blocks of 2 x 2 in 3 x 3: four, two, two and one elements with scores 5, 6, 7, 8.
    weight = torch.tensor([[5.0, 1.0, 6.0], [1.0, 1.0, 1.0], [7.0, 1.0, 8.0]])
    weights = [scored(weight, (2, 2))]
    assert weights[0].scores.flatten().tolist() == [5.0, 6.0, 7.0, 8.0]
    assert sparsity_below(weights, 6.0) == pytest.approx(4 / 9)
    assert quantile_of(weights, 4 / 9) == 6.0
    # Half of nine is 4.5: the block of four goes, the next one no longer fits.
    assert quantile_of(weights, 0.5) == 6.0
    assert quantile_of(weights, 8 / 9) == 8.0


@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(0.01, 0.99),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_quantile_is_exact_to_one_block(rows, columns, sparsity, block_shape):
    block_shape = (min(block_shape[0], rows), min(block_shape[1], columns))
    weights = [scored(torch.randperm(rows * columns).view(rows, columns) + 1.0, block_shape)]
    reached = sparsity_below(weights, quantile_of(weights, sparsity))
    block = block_shape[0] * block_shape[1] / (rows * columns)
    assert sparsity - block < reached + 1e-9
    assert reached <= sparsity + 1e-9


def test_quantile_of_more_elements_than_torch_quantile_takes():
    weight = (torch.arange(4100 * 4100) % 1000).float().view(4100, 4100)
    assert quantile_of([scored(weight)], 0.9) == 900.0


def gru():
    return {n: p.detach() for n, p in torch.nn.GRU(4, 2).named_parameters(prefix="gru")}


def test_weights_are_scored_by_type_and_gate():
    model = gru() | {"out.weight": torch.ones(3, 2, dtype=torch.float16)}
    result = score_weights(model, {"recurrent": (1, 1), "input": (2, 2), "linear": (1, 1)})
    assert list(result) == ["recurrent", "input", "linear"]
    (hh,), (ih,), (out,) = result.values()
    assert (hh.prunable.name, hh.scores.shape, hh.elements) == ("gru.weight_hh_l0", (3, 2, 2), 12)
    assert (ih.prunable.name, ih.scores.shape, ih.elements) == ("gru.weight_ih_l0", (3, 1, 2), 24)
    assert ih.scores[1, 0, 0] == model["gru.weight_ih_l0"][2:4, :2].abs().max()
    assert out.pruned_below(1.5) == 6


def test_the_score_is_a_choice():
    model = {"out.weight": torch.tensor([[3.0, -1.0]])}
    for score, value in (("max", 3.0), ("mean", 2.0), ("l2", 5**0.5)):
        (weight,) = score_weights(model, {"linear": (1, 2)}, score)["linear"]
        assert weight.scores.item() == pytest.approx(value)


@pytest.mark.parametrize(
    "change, shapes, message",
    [
        ({}, {"linear": (1, 1)}, "expected weights of type linear, got a model with .*input"),
        ({"gru.weight_hh_l0": torch.full((6, 2), torch.nan)}, {}, "finite recurrent weights"),
        ({"gru.weight_hh_l0": torch.eye(6)[:, :2]}, {}, "dense model.*recurrent weights are 83.3%"),
        ({}, {"recurrent": (3, 1)}, "one gate of gru.weight_hh_l0, got 3 x 1"),
    ],
)
def test_models_that_are_refused(change, shapes, message):
    with pytest.raises(ValueError, match=message):
        score_weights(gru() | change, {"recurrent": (1, 1)} | shapes)


def test_a_few_zeros_are_no_sparsity():
    model = {"embed.weight": torch.ones(20, 3)}
    model["embed.weight"][1] = 0.0
    assert score_weights(model, {"embedding": (1, 1)})["embedding"][0].pruned_below(0.5) == 3


@pytest.mark.parametrize("sparsity", [0.0, 1.0, -0.1, float("nan")])
def test_sparsity_outside_its_range(sparsity):
    with pytest.raises(ValueError, match=r"quantile_of: expected a sparsity in \(0, 1\), got"):
        quantile_of([scored(torch.ones(2, 2))], sparsity)


@pytest.mark.parametrize(
    "updates, epochs, window",
    [
        (100_000, 20, (5000, 25_000, 50_000)),
        (800, 8, (100, 200, 400)),
        # The second epoch begins after the ramp: start halfway to it.
        (400, 1, (50, 100, 200)),
    ],
)
def test_default_window(updates, epochs, window):
    assert default_window(updates, epochs) == window


@pytest.mark.parametrize(
    "start, end, freq", [(5000, 50_000, 100), (400, 1400, 100), (400, 1399, 99), (13, 52, 3)]
)
def test_default_freq(start, end, freq):
    assert default_freq(start, end) == freq


@given(updates=st.integers(6, 3000), epochs=st.integers(1, 40))
def test_a_run_of_any_length_has_a_mask_update(updates, epochs):
    start, ramp, end = default_window(updates, epochs)
    schedule = RampSchedule.from_quantile(0.5, start, ramp, end, default_freq(start, end))
    assert any(map(schedule.is_mask_update, range(end)))


@pytest.mark.parametrize("updates, epochs", [(0, 1), (100, 0), (-5, 2)])
def test_default_window_needs_a_run(updates, epochs):
    with pytest.raises(ValueError, match="default_window: expected a run of updates >= 1"):
        default_window(updates, epochs)
