"""torch's default dtype is not that of the packed operations, which are float32 throughout."""

import pytest
import torch
from sparse_samples import sparse_weight

from fairseq_rnnprune.sparse import BlockSparseMatrix, SparseGRU, SparseRNN, dispatch


@pytest.fixture(params=[torch.float64, torch.float16])
def default_dtype(request):
    yield request.param
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("backend", dispatch.available_backends())
def test_results_are_float32_whatever_the_default(default_dtype, backend):
    W = BlockSparseMatrix.from_dense(sparse_weight(48, 16), (16, 1), gates=3)
    R = BlockSparseMatrix.from_dense(sparse_weight(16, 16), (16, 1))
    x, h, gates = torch.randn(2, 16), torch.randn(2, 16), torch.randn(5, 2, 48)

    def run():
        yield dispatch.matmul(W, x, None, backend)
        yield dispatch.gru_sequence(W, gates, h, None, backend)
        yield dispatch.rnn_sequence(R, gates[..., :16], h, None, "relu", 20.0, backend)

    expected = list(run())
    torch.set_default_dtype(default_dtype)
    for result, exact in zip(run(), expected, strict=True):
        assert result.dtype == torch.float32
        assert torch.equal(result, exact)


@pytest.mark.parametrize("packed", [SparseGRU, SparseRNN])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_networks_are_float32_whatever_the_default(default_dtype, packed, bidirectional):
    dense = {SparseGRU: torch.nn.GRU, SparseRNN: torch.nn.RNN}[packed]
    net = packed.from_dense(dense(8, 16, num_layers=2, bidirectional=bidirectional), (4, 4))
    x = torch.randn(5, 2, 8)
    expected = net(x)
    torch.set_default_dtype(default_dtype)
    for result, exact in zip(net(x), expected, strict=True):
        assert result.dtype == torch.float32
        assert torch.equal(result, exact)
