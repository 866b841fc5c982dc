"""Native kernels for panels of blocks on CPUs: the C++ of csrc/, called through ctypes.

float32 values are exact. bfloat16 ones are widened and multiplied in float32, and so are integers
in blocks of one column. In others integers are faster, and activations are integers, too: with int8
at a scale per row of x of max |x| / 127, with int16 of max |x| / 4095. In a GRU or tanh RNN
max(1, max |h_0|) takes the place of max |x|, which bounds every state; in a ReLU RNN the scale
follows each step. Such a cell computes its gates to 1e-4, all others to float32's precision.

The kernels were compiled for several instruction sets, of which the best one here runs. They use
torch's number of threads, or that in the environment variable RNNPRUNE_THREADS, read once; one
thread where a matrix has less than PARALLEL_BYTES.
"""

from __future__ import annotations

from math import inf

import torch
from torch import Tensor

from . import cpu_library
from .arguments import reasons_off_cpu
from .cpu_library import BLOCK_SHAPES, CELLS, DTYPES, address, call, prepare
from .matrix import BlockSparseMatrix
from .validation import names

# The int8 kernel adds up to that many products of 255 * 127 in 32 bits.
MAX_INT8_COLUMNS = 2**16


def unavailable_reasons() -> list[str]:
    """Why no call can run in this process: the kernels were not compiled."""
    return (
        [] if cpu_library.load() else ["needs its kernels, which were not compiled at installation"]
    )


def not_supported_reasons(W: BlockSparseMatrix, x: Tensor) -> list[str]:
    """Every reason why this call cannot run."""
    reasons = unavailable_reasons()
    reasons += reasons_off_cpu(W, x)
    if W.block_shape not in BLOCK_SHAPES:
        shapes = ", ".join(f"{r} x {c}" for r, c in BLOCK_SHAPES)
        reasons.append(
            f"has kernels for blocks of {shapes}, not {'{} x {}'.format(*W.block_shape)}"
        )
    if W.dtype not in DTYPES:
        reasons.append(f"has kernels for {names(tuple(DTYPES))}, not {names((W.dtype,))}")
    if W.columns.dtype != torch.uint16:
        reasons.append(f"reads at most {2**16:,} block columns, not {W.grid[1]:,}")
    if W.dtype == torch.int8 and W.shape[1] > MAX_INT8_COLUMNS:
        reasons.append(f"adds up at most {MAX_INT8_COLUMNS:,} int8 columns, not {W.shape[1]:,}")
    return reasons


def matmul(W: BlockSparseMatrix, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """float32 x [B, K] times the transpose of W, plus bias [M]: float32 [B, M], contiguous."""
    prepared = prepare(W)
    x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    batch = x.shape[0]
    # As x is: floats on the CPU, whatever torch's defaults are.
    y = x.new_empty(batch, W.shape[0])
    pointers = map(address, (x, bias, y))
    call("matmul", prepared.pointer, *pointers, batch, prepared.threads)
    return y


def gru_sequence(
    W: BlockSparseMatrix, gates_x: Tensor, h: Tensor, bias: Tensor | None = None
) -> Tensor:
    """As `reference.gru_sequence`, with the whole sequence in one call; float32 throughout."""
    return _recurrent("gru", inf, W, gates_x, h, bias)


def rnn_sequence(
    W: BlockSparseMatrix,
    gates_x: Tensor,
    h: Tensor,
    bias: Tensor | None = None,
    nonlinearity: str = "relu",
    ceiling: float = inf,
) -> Tensor:
    """As `reference.rnn_sequence`, with the whole sequence in one call; float32 throughout."""
    return _recurrent(nonlinearity, ceiling, W, gates_x, h, bias)


def _recurrent(
    cell: str,
    ceiling: float,
    W: BlockSparseMatrix,
    gates_x: Tensor,
    h: Tensor,
    bias: Tensor | None,
) -> Tensor:
    prepared = prepare(W)
    gates_x, h = gates_x.contiguous(), h.contiguous()
    bias = None if bias is None else bias.contiguous()
    steps, batch, _ = gates_x.shape
    states = h.new_empty(steps, batch, h.shape[1])
    call(
        "recurrent",
        prepared.pointer,
        CELLS[cell],
        ceiling,
        *map(address, (gates_x, bias, h, states)),
        steps,
        batch,
        prepared.threads,
    )
    return states
