"""Native kernels for panels of blocks on CPUs: the C++ of csrc/, called through ctypes.

float32 values are exact, bfloat16 and int8 ones are widened and multiplied in float32. One case is
faster and coarser: int8 in blocks of 16 x 4 is multiplied with activations in 8 bits, too, at a
scale per row of x of max |x| / 127. In a GRU or tanh RNN the scale is max(1, max |h_0|) / 127,
which bounds every state; in a ReLU RNN it follows the state of each step. Such a cell computes its
gates to 1e-4, all others to float32's precision.

The kernels were compiled for several instruction sets, of which the best one here runs. They use
torch's number of threads, or that in the environment variable RNNPRUNE_THREADS, read once; one
thread where a matrix has less than PARALLEL_BYTES.
"""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .matrix import BlockSparseMatrix
from .validation import names

logger = logging.getLogger(__name__)

THREADS_VARIABLE = "RNNPRUNE_THREADS"
PARALLEL_BYTES = 100_000
BLOCK_SHAPES = ((16, 1), (4, 4), (8, 4), (16, 4), (8, 8))
# With the number each has in csrc/kernels.h.
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2}
# Recurrent cells, in the same way.
CELLS = {"gru": 0, "relu": 1, "tanh": 2}
# The int8 kernel adds up to that many products of 255 * 127 in 32 bits.
MAX_INT8_COLUMNS = 2**16
OUT_OF_MEMORY = 2


class _Matrix(ctypes.Structure):
    """struct Matrix of csrc/kernels.h."""

    _fields_ = (
        *(
            (name, ctypes.c_void_p)
            for name in "values columns pointers scales offsets diagonal".split()
        ),
        *((name, ctypes.c_int32) for name in "rows width gates block_rows block_columns".split()),
        ("dtype", ctypes.c_int32),
    )


@dataclass(frozen=True)
class _Prepared:
    """What a call needs of a matrix; `arrays` keeps alive what `pointer` leads to."""

    pointer: int
    arrays: tuple[Any, ...]
    is_large: bool

    @property
    def threads(self) -> int:
        return (_threads_asked_for() or torch.get_num_threads()) if self.is_large else 1


def unavailable_reasons() -> list[str]:
    """Why no call can run in this process: the kernels were not compiled."""
    return [] if _library() else ["needs its kernels, which were not compiled at installation"]


def not_supported_reasons(W: BlockSparseMatrix, x: Tensor) -> list[str]:
    """Every reason why this call cannot run."""
    reasons = unavailable_reasons()
    if x.device.type != "cpu":
        reasons.append(f"runs on the CPU, not on {x.device}")
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
    prepared = _prepare(W)
    x, bias = x.contiguous(), None if bias is None else bias.contiguous()
    y = torch.empty(len(x), W.shape[0])
    status = _library().rnnprune_matmul(
        prepared.pointer, x.data_ptr(), _address(bias), y.data_ptr(), len(x), prepared.threads
    )
    _check(status, "matmul")
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
    prepared = _prepare(W)
    gates_x, h = gates_x.contiguous(), h.contiguous()
    bias = None if bias is None else bias.contiguous()
    steps, batch = gates_x.shape[:2]
    states = torch.empty(steps, *h.shape)
    status = _library().rnnprune_recurrent(
        prepared.pointer,
        CELLS[cell],
        ceiling,
        gates_x.data_ptr(),
        _address(bias),
        h.data_ptr(),
        states.data_ptr(),
        steps,
        batch,
        prepared.threads,
    )
    _check(status, "recurrent")
    return states


def instruction_sets() -> list[str]:
    """The instruction sets with kernels that this processor has, best first."""
    library, found = _library(), []
    while library and (name := library.rnnprune_instruction_set(len(found))):
        found.append(name.decode())
    return found


def use_instruction_set(name: str) -> None:
    """Makes all calls of this process use the kernels compiled for one of `instruction_sets()`."""
    usable = instruction_sets()
    if name not in usable:
        raise ValueError(
            f"use_instruction_set: expected a name among {', '.join(usable)}, got {name!r}"
        )
    _library().rnnprune_use_instruction_set(usable.index(name))


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernels; None, and a line in the log, where there are none."""
    folder = Path(__file__).parent
    files = [folder / f"_kernels{suffix}" for suffix in EXTENSION_SUFFIXES]
    file = next((file for file in files if file.exists()), None)
    if file is None:
        logger.warning(
            "no native kernels: they were not compiled at installation, for which it takes GCC or "
            "Clang; torch multiplies packed weights instead, which is slower"
        )
        return None
    # torch is imported by now, so the kernels get its OpenMP runtime instead of a second one.
    library = ctypes.CDLL(str(file))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    library.rnnprune_matmul.argtypes = (pointer,) * 4 + (number,) * 2
    library.rnnprune_recurrent.argtypes = (
        *(pointer, number, ctypes.c_float),
        *((pointer,) * 4 + (number,) * 3),
    )
    library.rnnprune_instruction_set.argtypes = (number,)
    library.rnnprune_instruction_set.restype = ctypes.c_char_p
    return library


def _prepare(W: BlockSparseMatrix) -> _Prepared:
    """The struct of a matrix, made and checked at its first use and cached in W."""
    if "cpu" not in W.cache:
        W.validate()
        offsets = _offsets(W) if W.dtype == torch.int8 else None
        arrays = (W.values, W.columns, W.pointers, W.scales, offsets, W.diagonal)
        matrix = _Matrix(*map(_address, arrays), *W.shape, W.gates, *W.block_shape, DTYPES[W.dtype])
        is_large = W.nbytes >= PARALLEL_BYTES
        W.cache["cpu"] = _Prepared(ctypes.addressof(matrix), (*arrays, matrix), is_large)
    return W.cache["cpu"]


def _offsets(W: BlockSparseMatrix) -> Tensor:
    """int32 [panels, r]: what the 128 that makes 8-bit activations unsigned adds to each row."""
    offsets = torch.zeros(W.grid[0], W.block_shape[0], dtype=torch.int32)
    return offsets.index_add_(0, W.panel_of_block, 128 * W.values.sum(2, dtype=torch.int32))


@cache
def _threads_asked_for() -> int:
    """The number in the environment, 0 if there is none."""
    wanted = os.environ.get(THREADS_VARIABLE) or "0"
    if not wanted.isdecimal():
        raise ValueError(f"matmul: expected {THREADS_VARIABLE} to be a number, got {wanted!r}")
    return int(wanted)


def _address(array: Tensor | None) -> int | None:
    return None if array is None else array.data_ptr()


def _check(status: int, function: str) -> None:
    if status == OUT_OF_MEMORY:
        raise MemoryError(f"{function}: expected memory for the activations, got none")
    assert status == 0, f"{function}: status {status} of the kernels"
