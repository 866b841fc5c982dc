"""Weights that count by what Adam knows of their gradients."""

from dataclasses import replace

import pytest
import torch
from pruner_samples import RECURRENT, pruner_of

from fairseq_rnnprune.pruning import OneShotSchedule, Pruner
from fairseq_rnnprune.pruning.fisher import fisher_factors
from fairseq_rnnprune.pruning.masked_weight import MaskedWeight


@pytest.mark.parametrize("power", [0.25, 0.5])
def test_gradients_count_by_what_adam_knows_of_them(power):
    torch.manual_seed(0)
    layer = torch.nn.Linear(6, 8, bias=False)
    adam = torch.optim.Adam(layer.parameters(), lr=0.01)
    pruner = pruner_of(layer.weight, OneShotSchedule(4, 0.5), fisher_power=power)
    # What comes in by the first three columns is small, and so are the gradients there.
    scale = torch.tensor([0.01, 0.01, 0.01, 1.0, 1.0, 1.0])
    for _ in range(5):
        adam.zero_grad()
        layer(torch.randn(20, 6) * scale).square().mean().backward()
        adam.step()
        before = layer.weight.detach().clone()
        second_moment = adam.state[layer.weight]["exp_avg_sq"].clone()
        pruner.step(adam.state)
    score = before.abs() * second_moment**power
    dropped = layer.weight == 0
    assert int(dropped.sum()) == 24 and score[dropped].max() < score[~dropped].min()
    assert int(dropped[:, :3].sum()) >= 20


def test_gradients_count_by_element_of_a_block():
    weight, factor = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[3.0, 1.0, 2.0]])
    masked = MaskedWeight(RECURRENT, weight, (1, 2))
    expected = torch.tensor([[[((9 + 4) / 2) ** 0.5, 6.0]]])
    torch.testing.assert_close(masked.scores("l2", factor), expected)


def test_gradients_count_only_with_an_optimizer_that_keeps_their_squares():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    weight.grad = torch.randn(4, 4)
    optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    optimizer.step()
    pruner = pruner_of(weight, OneShotSchedule(100, 0.5), fisher_power=0.5)
    # At once, not at update 100.
    with pytest.raises(ValueError, match="of w for a fisher_power of 0.5, .* without; optimise"):
        pruner.step(optimizer.state)


@pytest.mark.parametrize("allocation", ["uniform", "global", "lamp"])
@pytest.mark.parametrize("has_zeros", [False, True])
def test_a_matrix_without_a_gradient_so_far_counts_by_magnitude(allocation, has_zeros):
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(40, 40)) for _ in range(2)]
    adam = torch.optim.Adam(weights, lr=0.1)
    tagged = [(replace(RECURRENT, name=name), w) for name, w in zip("ab", weights, strict=True)]
    pruner = Pruner(
        tagged,
        {"recurrent": OneShotSchedule(1, 0.5)},
        {"recurrent": (1, 1)},
        allocation=allocation,
        fisher_power=0.25,
    )
    before = weights[1].detach().abs()
    for _ in range(2):
        # The other one is frozen for a while, or a cluster of an adaptive softmax of which no batch
        # has had a word. In half precision there are gradients of zero.
        weights[0].grad = torch.randn(40, 40)
        weights[1].grad = torch.zeros(40, 40) if has_zeros else None
        adam.step()
        pruner.step(adam.state)
    kept = [int(w.count_nonzero()) for w in weights]
    assert sum(kept) == 1600 and min(kept) > 500
    is_kept = weights[1] != 0
    assert before[is_kept].min() > before[~is_kept].max()


def moments_of(weights, values, steps):
    return {
        w.weight: {"exp_avg_sq": v, "step": torch.tensor(float(step))}
        for w, v, step in zip(weights, values, steps, strict=True)
    }


def test_a_matrix_with_few_gradients_beside_others_counts_by_magnitude():
    weights = [MaskedWeight(replace(RECURRENT, name=n), torch.ones(2, 2), (1, 1)) for n in "ab"]
    # Adam's v begins at 0: of one gradient of 1 it is 0.001.
    values = torch.ones(2, 2), torch.full((2, 2), 0.001)
    factors = fisher_factors(weights, moments_of(weights, values, (5000, 1)), 0.5)
    assert torch.equal(factors["a"], factors["b"])
    # A cluster of an adaptive softmax that most batches have words of, and the start of a training.
    for steps in ((5000, 4000), (5000, 1500), (1, 1)):
        factors = fisher_factors(weights, moments_of(weights, values, steps), 0.5)
        assert factors["b"][0, 0] == pytest.approx(0.001**0.5)


def test_what_is_pruned_does_not_count_in_the_mean_of_others():
    weights = [MaskedWeight(replace(RECURRENT, name=n), torch.ones(2, 5), (1, 1)) for n in "ab"]
    weights[0].set_mask((torch.arange(10) == 0).view(1, 2, 5))
    moment = torch.zeros(2, 5)
    moment[0, 0] = 4.0
    factors = fisher_factors(weights, {weights[0].weight: {"exp_avg_sq": moment}}, 0.5)
    assert torch.equal(factors["b"], torch.full((2, 5), 2.0))


def test_moments_that_apex_keeps_in_half_precision_have_a_scale():
    weights = [MaskedWeight(replace(RECURRENT, name=n), torch.ones(2, 2), (1, 1)) for n in "ab"]
    moment = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    state = {
        weights[0].weight: {"exp_avg_sq": moment.half(), "exp_avg_sq_scale": torch.tensor(8.0)},
        weights[1].weight: {"exp_avg_sq": moment},
    }
    factors = fisher_factors(weights, state, 0.5)
    torch.testing.assert_close(factors["a"], factors["b"] * 8**0.5)


def test_a_first_update_that_was_left_out_is_no_other_optimizer():
    weight = torch.nn.Parameter(torch.randn(4, 4))
    adam = torch.optim.Adam([weight], lr=0.1)
    pruner = pruner_of(weight, OneShotSchedule(2, 0.5), fisher_power=0.25)
    # A gradient scaler begins with a scale that is too large.
    pruner.step(adam.state)
    for _ in range(2):
        weight.grad = torch.randn(4, 4)
        adam.step()
        pruner.step(adam.state)
    assert weight.count_nonzero() == 8
