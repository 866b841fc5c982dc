"""Every backend against float64 and against the definition."""

import copy
import subprocess
import sys

import pytest
import torch
from sparse_samples import sparse_weight
from tolerances import TOLERANCES, assert_close

from fairseq_rnnprune.sparse import BlockSparseMatrix, matmul, reference

BACKENDS = ["torch_csr", "reference"]


def activations(batch, columns):
    return torch.randn(batch, columns, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("backend", BACKENDS)
def test_by_hand(backend):
    W = BlockSparseMatrix.from_dense(torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0]]), (1, 1))
    x, bias = torch.tensor([[1.0, 10.0, 100.0], [2.0, 0.0, 0.5]]), torch.tensor([0.5, -0.5])
    assert matmul(W, x, bias, backend).tolist() == [[201.5, -0.5], [3.5, -0.5]]
    assert matmul(W, x[:1], bias, backend).tolist() == [[201.5, -0.5]]
    assert matmul(W, x, backend=backend).tolist() == [[201.0, 0.0], [3.0, 0.0]]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize(
    ("rows", "columns", "block_shape", "gates"),
    [(1, 1, (1, 1), 1), (51, 37, (16, 1), 3), (51, 37, (4, 4), 3), (33, 65, (8, 8), 1)],
)
def test_against_float64(backend, dtype, batch, rows, columns, block_shape, gates):
    weight, x = sparse_weight(rows, columns), activations(batch, columns)
    weight[0, 0] = 1.0
    bias = torch.linspace(-1, 1, rows)
    W = BlockSparseMatrix.from_dense(weight, block_shape, dtype, gates)
    y = matmul(W, x, bias, backend)
    assert_close(y, torch.nn.functional.linear(x.double(), weight.double(), bias.double()), dtype)
    # The packed numbers themselves are multiplied in full precision, whatever their dtype.
    assert_close(y, reference.matmul(W, x.double(), bias), torch.float32)
    assert (y.dtype, y.shape) == (torch.float32, (batch, rows))
    assert y.is_contiguous()


def test_the_reference_unpacks_once(monkeypatch):
    W, x = BlockSparseMatrix.from_dense(torch.ones(4, 6), (2, 2)), torch.ones(1, 6)
    unpacked, to_dense = [], BlockSparseMatrix.to_dense
    monkeypatch.setattr(
        BlockSparseMatrix, "to_dense", lambda self: unpacked.append(self) or to_dense(self)
    )
    for _ in range(3):
        assert matmul(W, x, backend="reference").tolist() == [[6.0] * 4]
    assert len(unpacked) == 1
    W.values.mul_(2)
    assert matmul(W, x, backend="reference").tolist() == [[12.0] * 4]


def test_reference_in_float64_is_float64():
    weight, x = sparse_weight(6, 5), activations(3, 5).double()
    y = reference.matmul(BlockSparseMatrix.from_dense(weight, (2, 2)), x)
    torch.testing.assert_close(y, x @ weight.double().t(), rtol=1e-15, atol=1e-15)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_all_zero_and_all_dense(backend, batch, density):
    weight, x = sparse_weight(9, 6, density), activations(batch, 6)
    W = BlockSparseMatrix.from_dense(weight, (2, 4), gates=3)
    exact = torch.nn.functional.linear(x.double(), weight.double(), torch.ones(9).double())
    assert_close(matmul(W, x, torch.ones(9), backend), exact)


@pytest.mark.parametrize("backend", BACKENDS)
def test_empty_batch(backend):
    W = BlockSparseMatrix.from_dense(torch.ones(3, 2), (1, 1))
    assert matmul(W, torch.empty(0, 2), torch.ones(3), backend).shape == (0, 3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("batch", [1, 4])
def test_strided_activations_and_bias_amid_nan(backend, batch):
    weight = sparse_weight(9, 6)
    W = BlockSparseMatrix.from_dense(weight, (1, 1))
    poisoned = torch.full((6, 3 * batch), float("nan"))
    x = poisoned.t()[::3]
    x.copy_(activations(batch, 6))
    bias = torch.full((9, 2), float("nan"))[:, 0]
    bias.copy_(torch.arange(9.0))
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    assert_close(matmul(W, x, bias, backend), exact)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_activations_are_computed_in_float32(backend, dtype):
    weight, x = sparse_weight(9, 6), activations(2, 6).to(dtype)
    W = BlockSparseMatrix.from_dense(weight, (1, 1))
    bias = torch.arange(9).to(dtype)
    exact = torch.nn.functional.linear(x.double(), weight.double(), bias.double())
    assert_close(matmul(W, x, bias, backend), exact)


@pytest.mark.parametrize("batch", [1, 2])
def test_csr_does_not_touch_pruned_columns(batch):
    W = BlockSparseMatrix.from_dense(torch.tensor([[1.0, 0.0], [3.0, 0.0]]), (1, 1))
    x = torch.tensor([[2.0, float("nan")]]).expand(batch, 2)
    assert matmul(W, x, backend="torch_csr").tolist() == [[2.0, 6.0]] * batch


def test_csr_copy_is_made_once_and_lives_with_its_matrix():
    weight = sparse_weight(8, 8)
    first, second = (BlockSparseMatrix.from_dense(weight, (4, 4), torch.int8) for _ in range(2))
    matmul(first, torch.ones(1, 8), backend="torch_csr")
    _, csr = first.cache["torch_csr"]
    matmul(first, torch.ones(3, 8), backend="torch_csr")
    assert first.cache["torch_csr"][1] is csr
    assert not second.cache
    assert csr.crow_indices().dtype == csr.col_indices().dtype == torch.int32
    # Fill-in is left behind.
    assert csr.values().numel() == first.values.count_nonzero()
    assert csr.values().dtype == torch.float32


def test_a_copy_begins_without_a_cache():
    W = BlockSparseMatrix.from_dense(sparse_weight(8, 8), (4, 4), torch.int8, gates=2)
    y = matmul(W, torch.ones(1, 8))
    twin = copy.deepcopy(W)
    assert not twin.cache
    assert torch.equal(matmul(twin, torch.ones(1, 8)), y)


def test_csr_hides_its_own_warning_and_no_other():
    program = (
        "import warnings, torch\n"
        "from fairseq_rnnprune.sparse import BlockSparseMatrix, matmul\n"
        "filters = list(warnings.filters)\n"
        "W = BlockSparseMatrix.from_dense(torch.eye(4), (2, 2))\n"
        "matmul(W, torch.ones(1, 4), backend='torch_csr')\n"
        "matmul(W, torch.ones(2, 4), backend='torch_csr')\n"
        "assert warnings.filters == filters\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
