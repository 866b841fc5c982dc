"""The compiled library of csrc/ and what its C functions are given, through ctypes."""

from __future__ import annotations

import ctypes
import logging
import os
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .matrix import BlockSparseMatrix
from .validation import INT16_LEVELS

logger = logging.getLogger(__name__)

THREADS_VARIABLE = "RNNPRUNE_THREADS"
PARALLEL_BYTES = 400_000
MAX_THREADS = 1024
_PROCESS = os.getpid()
# Block shapes with kernels, dtypes and recurrent cells, with their numbers in csrc/kernels.h.
BLOCK_SHAPES = ((16, 1), (4, 4), (8, 4), (16, 4), (8, 8))
DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.int8: 2, torch.int16: 3}
# What activations become for integers: so many levels on either side of 0 (csrc/integers.h).
LEVELS = {torch.int8: 127, torch.int16: INT16_LEVELS}
CELLS = {"gru": 0, "relu": 1, "tanh": 2}

_OUT_OF_MEMORY = 2
_pointer, _number, _float = ctypes.c_void_p, ctypes.c_int32, ctypes.c_float
_FUNCTIONS = {
    "matmul": (_pointer,) * 4 + (_number,) * 2,
    "recurrent": (_pointer, _number, _float, *(_pointer,) * 4, *(_number,) * 3),
    "network": (_pointer, *(_number,) * 2, *(_pointer,) * 4, *(_number,) * 3),
}


class Matrix(ctypes.Structure):
    """struct Matrix of csrc/kernels.h."""

    _fields_ = (
        *((name, _pointer) for name in "values columns pointers scales offsets diagonal".split()),
        *(
            (name, _number)
            for name in "rows width gates block_rows block_columns dtype products".split()
        ),
    )


class Layer(ctypes.Structure):
    """struct Layer of csrc/kernels.h."""

    _fields_ = (
        *((name, _pointer) for name in "input recurrent input_bias recurrent_bias".split()),
        *(("cell", _number), ("ceiling", _float), ("reverse", _number), ("is_large", _number)),
    )


@dataclass(frozen=True)
class Prepared:
    """What a call needs of a matrix; `arrays` keeps alive what `pointer` leads to."""

    pointer: int
    arrays: tuple[Any, ...]
    is_large: bool

    @property
    def threads(self) -> int:
        """How many threads a call with this matrix gets."""
        return threads() if self.is_large else 1


def activation_levels(W: BlockSparseMatrix) -> int:
    """In how many levels on either side of 0 products with W take activations; 0: in floats."""
    return LEVELS.get(W.dtype, 0) if W.block_shape[1] > 1 else 0


def has_offsets(W: BlockSparseMatrix) -> bool:
    """Whether products with W read an int32 of each row besides, for bytes without a sign."""
    return W.dtype == torch.int8 and activation_levels(W) > 0


def prepare(W: BlockSparseMatrix) -> Prepared:
    """The struct of a matrix; errors as in BlockSparseMatrix.derived."""
    return W.derived("cpu", lambda: _prepare(W))


def _prepare(W: BlockSparseMatrix) -> Prepared:
    # A wrong RNNPRUNE_THREADS is told at once, not by the first matrix that is large.
    threads()
    offsets = _offsets(W) if has_offsets(W) else None
    arrays = [W.values, W.columns, W.pointers, W.scales, offsets, W.diagonal]
    # Aliases: who gives an array other memory through .data does not take this from running calls.
    arrays = [None if array is None else array.detach() for array in arrays]
    matrix = Matrix(*map(address, arrays), *W.shape, W.gates, *W.block_shape, DTYPES[W.dtype])
    return Prepared(ctypes.addressof(matrix), (*arrays, matrix), W.nbytes >= PARALLEL_BYTES)


def call(function: str, *arguments: Any) -> None:
    """Calls rnnprune_<function>; MemoryError if it finds no memory.

    RuntimeError within torch.jit.trace, which would not see the call and keep an empty result.
    """
    if torch.jit.is_tracing():
        raise RuntimeError(
            f"{function}: expected to run, got traced by torch.jit, which cannot record the native "
            'kernels; trace the dense layer (in a fairseq model packed="dense" leaves it so)'
        )
    status = _function(function)(*arguments)
    if status == _OUT_OF_MEMORY:
        raise MemoryError(f"{function}: expected memory for the activations, got none")
    assert status == 0, f"{function}: status {status} of the kernels"


@cache
def _function(name: str) -> Any:
    return getattr(load(), f"rnnprune_{name}")


def address(array: Tensor | None) -> int | None:
    """Where an array lies; None for none. ValueError for a tensor that only looks like one."""
    if array is None:
        return None
    pointer = array.data_ptr()
    if not pointer and array.numel():
        raise ValueError(
            "expected activations in memory, got a "
            f"{type(array).__name__} {list(array.shape)} without; native kernels read them there"
        )
    return pointer


def threads() -> int:
    """torch's number of threads, or that in the environment; 1 in a process that was forked."""
    wanted = _threads_asked_for() or torch.get_num_threads()
    # OpenMP would wait there for threads that the fork has not copied.
    return wanted if os.getpid() == _PROCESS else 1


def instruction_sets() -> list[str]:
    """The instruction sets with kernels that this processor has, best first."""
    library, found = load(), []
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
    load().rnnprune_use_instruction_set(usable.index(name))


@cache
def load() -> ctypes.CDLL | None:
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
    try:
        found = ctypes.CDLL(str(file))
        problem = _other_version(found)
    except OSError as error:
        problem = f"cannot be loaded ({error})"
    if problem:
        logger.warning(
            "no native kernels: %s %s; torch multiplies packed weights instead, which is slower. "
            "Installing the package anew compiles them",
            *(file, problem),
        )
        return None
    for name, types in _FUNCTIONS.items():
        getattr(found, f"rnnprune_{name}").argtypes = types
    found.rnnprune_instruction_set.argtypes = (_number,)
    found.rnnprune_instruction_set.restype = ctypes.c_char_p
    return found


def _other_version(library: ctypes.CDLL) -> str | None:
    """What is wrong with a library without every function, or that means other types by them."""
    names = [*_FUNCTIONS, "dtypes", "matrix_bytes", "layer_bytes", "instruction_set"]
    if all(hasattr(library, f"rnnprune_{name}") for name in names):
        sizes = (library.rnnprune_matrix_bytes(), library.rnnprune_layer_bytes())
        are_same_structs = sizes == (ctypes.sizeof(Matrix), ctypes.sizeof(Layer))
        if are_same_structs and library.rnnprune_dtypes() == len(DTYPES):
            return None
    return "was compiled from other sources than this version's"


def _offsets(W: BlockSparseMatrix) -> Tensor:
    """int32 [panels, r]: what the 128 that makes 8-bit activations unsigned adds to each row."""
    offsets = W.pointers.new_zeros(W.grid[0], W.block_shape[0])
    return offsets.index_add_(0, W.panel_of_block, 128 * W.values.sum(2, dtype=torch.int32))


@cache
def _threads_asked_for() -> int:
    """The number in the environment, 0 if there is none."""
    wanted = os.environ.get(THREADS_VARIABLE) or "0"
    if not wanted.isdecimal() or int(wanted) > MAX_THREADS:
        raise ValueError(
            f"matmul: expected {THREADS_VARIABLE} to be a number up to {MAX_THREADS}, "
            f"got {wanted!r}"
        )
    return int(wanted)
