"""Packed layers within what a program may have set, and what it may do with them."""

import copy
import math
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import torch
import torch.multiprocessing
from needs import needs_kernels
from sparse_samples import sparse_weight
from torch import nn

from fairseq_rnnprune.layers import GRU, ClippedRNN
from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    SparseGRU,
    SparseLinear,
    SparseRNN,
    dispatch,
    explain,
    matmul,
)

ON_CPU = [name for name in dispatch.available_backends() if name != "triton"]


def packed_gru(**options):
    return SparseGRU.from_dense(nn.GRU(8, 16, **options), (4, 4)), torch.randn(5, 2, 8)


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_default_device_elsewhere_changes_nothing(backend):
    W = BlockSparseMatrix.from_dense(sparse_weight(48, 16), (4, 4), torch.int8, gates=3)
    R = BlockSparseMatrix.from_dense(sparse_weight(16, 16), (4, 4))
    net, x = packed_gru(bidirectional=True)
    gates, h = torch.randn(5, 2, 48), torch.randn(2, 16)

    def run():
        yield matmul(W, h, None, backend)
        yield dispatch.gru_sequence(W, gates, h, None, backend)
        yield dispatch.rnn_sequence(R, gates[..., :16], h, None, "relu", 20.0, backend)
        yield net(x)[0]
        yield net(x, None, torch.tensor([5, 3], device="cpu"))[0]

    with torch.device("meta"):
        found = list(run())
    assert all(map(torch.equal, found, run()))


@pytest.mark.parametrize(
    "backend, shape",
    [
        pytest.param("cpu", (4, 4), marks=needs_kernels),
        *[(backend, shape) for backend in ON_CPU if backend != "cpu" for shape in ((1, 1), (4, 4))],
    ],
)
def test_autocast_leaves_float32(backend, shape):
    W = BlockSparseMatrix.from_dense(sparse_weight(48, 16), shape, gates=3)
    x, gates = torch.randn(2, 16), torch.randn(3, 2, 48)

    def run():
        yield matmul(W, x, torch.ones(48), backend)
        yield dispatch.gru_sequence(W, gates, x, None, backend)

    exact = list(run())
    with torch.autocast("cpu", torch.bfloat16):
        found = list(run())
    assert all(map(torch.equal, found, exact))


def test_matrices_on_another_device_than_x_are_refused():
    net, x = packed_gru()
    for part in net.modules():
        if isinstance(part, SparseLinear):
            W = part.W
            # No GPU is needed for a matrix that is not on the CPU.
            part.W = copy.copy(W)
            for name in ("pointers", "columns", "values"):
                object.__setattr__(part.W, name, getattr(W, name).to("meta"))
            object.__setattr__(part.W, "cache", {})
    with pytest.raises(ValueError, match="expected x on meta like W, got cpu"):
        net(x)
    W = net.layers[0][0].input.W
    assert "runs on the CPU, not on meta" in explain(W, x[0])["cpu"]
    assert "runs on the CPU, not on meta" in explain(W, x[0])["torch_csr"]


@needs_kernels
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_tracing_is_refused():
    net, x = packed_gru()
    with pytest.raises(RuntimeError, match="expected to run, got traced by torch.jit"):
        torch.jit.trace(net, x)


def test_training_the_dense_layer_on_leaves_the_packed_one():
    dense = nn.GRU(8, 16)
    net, x = SparseGRU.from_dense(dense, (4, 4)), torch.randn(5, 2, 8)
    before = net(x)[0]
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.add_(1.0)
    assert torch.equal(net(x)[0], before)


def test_a_bias_that_was_replaced_is_used():
    net, x = packed_gru()
    before = net(x)[0]
    part = net.layers[0][0].input
    part.bias = part.bias + 1.0
    assert not torch.equal(net(x)[0], before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_pickled_and_copied_networks_say_the_same(dtype):
    net, x = SparseGRU.from_dense(nn.GRU(8, 16), (4, 4), dtype), torch.randn(5, 2, 8)
    for other in (pickle.loads(pickle.dumps(net)), copy.deepcopy(net)):
        assert torch.equal(other(x)[0], net(x)[0])
        W = other.layers[0][0].input.W
        assert W.columns.dtype == torch.uint16


@pytest.mark.parametrize("make", [SparseGRU, SparseRNN, GRU, ClippedRNN])
def test_lengths_of_any_integers(make):
    torch.manual_seed(0)
    if make in (SparseGRU, SparseRNN):
        net = make.from_dense({SparseGRU: nn.GRU, SparseRNN: nn.RNN}[make](8, 16), (4, 4))
    else:
        net = make(8, 16).eval()
    x = torch.randn((2, 5, 8) if make is ClippedRNN else (5, 2, 8))
    exact = net(x, None, torch.tensor([5, 2]))[0]
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32):
        assert torch.equal(net(x, None, torch.tensor([5, 2], dtype=dtype))[0], exact)
    with pytest.raises(ValueError, match="expected integer lengths"):
        net(x, None, torch.tensor([True, True]))


@pytest.mark.parametrize("ceiling", [0.0, -1.0, math.nan])
def test_a_ceiling_that_cuts_everything_is_refused(ceiling):
    with pytest.raises(ValueError, match="expected a ceiling above 0"):
        SparseRNN.from_dense(nn.RNN(8, 16, nonlinearity="relu"), ceiling=ceiling)


def test_first_states_of_any_float_dtype_but_nothing_else():
    net, x = packed_gru()
    h_0 = torch.randn(1, 2, 16)
    exact = net(x, h_0.half().float())[0]
    assert torch.equal(net(x, h_0.half())[0], exact)
    with pytest.raises(TypeError, match="expected hx to be a tensor, got list"):
        net(x, h_0.tolist())


@needs_kernels
def test_large_first_states_do_not_depend_on_the_batch():
    net = SparseGRU.from_dense(nn.GRU(8, 16), (16, 4), torch.int8)
    x, h_0 = torch.randn(40, 16, 8), 3 * torch.randn(1, 16, 16)
    alone = [net(x[:, i : i + 1], h_0[:, i : i + 1])[0] for i in range(16)]
    assert torch.equal(net(x, h_0)[0], torch.cat(alone, dim=1))


def share(part):
    for array in (*part.W.present, part.bias):
        array.share_memory_()


@pytest.mark.parametrize("send", [share, ForkingPickler.dumps])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_what_was_sent_to_another_process_goes_on_here(send, dtype):
    # Sending moves an array to shared memory and frees what kernels were told of.
    gru = SparseGRU.from_dense(nn.GRU(16, 32), (16, 4), dtype)
    linear = SparseLinear.from_dense(nn.Linear(32, 16), (16, 4), dtype)
    x = torch.randn(5, 3, 16)
    with torch.no_grad():
        states = gru(x)[0]
        y = linear(states)
        for part in (*gru._parts, linear):
            send(part)
        in_their_place = [torch.full((n,), 7.0) for n in range(1, 2000)]
        assert torch.equal(gru(x)[0], states)
        assert torch.equal(linear(states), y)
    assert in_their_place
