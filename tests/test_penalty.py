"""L1 and group lasso: proximal steps by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pruner_samples import pruner_of, ramp, run

from fairseq_rnnprune.pruning import MaskedWeight, Prunable, QuantileRamp, shrink


def masked(weight, block_shape=(1, 1), gates=1, **options):
    return MaskedWeight(Prunable("w", "recurrent", gates), weight, block_shape, **options)


@pytest.mark.parametrize("penalty", ["l1", "group-lasso"])
def test_single_weights_are_softly_thresholded(penalty):
    weight = torch.tensor([[3.0, -2.0, 0.5, -0.25, 0.0]])
    shrink(masked(weight), penalty, 0.5)
    assert weight.tolist() == [[2.5, -1.5, 0.0, 0.0, 0.0]]


def test_a_block_shrinks_as_one():
    # Root mean squares 5 (of 3, 4, 5, sqrt 50) and 1, in the second gate's blocks 0.
    weight = torch.tensor([[3.0, 4.0, 1.0, 1.0], [5.0, 50**0.5, -1.0, 1.0], [0.0] * 4, [0.0] * 4])
    before = weight.clone()
    shrink(masked(weight, (2, 2), gates=2), "group-lasso", 2.0)
    assert torch.allclose(weight[:2, :2], before[:2, :2] * 0.6)
    assert weight[:2, 2:].abs().max() == 0 and weight[2:].abs().max() == 0


def test_l1_shrinks_single_weights_whatever_the_blocks():
    weight = torch.tensor([[3.0, -2.0], [0.5, -0.25]])
    shrink(masked(weight, (2, 2)), "l1", 0.5)
    assert weight.tolist() == [[2.5, -1.5], [0.0, 0.0]]


def test_a_ragged_block_shrinks_by_its_own_size():
    weight = torch.tensor([[2.0, 2.0, 2.0]])
    shrink(masked(weight, (1, 2)), "group-lasso", 0.5)
    assert weight.tolist() == [[1.5, 1.5, 1.5]]


@given(st.integers(0, 1000), st.floats(0.01, 2.0), st.sampled_from([(1, 1), (2, 3), (3, 1)]))
def test_group_lasso_is_the_proximal_operator(seed, amount, block_shape):
    """Minimises |x - w|^2 / 2 + amount * sum over blocks of sqrt(N_b) |x_b|."""
    torch.manual_seed(seed)
    before = torch.randn(6, 7)
    weight = before.clone()
    shrink(masked(weight, block_shape, gates=2), "group-lasso", amount)

    def objective(x):
        norms = 0.0
        for gate in x.split(3):
            for rows in gate.split(block_shape[0]):
                for block in rows.split(block_shape[1], dim=1):
                    norms += block.numel() ** 0.5 * float(block.norm())
        return float((x - before).square().sum()) / 2 + amount * norms

    least = objective(weight)
    for _ in range(20):
        assert least <= objective(weight + 0.01 * torch.randn(6, 7)) + 1e-6


def test_a_kept_diagonal_is_not_shrunk():
    weight = torch.full((4, 4), 1.0)
    shrink(masked(weight, keep_diagonal=True), "l1", 0.25)
    assert torch.equal(weight, torch.full((4, 4), 0.75) + 0.25 * torch.eye(4))


def test_a_kept_diagonal_does_not_count_in_the_size_of_its_block():
    weight = torch.full((4, 4), 1.0).fill_diagonal_(5.0)
    shrink(masked(weight, (2, 2), keep_diagonal=True), "group-lasso", 0.25)
    assert torch.equal(weight, torch.full((4, 4), 0.75).fill_diagonal_(5.0))


@pytest.mark.parametrize(
    ("schedule", "asked"),
    [(QuantileRamp(0, 5, 10, 1, final=0.9), 0.9), (ramp(slope=1.0, end=10), 0.95)],
)
def test_a_ramp_takes_of_too_many_zeros_as_many_as_it_may(schedule, asked):
    torch.manual_seed(0)
    weight = torch.randn(40, 40)
    pruner = pruner_of(weight, schedule, (4, 4))
    # A penalty has made 96 of 100 blocks zeros.
    weight.view(10, 4, 10, 4)[:, :, :10].mul_((torch.arange(100).view(10, 1, 10, 1) >= 96).float())
    run(pruner, 12)
    assert asked - 0.01 <= pruner.sparsity() <= asked


def test_an_unknown_penalty_is_refused():
    with pytest.raises(ValueError, match="expected a penalty among .*l1.*, got 'l0'"):
        shrink(masked(torch.ones(2, 2)), "l0", 0.1)
