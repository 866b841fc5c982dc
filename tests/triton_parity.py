"""The Triton kernels against float64: in the interpreter or on a GPU.

test_triton.py runs this file in a process of its own, because Triton reads TRITON_INTERPRET when
kernels are defined. `make test-gpu` runs it as a script, without interpreter.
"""

import copy
import glob
import os
import sys
from importlib.util import find_spec

import pytest
import torch
from sparse_samples import pruned, sparse_weight
from tolerances import TOLERANCES, assert_close

from fairseq_rnnprune.layers import GRU
from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    choose_backend,
    choose_block_shape,
    gru_sequence,
    matmul,
    reference,
    triton_backend,
)

IS_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if IS_INTERPRETED else "cuda"
CANARY = 12345.0
# What the drivers of NVIDIA and AMD show of a GPU.
DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd")
# A GPU's exp and division are right to two units of the last place.
UNITS = 1 if IS_INTERPRETED else 2
# Longer than a row of any result here.
MARGIN = 128
on_gpu = pytest.mark.skipif(IS_INTERPRETED, reason="needs a GPU, this is the interpreter")
each_block_shape = pytest.mark.parametrize("block_shape", triton_backend.CONFIGS)
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCES))


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """New arrays hold NaN and lie between canaries, which must live to the end of the test."""
    arrays = []

    def poisoned_empty(*shape, dtype, device):
        array, inner = amid(CANARY, shape)
        assert torch.device(device).type == DEVICE
        assert array.dtype == dtype
        arrays.append(array)
        return inner.fill_(float("nan"))

    class Torch:
        """torch for the backend alone: others make new arrays as always."""

        empty = staticmethod(poisoned_empty)

        def __getattr__(self, name):
            return getattr(torch, name)

    monkeypatch.setattr(triton_backend, "torch", Torch())
    yield
    for array in arrays:
        assert (array[:MARGIN] == CANARY).all() and (array[-MARGIN:] == CANARY).all()


def packed(weight, block_shape, dtype=torch.float32, gates=1):
    return BlockSparseMatrix.from_dense(weight.to(DEVICE), block_shape, dtype, gates)


def amid(value, shape):
    """An array with `value` before and after a tensor of that shape, and the tensor."""
    size = torch.Size(shape).numel()
    array = torch.full((size + 2 * MARGIN,), value, device=DEVICE)
    return array, array[MARGIN : MARGIN + size].view(shape)


def random(*shape):
    """Normal numbers in memory that is NaN elsewhere: reading beyond them shows."""
    return amid(float("nan"), shape)[1].copy_(torch.randn(*shape))


def assert_product(W, x, bias=None):
    y = matmul(W, x, bias, "triton")
    assert (y.dtype, y.shape, y.is_contiguous()) == (torch.float32, (len(x), W.shape[0]), True)
    # The packed numbers themselves are multiplied in full precision, whatever their dtype.
    assert_close(y, reference.matmul(W, x.double(), bias))
    return y


def assert_sequence(W, gates_x, h, bias=None):
    states = gru_sequence(W, gates_x, h, bias, "triton")
    wide = None if bias is None else bias.double()
    assert_close(states, reference.gru_sequence(W, gates_x.double(), h.double(), wide))
    return states


@each_block_shape
@each_dtype
def test_matmul(block_shape, dtype):
    # Ragged at both edges, and more blocks in a panel than a program takes at a time.
    rows = 2 * (block_shape[0] + 3)
    weight = sparse_weight(rows, 69)
    weight[0, 0] = 1.0
    W, bias = packed(weight, block_shape, dtype, gates=2), random(rows)
    for batch in (1, 5):
        x = random(batch, 69)
        y = assert_product(W, x, bias)
        exact = torch.nn.functional.linear(x.double().cpu(), weight.double(), bias.double().cpu())
        assert_close(y.cpu(), exact, dtype)
    assert {"cpu", "torch_csr", "triton"} & set(W.cache) == {"triton"}


@each_block_shape
@each_dtype
def test_gru_sequence(block_shape, dtype):
    H = block_shape[0] + 3
    W, bias = packed(sparse_weight(3 * H, H) / 4, block_shape, dtype, 3), random(3 * H)
    for batch in (1, 5):
        assert_sequence(W, random(2, batch, 3 * H), 3 * random(batch, H), bias)


@pytest.mark.parametrize("batch", [2, 8, 16, 17])
def test_other_batches(batch):
    W = packed(sparse_weight(111, 37), (16, 1), torch.int8, gates=3)
    assert_product(W, random(batch, 37))
    assert_sequence(W, random(1, batch, 111), random(batch, 37))


@each_block_shape
def test_nothing_is_ragged(block_shape):
    weight = sparse_weight(96, 32)
    assert_product(packed(weight, block_shape, gates=3), random(8, 32))
    assert_sequence(packed(weight, block_shape, gates=3), random(1, 8, 96), random(8, 32))


def test_a_panel_by_hand():
    # Two columns of the first 16 rows, none of the next, one of the last.
    weight = torch.zeros(33, 3)
    weight[0, 0], weight[15, 2], weight[32, 1] = 2.0, 3.0, 4.0
    x = torch.tensor([[1.0, 10.0, 100.0]]).to(DEVICE)
    y = matmul(packed(weight, (16, 1)), x, backend="triton")
    assert y.nonzero().tolist() == [[0, 0], [0, 15], [0, 32]]
    assert y[0, [0, 15, 32]].tolist() == [2.0, 300.0, 40.0]


@pytest.mark.parametrize("density", [0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8])
def test_empty_and_full(density, dtype):
    W = packed(sparse_weight(48, 16, density), (8, 8), dtype, gates=3)
    assert_product(W, random(3, 16), torch.ones(48, device=DEVICE))
    assert_sequence(W, random(1, 3, 48), random(3, 16))


def test_columns_of_16_bits_and_beyond():
    weight = torch.zeros(16, 2**16 + 3)
    weight[3, 2**15], weight[5, 2**16 - 1], weight[7, 2**16 + 2] = 2.0, 3.0, 4.0
    narrow = weight[:, : 2**16]
    for part, width, dtype in (
        (weight, 1, torch.uint32),
        (weight, 4, torch.uint16),
        # Columns that a signed number of 16 bits cannot hold.
        (narrow, 1, torch.uint16),
    ):
        W = packed(part, (16, width))
        assert W.columns.dtype == dtype
        assert_product(W, random(2, part.shape[1]))


def test_strided_activations_and_bias_amid_nan():
    W = packed(sparse_weight(17, 6), (16, 4))
    x = torch.full((6, 12), float("nan"), device=DEVICE).t()[::3]
    x.copy_(random(4, 6))
    bias = torch.full((17, 2), float("nan"), device=DEVICE)[:, 0]
    bias.copy_(random(17))
    assert_product(W, x, bias)


def test_empty_batch():
    W = packed(torch.ones(48, 16), (16, 1), gates=3)
    x = torch.zeros(0, 16, device=DEVICE)
    assert matmul(W, x, backend="triton").shape == (0, 48)
    gates_x = torch.zeros(2, 0, 48, device=DEVICE)
    assert gru_sequence(W, gates_x, x, backend="triton").shape == (2, 0, 16)


def test_saturated_gates_are_exact():
    H = 19
    W = packed(torch.zeros(3 * H, H), (16, 1), gates=3)
    h, gates_x = random(1, H), torch.zeros(2, 1, 3 * H, device=DEVICE)
    gates_x[:, :, : 2 * H], gates_x[:, :, 2 * H :] = 1e4, 0.3
    assert torch.equal(gru_sequence(W, gates_x, h, backend="triton")[1], h)
    gates_x[:, :, H:] = -1e4
    assert torch.equal(gru_sequence(W, gates_x, h, backend="triton")[1], -torch.ones_like(h))


def test_small_states_keep_their_digits():
    H = 16
    W = packed(torch.zeros(3 * H, H), (16, 1), gates=3)
    for size in (1e-6, 1e-3, 0.1, 1.0, 10.0):
        gates_x, h = size * random(1, 1, 3 * H), size * random(1, H)
        exact = reference.gru_sequence(W, gates_x.double(), h.double())
        error = (gru_sequence(W, gates_x, h, backend="triton") - exact).abs()
        assert (error <= UNITS * (1e-6 * exact.abs() + 3e-7 * size)).all()


def test_nan_in_a_state_reaches_the_result():
    W = packed(torch.ones(48, 16), (16, 1), gates=3)
    h = torch.zeros(1, 16, device=DEVICE)
    h[0, 3] = float("nan")
    gates_x = torch.zeros(1, 1, 48, device=DEVICE)
    assert gru_sequence(W, gates_x, h, backend="triton").isnan().all()


def test_damaged_arrays_do_not_reach_the_kernels():
    W = packed(torch.ones(16, 4), (16, 1))
    W.columns.copy_(torch.tensor([0, 1, 2, 9], dtype=torch.uint16))
    with pytest.raises(ValueError, match="expected columns below 4, got 9"):
        matmul(W, random(1, 4), backend="triton")


def test_which_backend_is_the_default():
    W, x = packed(torch.ones(16, 20), (16, 16)), random(1, 20)
    # The interpreter is for tests: nobody gets it unasked.
    assert choose_backend(W, x).name == ("torch_csr" if IS_INTERPRETED else "triton")
    with pytest.raises(ValueError, match="blocks of 16 x 1, 16 x 4, .* not 3 x 2"):
        matmul(packed(torch.ones(6, 4), (3, 2)), random(1, 4), backend="triton")


@on_gpu
def test_what_a_mask_gets():
    for block_shape in triton_backend.CONFIGS:
        r, c = block_shape
        kept = torch.rand(3 * 96 // r, 96 // c) < 0.1
        mask = kept.repeat_interleave(r, 0).repeat_interleave(c, 1)
        assert choose_block_shape(mask.float().to(DEVICE), 3) == block_shape


@on_gpu
def test_a_layer():
    gru = pruned(GRU(40, 35), keep_every=7).to(DEVICE)
    x = random(4, 3, 40)
    with torch.no_grad():
        # cuDNN computes float32 with TF32, which has 10 bits.
        dense = copy.deepcopy(gru).double()(x.double())[0]
        gru.pack("fp32")
        torch.testing.assert_close(gru(x)[0].double(), dense, atol=1e-4, rtol=1e-4)


@on_gpu
def test_a_layer_that_was_packed_elsewhere():
    gru, x = pruned(GRU(40, 35), keep_every=7), random(4, 3, 40)
    with torch.no_grad():
        gru.pack("fp32")
        expected = gru(x.cpu())[0]
        gru.to(DEVICE)
        parts = [part.W for part in gru.sparse.modules() if hasattr(part, "W")]
        assert {choose_backend(W, W.values.new_zeros(1, W.shape[1])).name for W in parts} == {
            "triton"
        }
        torch.testing.assert_close(gru(x)[0].cpu(), expected, atol=1e-4, rtol=1e-4)


@on_gpu
def test_padding_changes_nothing():
    gru = pruned(GRU(40, 35, num_layers=2, bidirectional=True), keep_every=7).to(DEVICE)
    x, lengths = random(6, 3, 40), torch.tensor([4, 6, 1])
    with torch.no_grad():
        gru.pack("fp32")
        out, h_n = gru(x, lengths=lengths)
        for i, length in enumerate(lengths.tolist()):
            alone, last = gru(x[:length, i : i + 1])
            assert_close(out[:length, i : i + 1], alone.double())
            assert_close(h_n[:, i : i + 1], last.double())
            assert not out[length:, i].any()


@on_gpu
def test_calls_are_captured_in_a_graph():
    W = packed(sparse_weight(96, 32), (16, 4), gates=3)
    x, gates_x, h = random(5, 32), random(3, 5, 96), random(5, 32)
    y, states = random(5, 96), random(5, 32)

    def calls():
        triton_backend.launch_matmul(W, x, None, y)
        triton_backend.launch_gru_step(W, gates_x[0], h, None, states)

    calls()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        calls()
    x.copy_(random(5, 32))
    h.copy_(random(5, 32))
    graph.replay()
    assert_close(y, reference.matmul(W, x.double()))
    exact = reference.gru_sequence(W, gates_x[:1].double(), h.double())[0]
    assert_close(states, exact)


@on_gpu
@pytest.mark.parametrize("batch", [1, 5])
def test_a_layer_is_captured_in_a_graph(batch):
    # States of 35 units of 5 rows begin at addresses that are multiples of 16 and that are not.
    gru = pruned(GRU(40, 35), keep_every=7).to(DEVICE)
    x, h = random(3, batch, 40), random(1, batch, 35)
    with torch.no_grad():
        gru.pack("fp32")
        # One step compiles what three take.
        gru(x[:1], h)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out, h_n = gru(x, h)
        x.copy_(random(3, batch, 40))
        h.copy_(random(1, batch, 35))
        expected, last = gru(x, h)
        graph.replay()
        torch.testing.assert_close((out, h_n), (expected, last))


@on_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_tensors_need_not_be_on_the_current_gpu():
    W = packed(sparse_weight(96, 32), (16, 4), gates=3).to("cuda:1")
    x = random(5, 32).to("cuda:1")
    assert torch.cuda.current_device() == 0
    y = matmul(W, x, backend="triton")
    assert_close(y, reference.matmul(W, x.double()))


@on_gpu
def test_another_stream():
    W, x = packed(sparse_weight(96, 32), (16, 4), gates=3), random(5, 32)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        y = matmul(W, x, backend="triton")
    stream.synchronize()
    assert_close(y, reference.matmul(W, x.double()))


def why_not_here():
    """Why nothing can be tested on this machine's GPU, or None."""
    if not find_spec("triton"):
        return "triton is not installed"
    if not (torch.version.cuda or torch.version.hip):
        return f"torch {torch.__version__} was built for CPUs only"
    return None if torch.cuda.is_available() else f"torch {torch.__version__} finds none"


def main():
    """Runs this file on a GPU; where there is none, says so."""
    os.environ.pop("TRITON_INTERPRET", None)
    if reason := why_not_here():
        print(f"no GPU: {reason}; nothing was tested")
        # A GPU that torch cannot use is a failure.
        sys.exit(1 if any(glob.glob(device) for device in DEVICES) else 0)
    print(f"GPU: {torch.cuda.get_device_name()}")
    # What torch or a driver warns of there is no failure.
    sys.exit(pytest.main([__file__, "-q", "-W", "default", *sys.argv[1:]]))


if __name__ == "__main__":
    main()
