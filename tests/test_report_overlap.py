"""How far two masks agree, by hand and against random masks."""

import pytest
import torch

from fairseq_rnnprune.pruning import find_prunable
from fairseq_rnnprune.report.overlap import compare_masks, keep_masks, not_comparable


def compare(a, b):
    return compare_masks(keep_masks(a, find_prunable(a)), keep_masks(b, find_prunable(b)))


def matrix(*rows):
    return {"out.weight": torch.tensor(rows, dtype=torch.float32)}


def test_overlap_by_hand():
    (overlap,) = compare(matrix([1, 1, 0, 0], [1, 0, 0, 0]), matrix([1, 0, 0, 0], [-2, 0, 0, 5]))
    assert (overlap.name, overlap.type, overlap.gate) == ("out.weight", "linear", None)
    assert (overlap.elements, overlap.kept, overlap.both) == (8, (3, 3), 2)
    assert overlap.jaccard == 2 / 4
    # Random masks with 3 of 8 share 9 / 8 on average, of 6 - 9 / 8 that either keeps.
    assert overlap.chance == pytest.approx((9 / 8) / (6 - 9 / 8))
    assert overlap.times_chance == pytest.approx(0.5 * (6 - 9 / 8) / (9 / 8))
    assert overlap.contained == 2 / 3


def test_a_mask_that_has_shrunk_is_contained_in_what_it_was():
    (overlap,) = compare(matrix([1, 1, 1, 0]), matrix([1, 0, 0, 0]))
    assert (overlap.jaccard, overlap.contained) == (1 / 3, 1.0)


def test_masks_that_keep_nothing():
    (both,) = compare(matrix([0, 0]), matrix([0, 0]))
    assert both.jaccard is both.chance is both.times_chance is both.contained is None
    (one,) = compare(matrix([0, 0]), matrix([1, 0]))
    assert (one.jaccard, one.chance, one.times_chance, one.contained) == (0.0, 0.0, None, None)


def test_dense_masks_agree_by_chance():
    (overlap,) = compare(matrix([1, 1]), matrix([2, 3]))
    assert overlap.jaccard == overlap.chance == overlap.times_chance == 1.0


def test_unrelated_masks_overlap_once_as_much_as_chance():
    a, b = (torch.rand(400, 400) for _ in range(2))
    (overlap,) = compare({"out.weight": a * (a > 0.9)}, {"out.weight": b * (b > 0.8)})
    assert overlap.times_chance == pytest.approx(1.0, abs=0.05)


def test_gates_follow_their_tensor():
    a = {"gru.weight_ih_l0": torch.ones(6, 1), "gru.weight_hh_l0": torch.ones(6, 2)}
    b = {"gru.weight_ih_l0": torch.ones(6, 3), "gru.weight_hh_l0": torch.ones(6, 2)}
    b["gru.weight_hh_l0"][2:4] = 0.0
    # The shapes of the input weights differ.
    overlaps = compare(a, b)
    masks = [keep_masks(model, find_prunable(model)) for model in (a, b | matrix([1]))]
    assert not_comparable(*masks) == ["gru.weight_ih_l0", "out.weight"]
    assert [(o.name, o.gate) for o in overlaps] == [
        ("gru.weight_hh_l0", gate) for gate in (None, "r", "z", "n")
    ]
    assert [o.jaccard for o in overlaps] == [8 / 12, 1.0, 0.0, 1.0]


def test_nothing_to_compare():
    assert compare(matrix([1, 0]), matrix([1, 0, 0])) == []
    assert compare(matrix([1, 0]), {"other.weight": torch.ones(1, 2)}) == []
