"""BlockSparseMatrix: its layout by hand, and what comes back from it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sparse_samples import WEIGHT, sparse_weight
from tolerances import assert_close

from fairseq_rnnprune.sparse import BlockSparseMatrix, blocks, stored_values
from fairseq_rnnprune.sparse.validation import MAX_INT16_ROW, VALUE_DTYPES


def pack():
    return BlockSparseMatrix.from_dense(WEIGHT, (2, 2), gates=2)


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


@pytest.mark.parametrize("dtype", VALUE_DTYPES)
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


def test_int16_by_hand():
    # The largest of few has all the bits.
    weight = torch.tensor([[32767.0, -3.4, 0.0], [0.0, 0.0, 0.0]])
    matrix = BlockSparseMatrix.from_dense(weight, (2, 1), torch.int16)
    assert matrix.values[:, :, 0].tolist() == [[32767, 0], [-3, 0]]
    # Of many the sum has, rounded up by a half each: so many as fit beside activations of 4095.
    wide = BlockSparseMatrix.from_dense(torch.ones(1, 1000), (1, 4), torch.int16)
    assert (wide.values == round((MAX_INT16_ROW - 500) / 1000)).all()
    assert wide.to_dense().sub(1).abs().max() < 1e-3


@pytest.mark.parametrize("columns", [1, 999, 2 * MAX_INT16_ROW])
def test_rows_of_int16_fit_whatever_they_hold(columns):
    # Halves that round up, and no more of them than a sum can have.
    weight = torch.linspace(0.5, 1.5, columns).view(1, -1)
    matrix = BlockSparseMatrix.from_dense(weight, (1, 1), torch.int16)
    assert matrix.values.int().sum() <= MAX_INT16_ROW


def test_negative_zero_is_a_zero():
    weight = torch.tensor([[-0.0, -0.0, 1.0, -0.0]])
    matrix = BlockSparseMatrix.from_dense(weight, (1, 2))
    assert matrix.columns.tolist() == [1]
    assert not matrix.to_dense().signbit().any()


def test_a_weight_that_vanishes_in_a_narrow_dtype_is_not_stored():
    weight = torch.tensor([[-1e-9, 1.0]])
    matrix = BlockSparseMatrix.from_dense(weight, (1, 1), torch.float16)
    assert matrix.columns.tolist() == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16, torch.int8])
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (16, 1)])
def test_packing_some_panels_at_a_time_changes_nothing(monkeypatch, shape, dtype):
    weight = torch.randn(3 * 37, 21) * (torch.rand(3 * 37, 21) < 0.2)
    whole = BlockSparseMatrix.from_dense(weight, shape, dtype, gates=3)
    count = stored_values(weight, shape, 3)
    monkeypatch.setattr(blocks, "PACKED_AT_ONCE", 2 * 21 * shape[0])
    parts = BlockSparseMatrix.from_dense(weight, shape, dtype, gates=3)
    for ours, theirs in zip(parts.arrays, whole.arrays, strict=True):
        assert theirs is None or torch.equal(ours, theirs)
    assert count == stored_values(weight, shape, 3) >= whole.values.numel()


def test_a_state_can_be_read_in_inference_mode():
    matrix = pack()
    with torch.inference_mode():
        again = BlockSparseMatrix.from_state(matrix.state())
        torch.testing.assert_close(again.to_dense(), WEIGHT)
        assert again.derived("key", lambda: 1) == 1
        again.values.mul_(2)
        assert again.derived("key", lambda: 2) == 2


def test_what_is_packed_in_inference_mode_counts_who_writes_to_it_there():
    with torch.inference_mode():
        matrix = pack()
        assert matrix.derived("key", lambda: 1) == 1
        matrix.pointers[-1] = 2**30
        with pytest.raises(ValueError, match="the arrays are damaged"):
            matrix.derived("key", lambda: 2)


@pytest.mark.parametrize("width", [8, 2**16 + 8])
def test_another_process_gets_the_arrays_as_they_lie_in_memory(width):
    W = BlockSparseMatrix.from_dense(torch.eye(8, width), (1, 1))
    make, (state,) = W.__reduce__()
    assert state["columns"].data_ptr() == W.columns.data_ptr()
    assert torch.equal(make(state).to_dense(), W.to_dense())
