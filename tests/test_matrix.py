import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_rnnprune.sparse import BlockSparseMatrix
from tolerances import assert_close

# Two gates of 3 x 4; in blocks of 2 x 2, the second panel of each gate has one row of padding.
WEIGHT = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 2.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 3.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [4.0, 0.0, 0.0, 5.0],
    ]
)


def pack(**changes):
    """WEIGHT in 2 x 2 blocks, with some of its fields replaced."""
    matrix = BlockSparseMatrix.from_dense(WEIGHT, (2, 2), gates=2)
    return dataclasses.replace(matrix, **changes)


def sparse_weight(rows, columns, density=0.3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return weight * (torch.rand(rows, columns, generator=generator) < density)


def test_layout_by_hand():
    matrix = pack()
    assert matrix.pointers.tolist() == [0, 1, 2, 2, 4]
    assert matrix.columns.tolist() == [0, 1, 0, 1]
    assert matrix.values.tolist() == [
        [[1.0, 0.0], [0.0, 2.0]],
        [[0.0, 3.0], [0.0, 0.0]],
        [[4.0, 0.0], [0.0, 0.0]],
        [[0.0, 5.0], [0.0, 0.0]],
    ]
    assert matrix.scales is None
    assert (matrix.pointers.dtype, matrix.columns.dtype) == (torch.int32, torch.uint16)


def test_a_panel_never_straddles_two_gates():
    assert pack().grid == (4, 2)
    assert BlockSparseMatrix.from_dense(WEIGHT, (2, 2), gates=1).grid == (3, 2)


def test_properties():
    matrix = pack()
    assert matrix.shape == (6, 4)
    assert matrix.block_shape == (2, 2)
    assert matrix.gates == 2
    assert matrix.dtype == torch.float32
    assert matrix.density == 5 / 24
    assert matrix.stored_density == 16 / 24
    assert matrix.nbytes == 16 * 4 + 4 * 2 + 5 * 4
    assert repr(matrix) == (
        "BlockSparseMatrix(6 x 4, gates=2, blocks=2 x 2, float32, density=0.208, stored=0.667)"
    )


def test_bytes_of_int8_include_the_scales():
    matrix = BlockSparseMatrix.from_dense(WEIGHT, (2, 2), torch.int8, gates=2)
    assert matrix.nbytes == 16 * 1 + 4 * 2 + 5 * 4 + 8 * 4


@settings(deadline=None)
@given(
    gates=st.integers(1, 3),
    rows=st.integers(1, 9),
    columns=st.integers(1, 9),
    block=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
    seed=st.integers(0, 9),
)
def test_floats_come_back_bit_for_bit(gates, rows, columns, block, density, dtype, seed):
    weight = sparse_weight(gates * rows, columns, density, seed).to(dtype)
    block_shape = (min(block[0], rows), min(block[1], columns))
    matrix = BlockSparseMatrix.from_dense(weight, block_shape, dtype, gates)
    dense = matrix.to_dense()
    # Adding 0.0 makes 0.0 of the -0.0 that masking leaves.
    assert torch.equal(dense.view(torch.int32), (weight.float() + 0.0).view(torch.int32))
    assert dense.is_contiguous()
    assert matrix.density == int(weight.count_nonzero()) / weight.numel()
    assert matrix.density <= matrix.stored_density


@pytest.mark.parametrize("weight_dtype", [torch.float16, torch.bfloat16])
def test_float32_holds_narrower_weights_exactly(weight_dtype):
    weight = sparse_weight(12, 7).to(weight_dtype)
    assert torch.equal(BlockSparseMatrix.from_dense(weight, (4, 2)).to_dense(), weight.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.int8])
def test_unpacked_values_are_as_near_as_their_dtype_allows(dtype):
    weight = sparse_weight(48, 33)
    matrix = BlockSparseMatrix.from_dense(weight, (16, 1), dtype, gates=3)
    assert matrix.dtype == dtype
    assert_close(matrix.to_dense(), weight.double(), dtype)


def test_int8_by_hand():
    weight = torch.tensor([[127.0, -127.0, 63.4], [0.0, 0.0, 0.0], [0.0, -1e-40, 0.0]])
    matrix = BlockSparseMatrix.from_dense(weight, (3, 1), torch.int8)
    assert matrix.values[:, :, 0].tolist() == [[127, 0, 0], [-127, 0, 0], [63, 0, 0]]
    assert matrix.scales[0, 0] == 1.0
    assert matrix.to_dense()[0].tolist() == [127.0, -127.0, 63.0]
    assert not matrix.to_dense()[1:].any()


def test_negative_zero_is_a_zero():
    weight = torch.tensor([[-0.0, -0.0, 1.0, -0.0]])
    matrix = BlockSparseMatrix.from_dense(weight, (1, 2))
    assert matrix.columns.tolist() == [1]
    assert not matrix.to_dense().signbit().any()


def test_a_weight_that_vanishes_in_a_narrow_dtype_is_not_stored():
    weight = torch.tensor([[-1e-9, 1.0]])
    matrix = BlockSparseMatrix.from_dense(weight, (1, 1), torch.float16)
    assert matrix.columns.tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_all_pruned(dtype):
    matrix = BlockSparseMatrix.from_dense(torch.zeros(6, 5), (2, 2), dtype, gates=3)
    assert matrix.values.shape == (0, 2, 2)
    assert (matrix.density, matrix.stored_density) == (0.0, 0.0)
    assert torch.equal(matrix.to_dense(), torch.zeros(6, 5))


def test_strided_weight_that_asks_for_gradients():
    weight = sparse_weight(10, 12).t()[::2].requires_grad_()
    dense = BlockSparseMatrix.from_dense(weight, (4, 3)).to_dense()
    assert torch.equal(dense, weight.detach() + 0.0)
    assert not dense.requires_grad


def test_weight_is_not_shared():
    weight = torch.ones(4, 4)
    matrix = BlockSparseMatrix.from_dense(weight, (1, 4))
    weight.zero_()
    assert torch.equal(matrix.to_dense(), torch.ones(4, 4))


@pytest.mark.parametrize(("columns", "dtype"), [(65536, torch.uint16), (65537, torch.uint32)])
def test_column_indices_are_as_narrow_as_possible(columns, dtype):
    weight = torch.zeros(2, columns)
    weight[1, -1] = 7.0
    matrix = BlockSparseMatrix.from_dense(weight, (1, 1))
    assert matrix.columns.dtype == dtype
    assert matrix.columns.tolist() == [columns - 1]
    assert torch.equal(matrix.to_dense(), weight)


def test_to_the_same_device_is_an_equal_matrix():
    matrix = BlockSparseMatrix.from_dense(WEIGHT, (2, 2), torch.int8, gates=2).to("cpu")
    assert matrix.device.type == "cpu"
    assert matrix.scales.shape == (4, 2)


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
        ({"scales": torch.ones(4, 2)}, "scales with int8 values, and only then"),
        ({"columns": torch.zeros(4, dtype=torch.uint16, device="meta")}, "columns on cpu"),
        ({"values": torch.zeros(4, 2, 2, dtype=torch.int8)}, "scales with int8 values"),
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
