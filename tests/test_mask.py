"""Block masks on matrices small enough to check by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_rnnprune.pruning import (
    block_scores,
    block_sizes,
    expand_mask,
    mask_from_zeros,
    select_lowest,
)

# Two gates of 2 x 4.
WEIGHT = torch.tensor(
    [
        [1.0, -2.0, 0.0, 0.0],
        [3.0, 0.5, 0.0, 0.0],
        [-9.0, 1.0, 4.0, 4.0],
        [1.0, 1.0, 4.0, -8.0],
    ]
)


def test_scores_by_hand():
    assert block_scores(WEIGHT, (2, 2), gates=2).tolist() == [[[3.0, 0.0]], [[9.0, 8.0]]]
    assert block_scores(WEIGHT, (2, 2), 2, "mean").tolist() == [[[1.625, 0.0]], [[3.0, 5.0]]]
    assert block_scores(WEIGHT, (2, 2), 2, "l2")[1, 0, 1].item() == pytest.approx(28**0.5)


def test_a_block_never_straddles_two_gates():
    # 3 rows a gate and blocks of 2: the second block of a gate is ragged, not shared.
    weight = torch.zeros(6, 1)
    weight[3] = 7.0
    assert block_scores(weight, (2, 1), gates=2).flatten().tolist() == [0.0, 0.0, 7.0, 0.0]
    assert block_sizes((6, 1), (2, 1), gates=2).flatten().tolist() == [2, 1, 2, 1]


def test_ragged_edges_are_scored_by_their_real_elements():
    weight = torch.full((3, 3), 2.0)
    for score in ("max", "mean", "l2"):
        assert torch.equal(block_scores(weight, (2, 2), 1, score), torch.full((1, 2, 2), 2.0))
    assert block_sizes((3, 3), (2, 2)).tolist() == [[[4, 2], [2, 1]]]


def test_expand_by_hand():
    blocks = torch.tensor([[[True, False]], [[False, True]]])
    assert expand_mask(blocks, (4, 3), (2, 2), gates=2).tolist() == [
        [True, True, False],
        [True, True, False],
        [False, False, True],
        [False, False, True],
    ]


def test_mask_from_zeros_keeps_a_block_with_any_weight():
    assert mask_from_zeros(WEIGHT, (2, 2), gates=2).tolist() == [[[True, False]], [[True, True]]]


shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3)).flatmap(
    lambda s: st.tuples(st.just(s), st.integers(1, s[0]), st.integers(1, s[1]))
)


@given(shapes, st.integers(0, 2**31))
def test_expanding_inverts_scoring(case, seed):
    (rows, columns, gates), r, c = case
    shape = (rows * gates, columns)
    generator = torch.Generator().manual_seed(seed)
    sizes = block_sizes(shape, (r, c), gates)
    assert int(sizes.sum()) == shape[0] * columns
    mask = torch.rand(sizes.shape, generator=generator) < 0.5
    elements = expand_mask(mask, shape, (r, c), gates)
    assert int(elements.sum()) == int(sizes[mask].sum())
    assert torch.equal(mask_from_zeros(elements.float(), (r, c), gates), mask)


@given(shapes, st.integers(0, 2**31), st.floats(0, 1))
def test_select_lowest_is_exact_to_one_block(case, seed, fraction):
    (rows, columns, gates), r, c = case
    generator = torch.Generator().manual_seed(seed)
    sizes = block_sizes((rows * gates, columns), (r, c), gates)
    scores = torch.randint(0, 4, sizes.shape, generator=generator).float()  # many ties
    count = int(fraction * int(sizes.sum()))
    chosen = select_lowest(scores, sizes, count)
    assert count - r * c < int(sizes[chosen].sum()) <= count
    if chosen.any() and not chosen.all():
        assert scores[chosen].max() <= scores[~chosen].min()


def test_ties_are_resolved_by_position():
    scores, sizes = torch.zeros(1, 1, 4), torch.ones(1, 1, 4, dtype=torch.int64)
    assert select_lowest(scores, sizes, 3).flatten().tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: block_scores(WEIGHT, (3, 1), 2), "within 2 x 4, one gate of weight, got 3 x 1"),
        (lambda: block_scores(WEIGHT, (0, 1), 1), "got 0 x 1; choose a smaller block"),
        (lambda: block_sizes((4, 4), (1, 1), 3), "a matrix of 3 equal gates"),
        (lambda: block_scores(WEIGHT, score="min"), "a score among .* got 'min'"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
