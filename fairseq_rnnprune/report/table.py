"""Rows of `rnnprune report`: where the zeros of a checkpoint are, and what they save."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fairseq_rnnprune.checkpoint import Checkpoint
from fairseq_rnnprune.pruning import (
    TYPES,
    Prunable,
    check_block_shape,
    find_prunable,
    mask_from_zeros,
    tensor_identity,
)
from fairseq_rnnprune.sparse import BlockSparseMatrix

from .inference import PACKED_TYPES, explain_inference

BlockShape = tuple[int, int]

# The orders in which torch.nn.GRU and torch.nn.LSTM stack their gates; without any, the new state.
_GATE_NAMES = {1: ("h",), 3: ("r", "z", "n"), 4: ("i", "f", "g", "o")}

PACKED_DTYPE = torch.float32


@dataclass(frozen=True)
class Row:
    """Counts of one tensor, one gate of it, or a group of tensors.

    `kept` elements are not zero; `kept_blocks` have such an element. `stored_bytes` is what the
    weights take packed, or dense where that is smaller. None: has no meaning for this row.
    """

    name: str
    elements: int
    kept: int
    dense_bytes: int
    stored_bytes: int
    packed: bool | None = None
    blocks: int | None = None
    kept_blocks: int | None = None
    type: str | None = None
    gate: str | None = None
    shape: tuple[int, ...] | None = None

    @property
    def sparsity(self) -> float:
        """Fraction of zeros among the elements, in [0, 1]."""
        return (self.elements - self.kept) / self.elements if self.elements else 0.0

    @property
    def block_sparsity(self) -> float | None:
        """Fraction of blocks that are wholly zero, in [0, 1]."""
        return (self.blocks - self.kept_blocks) / self.blocks if self.blocks else None


@dataclass(frozen=True)
class CheckpointReport:
    """Rows of one checkpoint: each tensor followed by its gates; then the totals.

    `inference` says by layer how it runs on this machine, and why, if it is one of this package:
    as far as is known, `model_name` is what fairseq calls the model.
    """

    path: Path
    label: str
    updates: int | None
    epochs: float | None
    block_shapes: dict[str, BlockShape]
    tensors: list[Row]
    totals: list[Row]
    inference: dict[str, str]
    model_name: str | None = None


def report_checkpoint(
    checkpoint: Checkpoint,
    types: Iterable[str] = TYPES,
    block_shapes: Mapping[str, BlockShape] | None = None,
    label: str = "",
) -> CheckpointReport:
    """Counts every prunable matrix of the given types, by gate, and the whole model.

    Where `block_shapes` says nothing about a type, it is the shape with which the model was
    trained, as the optimizer's state tells, or else 1 x 1. ValueError if a block does not fit.
    """
    shapes = dict.fromkeys(TYPES, (1, 1)) | checkpoint.block_shapes | (block_shapes or {})
    prunables = find_prunable(checkpoint.model)
    types = tuple(types)
    tensors: list[Row] = []
    others: list[Row] = []
    by_type: dict[str, list[Row]] = {}
    for p in prunables:
        rows = _tensor_rows(p, checkpoint.model[p.name], shapes[p.type])
        if p.type in types:
            tensors += rows
            by_type.setdefault(p.type, []).append(rows[0])
        else:
            others.append(rows[0])
    if not tensors:
        raise ValueError(
            f"report_checkpoint: expected weights of type {', '.join(types)}, got "
            f"{checkpoint.path} with {', '.join(sorted({p.type for p in prunables})) or 'none'}"
        )
    totals = [_total(f"all {t}", by_type[t], t) for t in TYPES if t in by_type]
    if others:
        totals.append(_total("other types", others))
    never = [_unpruned_row(n, t) for n, t in _never_pruned(checkpoint.model, prunables)]
    totals.append(_total("never pruned", never))
    totals.append(_total("whole model", totals))
    used = {t: shapes[t] for t in TYPES if t in by_type}
    return CheckpointReport(
        *(checkpoint.path, label, checkpoint.updates, checkpoint.epochs, used, tensors, totals),
        inference=explain_inference(checkpoint.model, prunables),
        model_name=checkpoint.option("model", "_name") or checkpoint.option("model", "arch"),
    )


def gate_names(gates: int) -> tuple[str, ...]:
    """The names of so many gates, in the order of their rows."""
    return _GATE_NAMES.get(gates) or tuple(map(str, range(gates)))


def _tensor_rows(p: Prunable, weight: Tensor, block_shape: BlockShape) -> list[Row]:
    check_block_shape(tuple(weight.shape), block_shape, p.gates, p.name)
    pieces: list[tuple[str | None, Tensor, int]] = [(None, weight, p.gates)]
    if p.gates > 1:
        names = gate_names(p.gates)
        pieces += [(n, w, 1) for n, w in zip(names, weight.chunk(p.gates), strict=True)]
    rows = [_count(p, gate, w, block_shape, gates) for gate, w, gates in pieces]
    dense_bytes = rows[0].dense_bytes
    if p.type not in PACKED_TYPES or _least_packed_bytes(rows[0], block_shape) >= dense_bytes:
        return rows
    sizes = [
        BlockSparseMatrix.from_dense(w.float(), block_shape, PACKED_DTYPE, gates).nbytes
        for _, w, gates in pieces
    ]
    if sizes[0] >= dense_bytes:
        return rows
    return [
        replace(row, stored_bytes=size, packed=True) for row, size in zip(rows, sizes, strict=True)
    ]


def _count(
    p: Prunable, gate: str | None, weight: Tensor, block_shape: BlockShape, gates: int
) -> Row:
    """A row of a tensor or gate that is stored dense."""
    mask = mask_from_zeros(weight, block_shape, gates)
    size = weight.numel() * weight.element_size()
    return Row(
        name=p.name,
        elements=weight.numel(),
        kept=int(weight.count_nonzero()),
        dense_bytes=size,
        stored_bytes=size,
        packed=False,
        blocks=mask.numel(),
        kept_blocks=int(mask.sum()),
        type=p.type,
        gate=gate,
        shape=tuple(weight.shape),
    )


def _least_packed_bytes(row: Row, block_shape: BlockShape) -> int:
    """Values and 16-bit columns alone: packing what is nearly dense is slow and cannot pay."""
    return row.kept_blocks * (block_shape[0] * block_shape[1] * PACKED_DTYPE.itemsize + 2)


def _unpruned_row(name: str, tensor: Tensor) -> Row:
    """A row of a tensor whose zeros, if any, are values."""
    size = tensor.numel() * tensor.element_size()
    return Row(name, tensor.numel(), tensor.numel(), size, size)


def _never_pruned(
    model: Mapping[str, Tensor], prunables: Iterable[Prunable]
) -> list[tuple[str, Tensor]]:
    """Floating-point tensors that are not prunable, each storage once."""
    seen = {tensor_identity(model[p.name]) for p in prunables}
    rest = []
    for name, tensor in model.items():
        if tensor.is_floating_point() and tensor_identity(tensor) not in seen:
            seen.add(tensor_identity(tensor))
            rest.append((name, tensor))
    return rest


def _total(name: str, rows: list[Row], type: str | None = None) -> Row:
    def add(field: str) -> int:
        return sum(getattr(r, field) for r in rows)

    return Row(
        name=name,
        elements=add("elements"),
        kept=add("kept"),
        dense_bytes=add("dense_bytes"),
        stored_bytes=add("stored_bytes"),
        blocks=add("blocks") if type else None,
        kept_blocks=add("kept_blocks") if type else None,
        type=type,
    )
