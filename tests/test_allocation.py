"""How a target is shared out among matrices."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_rnnprune.pruning import CubicSchedule, OneShotSchedule, Prunable, Pruner
from fairseq_rnnprune.pruning.allocation import lamp_scores


def pruner_of(*weights, sparsity=0.5, block_shape=(1, 1), **options):
    tagged = [(Prunable(f"w{i}", "recurrent"), w) for i, w in enumerate(weights)]
    schedule = OneShotSchedule(0, sparsity)
    return Pruner(tagged, {"recurrent": schedule}, {"recurrent": block_shape}, **options)


def kept(weights):
    return [int(w.count_nonzero()) for w in weights]


def test_lamp_scores_follow_the_definition():
    # Squares 1, 4, 9 of what is left; the pruned one is below all and counts in no sum.
    scores = torch.tensor([[3.0, -1.0, 1.0, 2.0]])
    expected = [1.0, -1.0, 1 / (1 + 4 + 9), 4 / (4 + 9)]
    assert lamp_scores(scores, torch.ones(1, 4, dtype=torch.int64)).tolist() == [
        pytest.approx(expected)
    ]
    # What is left counts with all elements of its blocks, a block itself by the element.
    sizes = torch.tensor([[4, 4, 4, 2]])
    expected = [1.0, -1.0, 1 / (4 + 8 + 36), 4 / (8 + 36)]
    assert lamp_scores(scores, sizes).tolist() == [pytest.approx(expected)]


def test_lamp_keeps_the_order_of_scores_in_ragged_blocks():
    # 4 x 4 and, at the edge, 4 x 2: the smaller ones are no cheaper by the element.
    scores, sizes = torch.tensor([[1.0, 1.3, 1.1, 1.3]]), torch.tensor([[16, 8, 16, 8]])
    assert lamp_scores(scores, sizes).argsort(stable=True).tolist() == [[0, 2, 1, 3]]


def test_lamp_shares_fairly_between_blocks_of_other_shapes():
    torch.manual_seed(0)
    weights = [torch.randn(64, 64), torch.randn(64, 64)]
    shapes = {"recurrent": (4, 4), "input": (1, 1)}
    schedule = OneShotSchedule(0, 0.9)
    tagged = [(Prunable(type, type), w) for type, w in zip(shapes, weights, strict=True)]
    schedules = dict.fromkeys(shapes, schedule)
    Pruner(tagged, schedules, shapes, score="l2", allocation="lamp").step()
    assert all(0.85 < 1 - n / 4096 < 0.95 for n in kept(weights))


def test_lamp_scores_of_zeros_and_of_equals_are_numbers():
    sizes = torch.ones(1, 3, dtype=torch.int64)
    assert lamp_scores(torch.zeros(1, 3), sizes).tolist() == [[0.0, 0.0, 0.0]]
    assert sorted(lamp_scores(torch.ones(1, 3), sizes)[0].tolist()) == [
        pytest.approx(1 / 3),
        pytest.approx(1 / 2),
        pytest.approx(1.0),
    ]


def test_global_empties_a_matrix_of_small_weights_and_lamp_does_not():
    torch.manual_seed(0)

    def weights():
        return [torch.rand(10, 10) + 0.1, (torch.rand(10, 10) + 0.1) / 100]

    uniform, together, lamp = weights(), weights(), weights()
    pruner_of(*uniform).step()
    pruner_of(*together, allocation="global").step()
    pruner_of(*lamp, allocation="lamp").step()
    assert kept(uniform) == [50, 50]
    assert kept(together) == [100, 0]
    assert sum(kept(lamp)) == 100 and min(kept(lamp)) > 40


def test_lamp_keeps_more_of_the_smaller_matrix():
    torch.manual_seed(0)
    weights = [torch.randn(100, 100), torch.randn(10, 100)]
    pruner_of(*weights, sparsity=0.9, allocation="lamp").step()
    large, small = kept(weights)
    assert large + small == 1100 and small / 1000 > 3 * large / 10_000


@given(
    seed=st.integers(0, 1000),
    sparsity=st.floats(0, 0.99),
    block=st.sampled_from([(1, 1), (2, 3), (4, 4)]),
    allocation=st.sampled_from(["global", "lamp"]),
)
def test_the_target_is_met_together_within_a_block_and_order_within_a_matrix_is_kept(
    seed, sparsity, block, allocation
):
    torch.manual_seed(seed)
    weights = [torch.randn(7, 9), torch.randn(4, 5) * 3]
    before = [w.clone() for w in weights]
    pruner = pruner_of(
        *weights, sparsity=sparsity, block_shape=block, score="l2", allocation=allocation
    )
    pruner.step()
    pruned = 63 + 20 - sum(kept(weights))
    assert sparsity * 83 - block[0] * block[1] < pruned <= sparsity * 83 + 1e-6
    if block == (1, 1):
        for old, new in zip(before, weights, strict=True):
            gone, left = old[new == 0].abs(), old[new != 0].abs()
            assert not len(gone) or not len(left) or gone.max() <= left.min()


def test_types_share_the_target_and_have_their_own_thresholds():
    small, large = torch.arange(1.0, 11.0).view(1, 10), torch.arange(101.0, 111.0).view(1, 10)
    schedule = OneShotSchedule(0, 0.6)
    pruner = Pruner(
        [(Prunable("a", "recurrent"), small), (Prunable("b", "input"), large)],
        {"recurrent": schedule, "input": schedule},
        {"recurrent": (1, 1), "input": (1, 1)},
        allocation="global",
    )
    pruner.step()
    assert pruner.sparsity() == 0.6 and pruner.sparsity("recurrent") == 1.0
    assert pruner.thresholds == {"recurrent": 10.0, "input": 102.0}


def test_masks_only_shrink_while_shares_move():
    torch.manual_seed(0)
    weights = [torch.randn(20, 20), torch.randn(20, 20)]
    schedule = CubicSchedule(0, 40, 4, final=0.9)
    tagged = [(Prunable(f"w{i}", "recurrent"), w) for i, w in enumerate(weights)]
    pruner = Pruner(tagged, {"recurrent": schedule}, {"recurrent": (1, 1)}, allocation="lamp")
    masks = [w.block_mask for w in pruner.weights]
    for n in range(40):
        weights[n % 2].mul_(1.3)
        pruner.step()
        for w, mask in zip(pruner.weights, masks, strict=True):
            assert not (w.block_mask & ~mask).any()
        masks = [w.block_mask for w in pruner.weights]
    assert pruner.sparsity() == pytest.approx(0.9)


def test_bad_allocations_are_refused():
    weight = torch.randn(6, 2)
    with pytest.raises(ValueError, match="an allocation among .*'lamp'.*, got 'erk'"):
        pruner_of(weight, allocation="erk")
    with pytest.raises(ValueError, match="one target sparsity for all weights with lamp alloc"):
        Pruner(
            [(Prunable("a", "recurrent"), weight), (Prunable("b", "input"), weight.clone())],
            {"recurrent": OneShotSchedule(0, 0.5), "input": OneShotSchedule(0, 0.4)},
            {"recurrent": (1, 1), "input": (1, 1)},
            allocation="lamp",
        )
