"""How a layer should run at inference: one place decides and says why.

The choice is the layer's option `packed`. While that is "auto", the environment variable
RNNPRUNE_PACKED, if set, takes its place; any other option wins over the variable.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    choose_block_shape,
    explain,
    keeps_diagonal,
    stored_values,
)

ENVIRONMENT = "RNNPRUNE_PACKED"
PACKED_CHOICES = ("auto", "dense", "fp32", "bf16", "int16", "int8")
DTYPES = {
    "auto": torch.float32,
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "int16": torch.int16,
    "int8": torch.int8,
}

# (number of weights, density up to which auto packs them), from benchmarks/results/ break_even,
# auto, auto_avx2 and auto_intel: AMD EPYC, Zen 5 with AVX-512 and Zen 3 without, and an Intel Xeon,
# one thread. The lower limit counts.
# int32 CSR, a little above the densities that pruning to 90, 85 and 80 % leaves:
AUTO_MAX_DENSITY = ((2**19, 0.11), (2**20, 0.16), (2**22, 0.21))
# Blocks of the native kernels, where a stored zero costs as much as a weight:
AUTO_MAX_STORED_DENSITY = ((2**17, 0.4), (2**18, 0.5))
# A recurrent layer in such blocks, which is one call, however much of its mask is filled in. It
# wins even at density 1, but a model that was not pruned is left alone.
AUTO_MAX_DENSITY_RECURRENT = ((1, 0.6),)
# On GPUs nothing was measured. An eighth of the bytes holds what pruning to 90 % leaves, whatever
# blocks at the edges add to it. While Python launches a kernel a GPU could read many megabytes, so
# fewer weights than these, 16 MiB of them, are thought not to be worth one.
AUTO_MAX_STORED_DENSITY_GPU = ((2**22, 0.125),)


def check_choice(choice: Any, source: str) -> str:
    """The choice as a string; ValueError, naming its source, if it is not in PACKED_CHOICES."""
    if str(choice) not in PACKED_CHOICES:
        raise ValueError(
            f"pack: expected {source} among {', '.join(PACKED_CHOICES)}, got {str(choice)!r}"
        )
    return str(choice)


def resolve_choice(option: str) -> str:
    """What the option says or, where it says auto, the environment variable."""
    if option != "auto":
        return option
    return check_choice(os.environ.get(ENVIRONMENT) or "auto", ENVIRONMENT)


def reason_to_stay_dense(weights: Sequence[Tensor], gates: int, recurrent: bool) -> str | None:
    """Why packing a layer of these weights would not be faster; None if it should be."""
    elements = sum(weight.numel() for weight in weights)
    shapes = [choose_block_shape(weight, gates, recurrent=recurrent) for weight in weights]
    is_on_gpu = weights[0].is_cuda
    in_blocks = is_on_gpu or all(shape != (1, 1) for shape in shapes)
    if in_blocks and (is_on_gpu or not recurrent):
        pairs = zip(weights, shapes, strict=True)
        kept = sum(stored_values(weight, shape, gates) for weight, shape in pairs)
        measure = "stored density"
        all_limits = AUTO_MAX_STORED_DENSITY_GPU if is_on_gpu else AUTO_MAX_STORED_DENSITY
    else:
        kept = sum(int(weight.count_nonzero()) for weight in weights)
        measure, all_limits = "density", AUTO_MAX_DENSITY
        if in_blocks:
            all_limits = AUTO_MAX_DENSITY_RECURRENT
    limits = [limit for least, limit in all_limits if elements >= least]
    pays = "not measured on GPUs, packing is taken to pay" if is_on_gpu else "packing pays"
    if not limits:
        return f"{elements:,} weights are too few, {pays} from {all_limits[0][0]:,}"
    if kept / elements > limits[-1]:
        return f"{measure} {kept / elements:.3f} is too high, {pays} up to {limits[-1]}"
    return None


def explain_packing(weights: Sequence[Tensor], gates: int, recurrent: bool) -> tuple[bool, str]:
    """Whether `auto` packs a layer of these weights here, and what `pack` would log about it."""
    choice, dtype = "auto", DTYPES["auto"]
    if reason := reason_before_packing(choice, weights, gates, recurrent):
        return False, reason
    matrices = []
    for weight in weights:
        shape = choose_block_shape(weight, gates, dtype, recurrent)
        apart = recurrent and keeps_diagonal(weight, shape, gates)
        matrix = BlockSparseMatrix.from_dense(weight, shape, dtype, gates, apart)
        matrices.append(matrix)
    return describe(matrices, choice)


def reason_before_packing(
    choice: str, weights: Sequence[Tensor], gates: int, recurrent: bool
) -> str | None:
    """Why a layer of these weights stays dense, as far as it can be told before packing."""
    if choice == "dense":
        return "stays dense"
    reason = reason_to_stay_dense(weights, gates, recurrent) if choice == "auto" else None
    return f"stays dense, {reason}" if reason else None


def reason_without_packed_form(gates: int, tensors: Iterable[str]) -> str | None:
    """Why recurrent layers with tensors of these names cannot be packed, or None.

    Of those with one gate the norms tell a ClippedRNN; a plain RNN may be of tanh or ReLU.
    """
    is_clipped = gates == 1 and any(name.startswith("norms.") for name in tensors)
    if gates == 3 or is_clipped:
        return None
    gates_text = "1 gate" if gates == 1 else f"{gates} gates"
    return f"has {gates_text}: only GRUs and clipped-ReLU RNNs with batch norm run packed"


def describe(matrices: Sequence[BlockSparseMatrix], choice: str) -> tuple[bool, str]:
    """Whether packed matrices are to run, and how they do or why not."""
    found = [placement(matrix) for matrix in matrices]
    if choice == "auto" and any(backend == "reference" for backend, _ in found):
        return False, f"stays dense, no fast backend runs on {matrices[0].device}"
    return True, "; ".join([f"packed, {_summary(matrices)}", *(text for _, text in found)])


def placement(matrix: BlockSparseMatrix) -> tuple[str, str]:
    """The backend that runs a matrix, and a text that names it and says why none before it does."""
    x = torch.zeros(1, matrix.shape[1], device=matrix.device)
    passed = []
    for backend, reasons in explain(matrix, x).items():
        if not reasons:
            break
        passed.append(f"{backend} {', '.join(reasons)}")
    (rows, columns), (r, c) = matrix.shape, matrix.block_shape
    why = f" ({'; '.join(passed)})" if passed else ""
    return backend, f"{rows} x {columns} in blocks of {r} x {c} on {backend}{why}"


def _summary(matrices: Sequence[BlockSparseMatrix]) -> str:
    sizes = [rows * columns for rows, columns in (matrix.shape for matrix in matrices)]
    elements = sum(sizes)
    pairs = list(zip(matrices, sizes, strict=True))
    density = sum(matrix.density * size for matrix, size in pairs) / elements
    stored = sum(matrix.stored_density * size for matrix, size in pairs) / elements
    nbytes = sum(matrix.nbytes for matrix in matrices)
    found = f"density {density:.3f}, stored {stored:.3f}, {nbytes:,} bytes"
    return f"{found} (dense fp32 {4 * elements:,})"
