"""What the native kernels refuse before they run, and arrays that change under them."""

import dataclasses

import pytest
import torch
from needs import needs_kernels

from fairseq_rnnprune.sparse import BlockSparseMatrix, cpu_library, matmul

pytestmark = needs_kernels


def test_what_it_does_not_run():
    x = torch.ones(1, 20)
    for block_shape, dtype, reason in (
        ((1, 1), torch.float32, "has kernels for blocks of 16 x 1, .* not 1 x 1"),
        ((16, 1), torch.float16, "has kernels for float32, bfloat16, int8, int16, not float16"),
    ):
        W = BlockSparseMatrix.from_dense(torch.ones(16, 20), block_shape, dtype)
        with pytest.raises(ValueError, match=reason):
            matmul(W, x, backend="cpu")
        matmul(W, x)
    W = BlockSparseMatrix.from_dense(torch.zeros(16, 2**16 + 1), (16, 1))
    with pytest.raises(ValueError, match="at most 65,536 block columns, not 65,537"):
        matmul(W, torch.ones(1, 2**16 + 1), backend="cpu")
    W = BlockSparseMatrix.from_dense(torch.zeros(16, 2**16 + 1), (16, 4), torch.int8)
    with pytest.raises(ValueError, match="at most 65,536 int8 columns, not 65,537"):
        matmul(W, torch.ones(1, 2**16 + 1), backend="cpu")


def test_damaged_arrays_do_not_reach_the_kernels():
    W = BlockSparseMatrix.from_dense(torch.ones(16, 4), (16, 1))
    W.columns.copy_(torch.tensor([0, 1, 2, 9], dtype=torch.uint16))
    with pytest.raises(ValueError, match="expected columns below 4, got 9"):
        matmul(W, torch.ones(1, 4), backend="cpu")


@pytest.mark.parametrize(
    ("array", "value"),
    [
        ("columns", 60000),
        ("pointers", 2**30),
        ("values", float("nan")),
        ("scales", float("nan")),
        ("diagonal", float("nan")),
    ],
)
@pytest.mark.parametrize("backend", ["cpu", "torch_csr"])
def test_arrays_damaged_after_the_first_call_do_not_either(array, value, backend):
    dtype = torch.int8 if array == "scales" else torch.float32
    has_diagonal = array == "diagonal"
    W = BlockSparseMatrix.from_dense(torch.ones(16, 16), (16, 1), dtype, diagonal=has_diagonal)
    matmul(W, torch.ones(1, 16), backend=backend)
    getattr(W, array)[-1] = value
    with pytest.raises(ValueError, match="the arrays are damaged, pack the weight again"):
        matmul(W, torch.ones(1, 16), backend=backend)


def test_values_that_a_kernel_would_misread_are_refused():
    W = BlockSparseMatrix.from_dense(torch.ones(16, 4), (16, 4), torch.int8)
    W.values[0, 0, 0] = -128
    with pytest.raises(ValueError, match="expected values from -127 to 127, got -128"):
        matmul(W, torch.ones(1, 4), backend="cpu")
    W = BlockSparseMatrix.from_dense(torch.ones(16, 4), (16, 4))
    with pytest.raises(ValueError, match="expected values in memory as they are"):
        dataclasses.replace(W, values=torch._neg_view(W.values))


def test_arrays_with_other_memory_are_read_there():
    W, x = BlockSparseMatrix.from_dense(torch.ones(16, 4), (16, 1)), torch.ones(1, 4)
    before = matmul(W, x, backend="cpu")
    of_a_running_call = cpu_library.prepare(W)
    W.values.data = 2 * W.values
    assert torch.equal(matmul(W, x, backend="cpu"), 2 * before)
    assert torch.equal(of_a_running_call.arrays[0], W.values / 2)
    W.values.data = torch.full_like(W.values, float("nan"))
    with pytest.raises(ValueError, match="expected .*got NaN or inf"):
        matmul(W, x, backend="cpu")
    W.values.data = torch.ones(1)
    with pytest.raises(ValueError, match="expected values of shape"):
        matmul(W, x, backend="cpu")


@pytest.mark.parametrize("layout", ["to_sparse", "to_mkldnn"])
def test_activations_of_another_layout(layout):
    W = BlockSparseMatrix.from_dense(torch.ones(16, 4), (16, 1))
    with pytest.raises(ValueError, match=r"expected x to be dense, got layout .*to_dense\(\)"):
        matmul(W, getattr(torch.ones(1, 4), layout)(), backend="cpu")


def test_activations_that_are_a_negative_view():
    W = BlockSparseMatrix.from_dense(torch.ones(16, 4), (16, 1))
    assert matmul(W, torch._neg_view(torch.ones(1, 4)), backend="cpu")[0, 0] == -4
