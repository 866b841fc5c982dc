"""A whole network in one native call against its layers one by one, and when it is made."""

import copy

import pytest
import torch
from needs import needs_kernels
from sparse_samples import pruned
from tolerances import assert_close
from torch import nn
from torch._subclasses import FakeTensorMode

from fairseq_rnnprune.sparse import BlockSparseMatrix, SparseGRU, SparseRNN

pytestmark = needs_kernels
INPUT, H = 9, 20


def inputs(gru, steps, batch):
    n = gru.num_layers * (1 + gru.bidirectional)
    return torch.randn(steps, batch, INPUT), torch.randn(n, batch, H)


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("steps, batch", [(1, 1), (3, 70), (150, 1), (40, 5)])
def test_same_as_torch(layers, bidirectional, steps, batch):
    gru = pruned(nn.GRU(INPUT, H, layers, bidirectional=bidirectional), 3)
    sparse = SparseGRU.from_dense(gru, (4, 4))
    x, h_0 = inputs(gru, steps, batch)
    assert sparse._network(x) is not None
    with torch.no_grad():
        exact = copy.deepcopy(gru).double()(x.double(), h_0.double())
    for actual, expected in zip(sparse(x, h_0), exact, strict=True):
        assert_close(actual, expected)


# Torch's own, of a fake tensor's address.
@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
def test_without_states_they_are_zeros_whatever_came_before():
    gru = pruned(nn.GRU(INPUT, H, 2), 3)
    sparse = SparseGRU.from_dense(gru, (4, 4))
    for batch in (1, 2, 3, 1, 1):
        x, h_0 = inputs(gru, 3, batch)
        out, h_n = sparse(x)
        for actual, expected in zip((out, h_n), sparse(x, torch.zeros_like(h_0)), strict=True):
            assert torch.equal(actual, expected)
        h_n += 1
        with FakeTensorMode(), pytest.raises(ValueError, match="in memory, got a FakeTensor"):
            sparse(torch.zeros(3, batch + 1, INPUT))


def test_a_thread_gets_zeros_of_its_own_batch():
    network = SparseGRU.from_dense(nn.GRU(INPUT, H), (4, 4))._network(torch.zeros(1, 1, INPUT))

    class Zeros:
        @property
        def shape(self):
            # What another thread does meanwhile, whose batch is smaller.
            network.zeros = torch.zeros(1, 1, H)
            return (1, 5, H)

    network.zeros = zeros = Zeros()
    assert network._zeros(torch.zeros(1, 5, INPUT), 5) is zeros


@pytest.mark.parametrize("nonlinearity", ["relu", "tanh"])
def test_rnn(nonlinearity):
    rnn = pruned(nn.RNN(INPUT, H, 2, bidirectional=True, nonlinearity=nonlinearity), 3)
    sparse = SparseRNN.from_dense(rnn, (8, 4), ceiling=0.3)
    x, h_0 = inputs(rnn, 70, 3)
    one_by_one = sparse._run(x, h_0)
    for actual, expected in zip(sparse(x, h_0), one_by_one, strict=True):
        assert_close(actual, expected.double())


def test_int8_is_as_near_as_one_by_one():
    gru = pruned(nn.GRU(INPUT, H), 3)
    sparse = SparseGRU.from_dense(gru, (16, 4), torch.int8)
    x, h_0 = inputs(gru, 100, 2)
    for actual, expected in zip(sparse(x, h_0), sparse._run(x, h_0), strict=True):
        assert_close(actual, expected.double(), torch.int8)


def test_a_network_is_made_again_for_other_matrices_and_backends():
    gru = pruned(nn.GRU(INPUT, H), 3)
    sparse = SparseGRU.from_dense(gru, (4, 4))
    x, _ = inputs(gru, 2, 1)
    network = sparse._network(x)
    assert sparse._network(x) is network
    assert copy.deepcopy(sparse)._network(x) is not network
    sparse.layers[0][0].recurrent.backend = "reference"
    assert sparse._network(x) is None
    sparse.layers[0][0].recurrent.backend = "cpu"
    assert sparse._network(x) is not network
    assert SparseGRU.from_dense(gru, (2, 2))._network(x) is None


def test_no_batch_and_no_gradient():
    gru = pruned(nn.GRU(INPUT, H, 2), 3)
    sparse = SparseGRU.from_dense(gru, (4, 4))
    out, h_n = sparse(torch.zeros(3, 0, INPUT))
    assert out.shape == (3, 0, H) and h_n.shape == (2, 0, H)
    with pytest.raises(ValueError, match="no gradient"):
        sparse(torch.zeros(3, 1, INPUT, requires_grad=True))
    with pytest.raises(ValueError, match="no gradient"):
        sparse(torch.zeros(3, 1, INPUT), torch.zeros(2, 1, H, requires_grad=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_states_of_another_dtype_are_converted(dtype):
    gru = pruned(nn.GRU(INPUT, H), 3)
    sparse = SparseGRU.from_dense(gru, (4, 4))
    x, h_0 = inputs(gru, 3, 2)
    expected = sparse(x, h_0.to(dtype).float())
    for actual, wanted in zip(sparse(x, h_0.to(dtype)), expected, strict=True):
        assert_close(actual, wanted.double())
    with pytest.raises(ValueError, match="expected hx in float32.* got torch.float64"):
        sparse(x, h_0.double())
    # A network made for the CPU does not meet another device's addresses.
    with pytest.raises(ValueError, match="expected x on cpu like W, got meta"):
        sparse(x.to("meta"))
    with pytest.raises(ValueError, match="expected h on cpu like W, got meta"):
        sparse(x, torch.zeros(sparse._cells, x.shape[1], H, device="meta"))


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("recurrent", "bias", torch.zeros(1), r"bias: expected bias \[60\], got \[1\]"),
        (
            "input",
            "bias",
            torch.zeros(60).int(),
            "bias: expected bias in float32, .* got torch.int",
        ),
        ("recurrent", "W", (96, 32, 3), r"recurrent: expected W \[60, 20\] .* got \[96, 32\]"),
        ("input", "W", (60, 32, 3), r"input: expected W \[60, 9\] .* got \[60, 32\]"),
        ("recurrent", "W", (60, 20, 1), "packed with gates=3, .* with gates=1"),
    ],
)
@pytest.mark.parametrize("used", [False, True])
def test_parts_that_do_not_fit_never_reach_the_kernels(part, name, value, message, used):
    sparse = SparseGRU.from_dense(pruned(nn.GRU(INPUT, H), 3), (4, 4))
    x, h_0 = inputs(sparse, 2, 1)
    if used:
        sparse(x, h_0)
    if isinstance(value, tuple):
        value = BlockSparseMatrix.from_dense(torch.randn(value[:2]), (4, 4), gates=value[2])
    setattr(getattr(sparse.layers[0][0], part), name, value)
    with pytest.raises((ValueError, TypeError), match=message):
        sparse(x, h_0)


def test_a_bias_of_another_float_dtype_is_converted():
    gru = pruned(nn.GRU(INPUT, H), 3)
    sparse, narrow = (SparseGRU.from_dense(gru, (4, 4)) for _ in range(2))
    narrow.layers[0][0].recurrent.bias = narrow.layers[0][0].recurrent.bias.half()
    x, h_0 = inputs(gru, 3, 1)
    assert torch.allclose(narrow(x, h_0)[0], sparse(x, h_0)[0], atol=1e-3)


def test_arrays_that_were_damaged_between_two_calls_are_found():
    sparse = SparseGRU.from_dense(pruned(nn.GRU(INPUT, H), 3), (4, 4))
    x, h_0 = inputs(sparse, 2, 1)
    sparse(x, h_0)
    sparse.layers[0][0].recurrent.W.columns.fill_(60000)
    with pytest.raises(ValueError, match="expected columns below 5, got 60000"):
        sparse(x, h_0)


def test_layers_of_different_sizes():
    narrow, wide = (SparseGRU.from_dense(nn.GRU(INPUT, h), (4, 4)) for h in (H, 10 * H))
    mixed = SparseGRU([list(narrow.layers[0]), list(wide.layers[0])])
    with pytest.raises(ValueError, match=r"input: expected W \[60, 20\] .* got \[600, 9\]"):
        mixed(*inputs(mixed, 2, 1))


def test_negative_views():
    sparse = SparseGRU.from_dense(pruned(nn.GRU(INPUT, H), 3), (4, 4))
    x, h_0 = inputs(sparse, 2, 1)
    expected = sparse(-x, -h_0)
    for actual, wanted in zip(
        sparse(torch._neg_view(x), torch._neg_view(h_0)), expected, strict=True
    ):
        assert torch.equal(actual, wanted)
