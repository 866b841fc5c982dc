"""The weights of a model as arrays for a file: matrices in the packed form that takes least."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any

import torch
from torch import Tensor

from fairseq_rnnprune.pruning import find_prunable, tensor_identity
from fairseq_rnnprune.sparse import BlockShape, BlockSparseMatrix, cpu, stored_values
from fairseq_rnnprune.sparse.blocks import diagonals
from fairseq_rnnprune.sparse.validation import column_dtype

# (1, 1) is for scattered masks.
BLOCK_SHAPES: tuple[BlockShape, ...] = (*cpu.BLOCK_SHAPES, (1, 1))
_ARRAYS = ("pointers", "columns", "values")
_SOME_ARRAYS = ("scales", "diagonal")


def to_arrays(
    model: Mapping[str, Tensor], dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The arrays of a state dict by name, and what else tells how to make it again.

    Prunable matrices get values of `dtype` (float32: as precise as they are), in blocks where that
    takes less; biases and the like are float32, everything else stays as it is. Tied tensors are
    stored once.
    """
    prunable = {p.name: p for p in find_prunable(model)}
    arrays: dict[str, Tensor] = {}
    packed: dict[str, Any] = {}
    tied: dict[str, str] = {}
    first_names: dict[Any, str] = {}
    for name, tensor in model.items():
        place = tensor_identity(tensor) if tensor.numel() else name
        first = first_names.setdefault(place, name)
        if first != name:
            tied[name] = first
            continue
        if name not in prunable:
            # Views of one storage, as cuDNN makes them, are not what safetensors writes.
            kept = torch.float32 if tensor.is_floating_point() else tensor.dtype
            arrays[name] = tensor.to(kept, memory_format=torch.contiguous_format, copy=True)
            continue
        values = tensor.dtype if dtype == torch.float32 else dtype
        matrix = _smallest(tensor, values, prunable[name].gates)
        if matrix is None:
            arrays[name] = tensor.to(values, memory_format=torch.contiguous_format, copy=True)
            continue
        packed[name] = {
            "shape": list(matrix.shape),
            "block_shape": list(matrix.block_shape),
            "gates": matrix.gates,
        }
        for kind in (*_ARRAYS, *_SOME_ARRAYS):
            if (array := getattr(matrix, kind)) is not None:
                arrays[f"{name}/{kind}"] = array
    return arrays, {"packed": packed, "tied": tied, "names": list(model)}


def from_arrays(arrays: Mapping[str, Tensor], layout: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict that `to_arrays` was given, packed matrices in float32.

    KeyError or ValueError if the arrays are not those that the layout tells of.
    """
    model: dict[str, Tensor] = {}
    for name in layout["names"]:
        if name in layout["tied"]:
            model[name] = model[layout["tied"][name]]
        elif name in layout["packed"]:
            how = layout["packed"][name]
            matrix = BlockSparseMatrix(
                tuple(how["shape"]),
                tuple(how["block_shape"]),
                how["gates"],
                *(arrays[f"{name}/{kind}"] for kind in _ARRAYS),
                *(arrays.get(f"{name}/{kind}") for kind in _SOME_ARRAYS),
            )
            model[name] = matrix.to_dense()
        else:
            tensor = arrays[name]
            model[name] = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return model


def _smallest(weight: Tensor, dtype: torch.dtype, gates: int) -> BlockSparseMatrix | None:
    """The packed form of the fewest bytes; None if the dense matrix in `dtype` has fewer."""
    is_square = weight.shape[0] == gates * weight.shape[1]
    forms = [
        (shape, diagonal)
        for shape in BLOCK_SHAPES
        for diagonal in ([False, True] if is_square else [False])
        if shape[0] <= weight.shape[0] // gates and shape[1] <= weight.shape[1]
    ]
    sizes = {form: _bytes(weight, *form, dtype, gates) for form in forms}
    best = min(sizes, key=sizes.__getitem__)
    # Integers have no dense form: their scales are part of the packed one.
    if dtype.is_floating_point and sizes[best] >= weight.numel() * dtype.itemsize:
        return None
    shape, diagonal = best
    return BlockSparseMatrix.from_dense(weight, shape, dtype, gates, diagonal)


def _bytes(
    weight: Tensor, shape: BlockShape, diagonal: bool, dtype: torch.dtype, gates: int
) -> int:
    """What BlockSparseMatrix would take, without making it."""
    is_nonzero = weight.ne(0)
    if diagonal:
        diagonals(is_nonzero, gates).zero_()
    values = stored_values(is_nonzero, shape, gates)
    blocks, panels = values // (shape[0] * shape[1]), gates * ceil(len(weight) // gates / shape[0])
    return (
        values * dtype.itemsize
        + blocks * column_dtype(ceil(weight.shape[1] / shape[1])).itemsize
        + 4 * (panels + 1)
        + (4 * panels * shape[0] if not dtype.is_floating_point else 0)
        + (4 * len(weight) if diagonal else 0)
    )
