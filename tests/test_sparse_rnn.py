"""SparseRNN against torch.nn.RNN in float64, and recurrent diagonals stored apart."""

import copy

import pytest
import torch
from sparse_samples import sparse_weight
from tolerances import TOLERANCES, assert_close
from torch import nn

from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    SparseGRU,
    SparseRNN,
    choose_block_shape,
    cpu,
    keeps_diagonal,
    rnn_sequence,
)
from fairseq_rnnprune.sparse.blocks import diagonals

INPUT, H, T, B = 7, 19, 5, 3


def pruned_rnn(**options):
    torch.manual_seed(0)
    rnn = nn.RNN(INPUT, H, **options).eval()
    with torch.no_grad():
        for name, parameter in rnn.named_parameters():
            if "weight" in name:
                parameter *= torch.rand_like(parameter) < 0.4
    return rnn


@pytest.mark.parametrize("nonlinearity", ["tanh", "relu"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_same_as_torch(nonlinearity, bidirectional, layers):
    rnn = pruned_rnn(nonlinearity=nonlinearity, bidirectional=bidirectional, num_layers=layers)
    x, h_0 = torch.randn(T, B, INPUT), torch.randn(layers * (1 + bidirectional), B, H)
    with torch.no_grad():
        exact = copy.deepcopy(rnn).double()(x.double(), h_0.double())
    for backend in (None, "torch_csr", "reference"):
        sparse = SparseRNN.from_dense(rnn, (4, 4), backend=backend)
        for actual, expected in zip(sparse(x, h_0), exact, strict=True):
            assert_close(actual, expected)


@pytest.mark.parametrize("dtype", list(TOLERANCES))
def test_clipped_relu(dtype):
    rnn = pruned_rnn(nonlinearity="relu")
    x = 3 * torch.randn(T, B, INPUT)
    sparse = SparseRNN.from_dense(rnn, (4, 4), dtype, ceiling=0.5)
    out, h_n = sparse(x)
    h, states = torch.zeros(B, H).double(), []
    wide = copy.deepcopy(rnn).double()
    with torch.no_grad():
        for step in x.double():
            sums = nn.functional.linear(step, wide.weight_ih_l0, wide.bias_ih_l0)
            sums += nn.functional.linear(h, wide.weight_hh_l0, wide.bias_hh_l0)
            h = sums.clamp(0, 0.5)
            states.append(h)
    assert_close(out, torch.stack(states), dtype)
    assert torch.equal(h_n[0], out[-1]) and out.max() == 0.5


def test_bad_input():
    with pytest.raises(TypeError, match="SparseRNN.from_dense: expected a torch.nn.RNN, got GRU"):
        SparseRNN.from_dense(nn.GRU(2, 2))
    W = BlockSparseMatrix.from_dense(torch.ones(4, 4), (2, 2))
    x, h = torch.zeros(1, 1, 4), torch.zeros(1, 4)
    with pytest.raises(ValueError, match='"relu" or "tanh" .*, got \'elu\''):
        rnn_sequence(W, x, h, nonlinearity="elu")
    with pytest.raises(ValueError, match="a ceiling above 0, got .* 0"):
        rnn_sequence(W, x, h, ceiling=0)
    gated = BlockSparseMatrix.from_dense(torch.ones(4, 4), (2, 2), gates=2)
    with pytest.raises(ValueError, match="packed with gates=1 .*with gates=2"):
        rnn_sequence(gated, x, h)
    with pytest.raises(ValueError, match=r"SparseRNN: expected input \[T, B, 7\]"):
        SparseRNN.from_dense(pruned_rnn(), (4, 4))(torch.zeros(2, 2, 3))


@pytest.mark.parametrize("gates", [1, 3])
def test_a_diagonal_apart_is_the_same_matrix(gates):
    weight = sparse_weight(gates * 18, 18, density=0.1)
    diagonals(weight, gates).fill_(2.0)
    W = BlockSparseMatrix.from_dense(weight, (16, 1), gates=gates, diagonal=True)
    whole = BlockSparseMatrix.from_dense(weight, (16, 1), gates=gates)
    assert torch.equal(W.to_dense(), weight) and torch.equal(whole.to_dense(), weight)
    assert W.density == whole.density
    assert W.values.numel() < whole.values.numel()
    assert "diagonal apart" in repr(W)
    copied = copy.deepcopy(W).to("cpu")
    assert torch.equal(copied.to_dense(), weight)


def test_diagonals_are_stored_apart_where_that_is_smaller():
    H = 32
    blocks = torch.rand(3 * H // 16, H).lt(0.1).repeat_interleave(16, 0).float()
    assert not keeps_diagonal(blocks, (16, 1), 3)
    kept = blocks.clone()
    diagonals(kept, 3).fill_(1.0)
    assert keeps_diagonal(kept, (16, 1), 3)
    assert not keeps_diagonal(kept, (1, 1), 3)
    # Blocks of the mask are found although the diagonal alone would need as many again.
    assert choose_block_shape(kept, 3) == (16, 1) or cpu.unavailable_reasons()
    assert not keeps_diagonal(kept[:, :8], (16, 1), 3)
    gru = nn.GRU(3, H)
    with torch.no_grad():
        gru.weight_hh_l0.copy_(kept)
    W = SparseGRU.from_dense(gru).layers[0][0].recurrent.W
    assert W.diagonal is not None and torch.equal(W.to_dense(), kept)


def test_a_diagonal_needs_square_gates_and_numbers():
    with pytest.raises(ValueError, match=r"expected square gates .*got 1 in \[6, 4\]"):
        BlockSparseMatrix.from_dense(torch.ones(6, 4), (2, 2), diagonal=True)
    W = BlockSparseMatrix.from_dense(torch.ones(4, 4), (2, 2), diagonal=True)
    W.diagonal[1] = float("nan")
    with pytest.raises(ValueError, match="expected a finite diagonal"):
        W.validate()
