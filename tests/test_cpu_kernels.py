"""The native kernels, compiled for each instruction set, against float64."""

import ctypes
import math
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from needs import needs_kernels
from sparse_samples import sparse_weight
from tolerances import COARSE_GATES, assert_close
from torch.nn.functional import linear

from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    cpu,
    cpu_library,
    gru_sequence,
    matmul,
    reference,
    rnn_sequence,
)
from fairseq_rnnprune.sparse.blocks import diagonals
from fairseq_rnnprune.sparse.cpu_library import activation_levels

pytestmark = needs_kernels
FORKS = """
import os, signal, torch
from fairseq_rnnprune.sparse import BlockSparseMatrix, matmul

W = BlockSparseMatrix.from_dense(torch.randn(512, 512), (16, 1))
x = torch.randn(1, 512)
expected = matmul(W, x, backend="cpu")
child = os.fork()
if not child:
    signal.alarm(60)
    print(torch.equal(matmul(W, x, backend="cpu"), expected), flush=True)
    os._exit(0)
raise SystemExit(os.waitpid(child, 0)[1])
"""
DTYPES = list(cpu.DTYPES)
CANARY = 12345.0


# Of each kind of processor, best first: what csrc/instruction_sets.h asks for, by its names in
# /proc/cpuinfo.
INSTRUCTION_SETS = {
    "x86_64": {
        "avx512": {"avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
        "avx_vnni": {"avx_vnni", "avx2", "fma"},
        "avx2": {"avx2", "fma"},
        "baseline": set(),
    },
    "aarch64": {"neon_dot": {"asimddp"}, "baseline": set()},
}
# As macOS calls it.
INSTRUCTION_SETS["arm64"] = INSTRUCTION_SETS["aarch64"]
FLAGS_OF = INSTRUCTION_SETS.get(platform.machine(), {"baseline": set()})


@pytest.fixture(params=FLAGS_OF)
def instruction_set(request):
    if request.param not in cpu_library.instruction_sets():
        flags = " ".join(sorted(FLAGS_OF[request.param]))
        pytest.skip(f"needs a processor with {flags}, and a compiler and assembler that know them")
    cpu_library.use_instruction_set(request.param)
    yield request.param
    cpu_library.use_instruction_set(cpu_library.instruction_sets()[0])


@pytest.fixture
def poisoned(monkeypatch):
    """New arrays hold NaN and lie between canaries; returns a check that those still live."""
    arrays = []

    def new_empty(like, *shape):
        assert like.dtype is torch.float32 and like.is_cpu
        size = torch.Size(shape).numel()
        array = torch.full((size + 64,), float("nan"), dtype=torch.float32)
        array[:32] = array[32 + size :] = CANARY
        arrays.append(array)
        return array[32 : 32 + size].view(shape)

    def check():
        assert arrays
        for array in arrays:
            assert (array[:32] == CANARY).all() and (array[-32:] == CANARY).all()

    monkeypatch.setattr(torch.Tensor, "new_empty", new_empty)
    return check


def as_seen(x, W, least=1e-30):
    """x [B, K] as the kernel for W sees it, in float64."""
    if not activation_levels(W):
        return x.double()
    scale = x.abs().amax(1, keepdim=True).clamp(min=least) / activation_levels(W)
    return (x / scale).round().double() * scale.double()


def assert_product(W, x, bias):
    """The packed numbers, as float64, must give the result, but for float32 rounding."""
    y = matmul(W, x, bias, "cpu")
    assert_close(y, reference.matmul(W, as_seen(x, W), bias))


def test_struct_is_that_of_the_library():
    library = cpu_library.load()
    assert library.rnnprune_matrix_bytes() == ctypes.sizeof(cpu_library.Matrix)
    assert library.rnnprune_layer_bytes() == ctypes.sizeof(cpu_library.Layer)
    shapes = (ctypes.c_int32 * (2 * len(cpu.BLOCK_SHAPES)))()
    assert library.rnnprune_block_shapes(shapes, len(cpu.BLOCK_SHAPES)) == len(cpu.BLOCK_SHAPES)
    assert tuple(zip(shapes[::2], shapes[1::2], strict=True)) == cpu.BLOCK_SHAPES


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_shape", cpu.BLOCK_SHAPES)
def test_matmul(instruction_set, block_shape, dtype, poisoned):
    # 3 gates of 21 rows and 37 columns: ragged at both edges for every block shape.
    weight = sparse_weight(63, 37)
    weight[0, 0] = 1.0
    bias = torch.linspace(-1, 1, 63)
    W = BlockSparseMatrix.from_dense(weight, block_shape, dtype, gates=3)
    for batch in (1, 2, 3, 5, 16, 17, 65):
        x = torch.randn(batch, 37)
        assert_product(W, x, bias)
        y = matmul(W, x, None, "cpu")
        assert_close(y, linear(x.double(), weight.double()), dtype)
    poisoned()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_shape", cpu.BLOCK_SHAPES)
def test_matmul_of_whole_blocks(instruction_set, block_shape, dtype):
    # Nothing is ragged, so that a single x is read where it lies.
    weight = sparse_weight(64, 48)
    for batch in (1, 4):
        x = torch.randn(batch, 48)
        assert_product(BlockSparseMatrix.from_dense(weight, block_shape, dtype), x, None)


def test_a_panel_by_hand(instruction_set):
    # Two columns of the first 16 rows, one of the other.
    weight = torch.zeros(17, 3)
    weight[0, 0], weight[15, 2], weight[16, 1] = 2.0, 3.0, 4.0
    W = BlockSparseMatrix.from_dense(weight, (16, 1))
    y = matmul(W, torch.tensor([[1.0, 10.0, 100.0]]), backend="cpu")
    assert y.nonzero().tolist() == [[0, 0], [0, 15], [0, 16]]
    assert y[0, [0, 15, 16]].tolist() == [2.0, 300.0, 40.0]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_empty_and_full(instruction_set, dtype, density):
    weight = sparse_weight(18, 8, density)
    for block_shape in cpu.BLOCK_SHAPES:
        if block_shape[0] <= 18:
            W = BlockSparseMatrix.from_dense(weight, block_shape, dtype)
            assert_product(W, torch.randn(3, 8), torch.ones(18))


@pytest.mark.parametrize("block_shape", cpu.BLOCK_SHAPES)
@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
@pytest.mark.parametrize("columns", [64, 4096])
def test_integers_at_their_limits(instruction_set, block_shape, dtype, columns):
    # The largest products of either sign, in every column: of bytes sums would wrap in 16 bits, of
    # words in 32.
    weight = torch.ones(16, columns)
    weight[1::2] = -1.0
    W = BlockSparseMatrix.from_dense(weight, block_shape, dtype)
    for x in (torch.ones(1, columns), -torch.ones(1, columns)):
        assert_close(matmul(W, x), reference.matmul(W, x.double()))


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
@pytest.mark.parametrize("block_shape", [(4, 4), (8, 4), (16, 4), (8, 8)])
def test_integers_of_zero_and_of_nan(instruction_set, block_shape, dtype):
    W = BlockSparseMatrix.from_dense(torch.ones(16, 8), block_shape, dtype)
    x = torch.zeros(4, 8)
    x[1, 2], x[2, 1], x[3, 0] = float("nan"), float("inf"), 1.0
    y = matmul(W, x)
    assert (y[0] == 0).all() and y[1:3].isnan().all()
    assert_close(y[3], torch.ones(16).double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_shape", cpu.BLOCK_SHAPES)
@pytest.mark.parametrize("H", [35, 48])
def test_gru_sequence(instruction_set, block_shape, dtype, H, poisoned):
    W = BlockSparseMatrix.from_dense(sparse_weight(3 * H, H) / 4, block_shape, dtype, gates=3)
    bias = torch.linspace(-1, 1, 3 * H)
    for batch in (1, 3):
        gates_x, h = torch.randn(7, batch, 3 * H), 3 * torch.randn(batch, H)
        states = gru_sequence(W, gates_x, h, bias, "cpu")
        exact = reference.gru_sequence(W, gates_x.double(), h.double(), bias.double())
        assert_close(states, exact, dtype if activation_levels(W) else torch.float32)
        first = gru_sequence(W, gates_x[:1], h, None, "cpu")
        gates_h = reference.matmul(W, as_seen(h, W, least=1.0))
        exact = reference.gru_step(gates_x[0].double(), gates_h, h.double())
        assert_close(first[0], exact, tolerance=COARSE_GATES if activation_levels(W) else None)
    poisoned()


@pytest.mark.parametrize("nonlinearity, ceiling", [("relu", math.inf), ("relu", 0.7), ("tanh", 1)])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_shape", [(16, 1), (4, 4), (16, 4)])
def test_rnn_sequence(instruction_set, block_shape, dtype, nonlinearity, ceiling, poisoned):
    H, options = 35, (nonlinearity, ceiling)
    W = BlockSparseMatrix.from_dense(sparse_weight(H, H) / 4, block_shape, dtype)
    bias = torch.linspace(-1, 1, H)
    for batch in (1, 3):
        gates_x, h = torch.randn(7, batch, H), torch.randn(batch, H)
        states = rnn_sequence(W, gates_x, h, bias, *options, backend="cpu")
        exact = reference.rnn_sequence(W, gates_x.double(), h.double(), bias.double(), *options)
        assert_close(states, exact, dtype if activation_levels(W) else torch.float32)
    if activation_levels(W) and nonlinearity == "relu":
        # The scale follows each step's state, however small it becomes.
        gates_x[:] = 1e-3 * torch.rand(7, batch, H)
        W = BlockSparseMatrix.from_dense(torch.eye(H) / 2, block_shape, dtype)
        states = rnn_sequence(W, gates_x, h.abs(), None, *options, backend="cpu")
        exact = reference.rnn_sequence(W, gates_x.double(), h.abs().double(), None, *options)
        assert_close(states[-1], exact[-1], dtype)
    poisoned()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_shape", [(16, 1), (4, 4), (16, 4)])
def test_diagonal_apart(instruction_set, block_shape, dtype):
    H = 35
    weight = sparse_weight(3 * H, H) / 4
    diagonals(weight, 3).copy_(torch.randn(3, H))
    W = BlockSparseMatrix.from_dense(weight, block_shape, dtype, gates=3, diagonal=True)
    for batch in (1, 3):
        x = torch.randn(batch, H)
        assert_close(matmul(W, x, None, "cpu"), linear(x.double(), weight.double()), dtype)
        gates_x = torch.randn(4, batch, 3 * H)
        states = gru_sequence(W, gates_x, x, None, "cpu")
        exact = reference.gru_sequence(W, gates_x.double(), x.double())
        assert_close(states, exact, dtype if activation_levels(W) else torch.float32)


def test_small_states_keep_their_digits(instruction_set):
    H = 16
    W = BlockSparseMatrix.from_dense(torch.zeros(3 * H, H), (16, 1), gates=3)
    for size in (1e-6, 1e-3, 0.1, 1.0, 10.0):
        gates_x = size * torch.randn(1, 1, 3 * H)
        h = size * torch.randn(1, H)
        exact = reference.gru_sequence(W, gates_x.double(), h.double())
        actual = gru_sequence(W, gates_x, h, backend="cpu")
        assert ((actual - exact).abs() <= 1e-6 * exact.abs() + 3e-7 * size).all()


def test_saturated_gates_are_exact(instruction_set):
    H = 19
    W = BlockSparseMatrix.from_dense(torch.zeros(3 * H, H), (16, 1), gates=3)
    h = torch.randn(1, H)
    gates_x = torch.zeros(2, 1, 3 * H)
    gates_x[:, :, :H] = gates_x[:, :, H : 2 * H] = 1e4
    assert torch.equal(gru_sequence(W, gates_x, h, backend="cpu")[1], h)
    gates_x[:, :, H:] *= -1
    gates_x[:, :, 2 * H :] = -1e4
    assert torch.equal(gru_sequence(W, gates_x, h, backend="cpu")[1], -torch.ones(1, H))


def test_nan_in_a_state_reaches_the_result(instruction_set):
    W = BlockSparseMatrix.from_dense(torch.ones(48, 16), (16, 1), gates=3)
    h = torch.zeros(1, 16)
    h[0, 3] = float("nan")
    assert gru_sequence(W, torch.zeros(1, 1, 48), h, backend="cpu").isnan().all()


@pytest.mark.parametrize("cell", ["gru", "tanh", "relu"])
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_in_a_unit_reaches_all_of_them_a_step_later(instruction_set, cell, batch, dtype):
    gates, H = (3 if cell == "gru" else 1), 32
    W = BlockSparseMatrix.from_dense(torch.ones(gates * H, H), (16, 4), dtype, gates=gates)
    gates_x, h = torch.zeros(3, batch, gates * H), torch.zeros(batch, H)
    gates_x[0, 0, -1] = float("nan")
    run = gru_sequence if cell == "gru" else rnn_sequence
    states = run(W, gates_x, h, None, *([cell] if gates == 1 else []), backend="cpu")
    assert states[:, 0].isnan().sum(1).tolist() == [1, H, H]
    assert states[:, 1:].isfinite().all()


@pytest.mark.parametrize("block_shape", [(16, 1), (16, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.int16])
def test_threads_do_not_change_a_bit(monkeypatch, block_shape, dtype):
    H = 83
    W = BlockSparseMatrix.from_dense(sparse_weight(3 * H, H), block_shape, dtype, gates=3)
    x, bias = torch.randn(5, H), torch.randn(3 * H)
    gates_x = torch.randn(6, 5, 3 * H)

    def run(threads):
        monkeypatch.setattr(cpu_library.Prepared, "threads", threads)
        states = [gru_sequence(W, gates_x[:, :b], x[:b], bias, "cpu") for b in (1, 5)]
        return [matmul(W, x, bias, "cpu"), matmul(W, x[:1], bias, "cpu"), *states]

    # 7 threads are more than a gate has panels.
    for one, many in zip(run(1), run(7), strict=True):
        assert torch.equal(one, many)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("block_shape", cpu.BLOCK_SHAPES)
def test_weights_larger_than_a_cache(monkeypatch, block_shape, dtype, poisoned):
    # 3.6 MB and more: where a core has less than 7 MB, a half of them is in parts, too. Every other
    # product begins with the last part; as the steps are odd, both sequences differ in that.
    H = 1100
    W = BlockSparseMatrix.from_dense(torch.randn(3 * H, H) / 9, block_shape, dtype, gates=3)
    x, gates_x = torch.rand(3, H), torch.randn(3, 3, 3 * H)
    assert_product(W, x, None)
    for threads in (1, 2):
        monkeypatch.setattr(cpu_library.Prepared, "threads", threads)
        for run in (
            lambda: matmul(W, x, None, "cpu"),
            lambda: gru_sequence(W, gates_x, x, None, "cpu"),
        ):
            first, second = run(), run()
            assert first.isfinite().all() and torch.equal(first, second)
    poisoned()


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16])
def test_no_thread_reads_what_another_has_yet_to_write(
    instruction_set, monkeypatch, dtype, poisoned
):
    # The few columns of a thread are less than a vector.
    H = 83
    W = BlockSparseMatrix.from_dense(sparse_weight(3 * H, H), (4, 4), dtype, gates=3)
    gates_x, h = torch.randn(6, 5, 3 * H), torch.randn(5, H)
    states = []
    for threads in (1, 7):
        monkeypatch.setattr(cpu_library.Prepared, "threads", threads)
        states.append(gru_sequence(W, gates_x, h, None, "cpu"))
    torch.testing.assert_close(*states, rtol=0, atol=1e-5)
    poisoned()
    # Of all threads' units, one step after it and not before.
    gates_x[2, 0, -1] = float("nan")
    counts = gru_sequence(W, gates_x, h, None, "cpu").isnan().sum(2)
    assert counts[:, 0].tolist() == [0, 0, 1, H, H, H] and not counts[:, 1:].any()


def test_threads_asked_for(monkeypatch):
    large, small = (cpu_library.Prepared(0, (), is_large) for is_large in (True, False))
    assert (large.threads, small.threads) == (torch.get_num_threads(), 1)
    cpu_library._threads_asked_for.cache_clear()
    monkeypatch.setenv("RNNPRUNE_THREADS", "3")
    assert (large.threads, small.threads) == (3, 1)
    for asked in ("-1", "two", "1025", "3000000000"):
        cpu_library._threads_asked_for.cache_clear()
        monkeypatch.setenv("RNNPRUNE_THREADS", asked)
        with pytest.raises(ValueError, match=f"expected .* a number up to 1024, got '{asked}'"):
            _ = large.threads
        # A matrix that would get one thread anyway tells, too.
        with pytest.raises(ValueError, match=f"expected .* a number up to 1024, got '{asked}'"):
            cpu.matmul(BlockSparseMatrix.from_dense(torch.ones(4, 4), (4, 4)), torch.ones(1, 4))
    monkeypatch.delenv("RNNPRUNE_THREADS")
    cpu_library._threads_asked_for.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_process_runs_on_one_thread(tmp_path):
    # A process of its own: the test's may have threads of other libraries.
    script = tmp_path / "fork.py"
    script.write_text(FORKS)
    environment = os.environ | {"RNNPRUNE_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="flags are read from /proc/cpuinfo")
def test_instruction_sets_are_those_whose_flags_the_processor_has():
    found = re.search(r"^(?:flags|Features)\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.M)
    flags = set(found[1].split()) if found else set()
    expected = [name for name, wanted in FLAGS_OF.items() if wanted <= flags]
    unknown = "or the compiler, or its assembler, does not know one of them"
    assert cpu_library.instruction_sets() == expected, unknown


def test_unknown_instruction_set():
    with pytest.raises(ValueError, match="expected a name among .*baseline, got 'mmx'"):
        cpu_library.use_instruction_set("mmx")
