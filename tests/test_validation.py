"""What cannot be packed, and damage that a kernel must never meet."""

import dataclasses

import pytest
import torch
from sparse_samples import WEIGHT

from fairseq_rnnprune.sparse import BlockSparseMatrix


def pack(**changes):
    """WEIGHT in 2 x 2 blocks, with some of its fields replaced."""
    matrix = BlockSparseMatrix.from_dense(WEIGHT, (2, 2), gates=2)
    return dataclasses.replace(matrix, **changes)


@pytest.mark.parametrize(
    ("weight", "arguments", "error", "message"),
    [
        ([[1.0]], {}, TypeError, "expected weight to be a tensor, got list; convert"),
        (torch.ones(4), {}, ValueError, r"expected weight \[M, K\], got 1 dimensions"),
        (torch.ones(4, 4).double(), {}, ValueError, "got torch.float64; convert it with .float"),
        (torch.ones(4, 4).int(), {}, ValueError, "expected weight in float32, float16, bfloat16"),
        (torch.ones(4, 4), {"dtype": torch.int32}, ValueError, "expected dtype in float32"),
        (torch.tensor([[1.0, float("nan")]]), {}, ValueError, "finite weights, got NaN or inf"),
        (torch.tensor([[1.0, float("-inf")]]), {}, ValueError, "finite weights, got NaN or inf"),
        (
            torch.tensor([[1e5]]),
            {"dtype": torch.float16},
            ValueError,
            "within the range of torch.f",
        ),
        (torch.ones(1).expand(50_000, 50_000), {}, ValueError, "at most 2,147,483,647 elements"),
        (torch.ones(6, 4), {"block_shape": (0, 1)}, ValueError, r"from \(1, 1\) to \(6, 4\)"),
        (torch.ones(6, 4), {"block_shape": (7, 1)}, ValueError, r"one gate, got \(7, 1\); choose"),
        (torch.ones(6, 4), {"block_shape": (1, 5)}, ValueError, r"one gate, got \(1, 5\)"),
        (torch.ones(6, 4), {"block_shape": (1.0, 2)}, ValueError, r"one gate, got \(1.0, 2\)"),
        (torch.ones(6, 4), {"block_shape": 4}, ValueError, "one gate, got 4"),
        (torch.ones(6, 4), {"block_shape": (3, 1), "gates": 3}, ValueError, r"to \(2, 4\)"),
        (torch.ones(6, 4), {"gates": 4}, ValueError, "gates that divide the 6 rows, got 4"),
        (torch.ones(6, 4), {"gates": 0}, ValueError, "gates that divide the 6 rows, got 0"),
        (torch.ones(0, 4), {}, ValueError, r"to \(0, 4\), one gate, got \(1, 1\)"),
    ],
)
def test_what_cannot_be_packed(weight, arguments, error, message):
    with pytest.raises(error, match=message):
        BlockSparseMatrix.from_dense(weight, **{"block_shape": (1, 1), **arguments})


NARROW = BlockSparseMatrix.from_dense(WEIGHT[:, 1:], (2, 2), gates=2)
INT8 = BlockSparseMatrix.from_dense(WEIGHT, (2, 2), torch.int8, gates=2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gates": 4}, "gates that divide the 6 rows, got 4"),
        ({"pointers": torch.tensor([0, 1, 2, 2, 4])}, "pointers in int32, got torch.int64"),
        ({"pointers": torch.tensor([0, 1, 4]).int()}, r"pointers of shape \[5\], got \[3\]"),
        ({"pointers": torch.tensor([0, 2, 1, 2, 4]).int()}, "pointers that never fall"),
        ({"pointers": torch.tensor([1, 1, 2, 2, 4]).int()}, "pointers from 0 to 4, got 1 to 4"),
        ({"pointers": torch.tensor([0, 1, 2, 2, 5]).int()}, "pointers from 0 to 4, got 0 to 5"),
        ({"columns": torch.tensor([0, 1, 0, 1])}, "columns in uint16, got torch.int64"),
        (
            {"columns": torch.zeros(2, 2, dtype=torch.uint16)},
            r"columns of shape \[4\], got \[2, 2\]",
        ),
        ({"columns": torch.tensor([0, 2, 0, 1]).to(torch.uint16)}, "columns below 2, got 2"),
        ({"columns": torch.tensor([0, 1, 1, 0]).to(torch.uint16)}, "ascending columns in each"),
        ({"columns": torch.tensor([0, 1, 1, 1]).to(torch.uint16)}, "ascending columns in each"),
        ({"values": torch.zeros(4, 2, 3)}, r"values of shape \[4, 2, 2\], got \[4, 2, 3\]"),
        ({"values": torch.zeros(3, 2, 2)}, r"values of shape \[4, 2, 2\], got \[3, 2, 2\]"),
        ({"values": torch.zeros(4, 2, 2).double()}, "values in float32, .*got torch.float64"),
        ({"values": torch.zeros(2, 2, 4).permute(2, 0, 1)}, "contiguous values, got strides"),
        ({"values": torch.full((4, 2, 2), float("nan"))}, "finite values, got NaN or inf"),
        ({"values": torch.ones(4, 2, 2)}, "zeros where a block leaves the matrix"),
        ({"scales": torch.ones(4, 2)}, "scales with integers, and only then"),
        ({"columns": torch.zeros(4, dtype=torch.uint16, device="meta")}, "columns on cpu"),
        ({"values": torch.zeros(4, 2, 2, dtype=torch.int8)}, "scales with integers"),
    ],
)
def test_damaged_arrays(changes, message):
    with pytest.raises(ValueError, match=message):
        pack(**changes)


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        (torch.ones(4, 2).half(), "scales in float32, got torch.float16"),
        (torch.ones(4, 3), r"scales of shape \[4, 2\], got \[4, 3\]"),
        (torch.zeros(4, 2), "finite scales above 0, got 0.0"),
        (torch.full((4, 2), float("inf")), "finite scales above 0, got inf"),
    ],
)
def test_damaged_scales(scales, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(INT8, scales=scales)


def test_rows_of_int16_that_are_too_large():
    matrix = BlockSparseMatrix.from_dense(torch.ones(2, 32), (2, 4), torch.int16)
    values = torch.full_like(matrix.values, -32768)
    with pytest.raises(ValueError, match="rows that add up to 524,416 at most, got 1048576"):
        dataclasses.replace(matrix, values=values)


def test_damage_to_the_right_of_the_matrix():
    values = NARROW.values.clone()
    values[NARROW.columns.long() == 1, 0, 1] = 1.0
    with pytest.raises(ValueError, match="zeros where a block leaves the matrix"):
        dataclasses.replace(NARROW, values=values)


def test_validate_finds_later_damage():
    matrix = pack()
    matrix.validate()
    matrix.pointers[1] = 100
    with pytest.raises(ValueError, match="pointers that never fall, .*damaged, pack the weight"):
        matrix.validate()
