"""BlockSparseMatrix: a pruned weight of which only the blocks with a nonzero are stored.

A weight [M, K] with G gates is cut, gate by gate, into *panels* of r rows; the last panel of a
gate is padded with zero rows, so that no panel straddles two gates. Each panel stores its blocks
of r x c elements, from left to right; a block at the right edge is padded with zeros, too. If every
gate is square, its diagonal may be stored apart: a mask that always keeps it (as LPCNet's does,
arXiv 1810.11846, "Sparse matrices") would otherwise need a block for each few of its elements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from operator import attrgetter
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .blocks import BlockShape, diagonals, pack, split_diagonal
from .validation import (
    check_arrays,
    check_block_shape,
    check_has_diagonal,
    check_state,
    check_weight,
    column_dtype,
    names,
)

T = TypeVar("T")

_ARRAYS = ("pointers", "columns", "values", "scales", "diagonal")
_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32}


@dataclass(frozen=True, eq=False, repr=False)
class BlockSparseMatrix:
    """A matrix [M, K] in panels: made by `from_dense`, read back by `to_dense`, checked when built.

    pointers: int32 [panels + 1]; panel p owns the blocks pointers[p] to pointers[p + 1] - 1.
    columns:  uint16 [blocks] (uint32 beyond 65,536 block columns), ascending in each panel; block
              column j begins at column j * c of the matrix.
    values:   [blocks, r, c] in float32, float16, bfloat16, int16 or int8.
    scales:   float32 [panels, r], with integers only: an element is scale * value.
    diagonal: float32 [M] or None; element i of a gate is added in column i of the gate's row i.
    cache:    what a backend derives from the matrix lives and dies with it, under its own key.
    """

    shape: tuple[int, int]
    block_shape: BlockShape
    gates: int
    pointers: Tensor
    columns: Tensor
    values: Tensor
    scales: Tensor | None = None
    diagonal: Tensor | None = None
    cache: dict[str, Any] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name, array in zip(_ARRAYS, self.arrays, strict=True):
            if isinstance(array, Tensor) and array.is_inference():
                # Of tensors made in inference mode torch does not count the writes.
                with torch.inference_mode(False):
                    object.__setattr__(self, name, array.clone())
        self.validate()

    @classmethod
    def from_dense(
        cls,
        weight: Tensor,
        block_shape: BlockShape = (16, 1),
        dtype: torch.dtype = torch.float32,
        gates: int = 1,
        diagonal: bool = False,
    ) -> BlockSparseMatrix:
        """Packs `weight` [M, K], float32, float16 or bfloat16; it is neither changed nor kept.

        float32 keeps every bit, except that -0.0, which a mask leaves of a negative weight, is a
        zero like any other and comes back as 0.0. Integers are symmetric, with a
        scale per row: its largest |w| / 127 in int8; in int16 / 32,767 or, if that is more, what
        keeps the row's |values| to a sum that kernels can multiply in 32 bits. A block is stored
        when any of its values, in `dtype`, is nonzero. `diagonal` stores the diagonals of the gates
        apart, in float32. ValueError or TypeError for a weight, block shape, dtype or number of
        gates that cannot be packed.
        """
        check_weight(weight, dtype)
        check_block_shape(tuple(weight.shape), block_shape, gates)
        apart = None
        if diagonal:
            check_has_diagonal(tuple(weight.shape), gates)
            weight, apart = split_diagonal(weight.detach(), gates)
        stored, values, scales = pack(weight.detach(), block_shape, gates, dtype)
        return cls(
            shape=tuple(weight.shape),
            block_shape=tuple(block_shape),
            gates=gates,
            pointers=F.pad(stored.sum(1).cumsum(0), (1, 0)).int(),
            columns=stored.nonzero()[:, 1].to(column_dtype(stored.shape[1])),
            values=values,
            scales=scales,
            diagonal=apart,
        )

    def to_dense(self) -> Tensor:
        """The matrix as contiguous float32 [M, K]; integers come back times their scale."""
        (rows, columns), (r, c) = self.shape, self.block_shape
        panels, block_columns = self.grid
        values = self.values.float()
        if self.scales is not None:
            values = values * self.scales[self.panel_of_block, :, None]
        blocks = values.new_zeros(panels, block_columns, r, c)
        blocks[self.panel_of_block, self.columns.long()] = values
        padded = blocks.transpose(1, 2).reshape(self.gates, -1, block_columns * c)
        dense = padded[:, : rows // self.gates, :columns].reshape(rows, columns).contiguous()
        if self.diagonal is not None:
            diagonals(dense, self.gates).add_(self.diagonal.view(self.gates, -1))
        return dense

    def validate(self) -> None:
        """Raises ValueError unless the arrays still describe a matrix."""
        check_arrays(self)

    def to(self, device: torch.device | str) -> BlockSparseMatrix:
        """The same matrix on another device."""
        arrays = (None if array is None else array.to(device) for array in self.arrays)
        return BlockSparseMatrix(self.shape, self.block_shape, self.gates, *arrays)

    @property
    def arrays(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        """Pointers, columns, values, scales and diagonal."""
        return self.pointers, self.columns, self.values, self.scales, self.diagonal

    @cached_property
    def present(self) -> tuple[Tensor, ...]:
        """The arrays that there are."""
        return tuple(array for array in self.arrays if array is not None)

    def derived(self, key: str, make: Callable[[], T]) -> T:
        """What a backend makes of the arrays, kept until they were written to or moved, in `cache`.

        ValueError as in `validate`, before `make` is called: kernels trust what the arrays say.
        """
        before, found = self.cache.get(key, (None, None))
        now = versions(self.present)
        if before != now:
            self.validate()
            found = make()
            self.cache[key] = now, found
        return found

    @property
    def grid(self) -> tuple[int, int]:
        """Number of panels and of block columns."""
        (rows, columns), (r, c) = self.shape, self.block_shape
        return self.gates * ceil(rows // self.gates / r), ceil(columns / c)

    @property
    def panel_of_block(self) -> Tensor:
        """The panel that owns each block, int64 [blocks]."""
        panels = torch.arange(self.grid[0], device=self.device)
        return panels.repeat_interleave(self.pointers.diff().long())

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the stored values."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """The device of the arrays."""
        return self.values.device

    @property
    def density(self) -> float:
        """Fraction of nonzero elements, in [0, 1]."""
        apart = 0 if self.diagonal is None else int(self.diagonal.count_nonzero())
        return (int(self.values.count_nonzero()) + apart) / (self.shape[0] * self.shape[1])

    @property
    def stored_density(self) -> float:
        """Stored values / elements of the matrix: the density plus fill-in and padding."""
        apart = 0 if self.diagonal is None else self.diagonal.numel()
        return (self.values.numel() + apart) / (self.shape[0] * self.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; what backends cache comes on top."""
        return sum(a.numel() * a.element_size() for a in self.arrays if a is not None)

    def state(self) -> dict[str, Any]:
        """All that `from_state` needs: numbers and the arrays themselves."""
        return self._state_with(self.columns.long())

    def _state_with(self, columns: Tensor) -> dict[str, Any]:
        """With columns that are signed: pickle cannot build tensors of unsigned integers."""
        arrays = dict(zip(_ARRAYS, self.arrays, strict=True)) | {"columns": columns}
        return {"shape": self.shape, "block_shape": self.block_shape, "gates": self.gates, **arrays}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> BlockSparseMatrix:
        """The matrix whose `state()` it is; ValueError if it is none."""
        check_state(state, ("shape", "block_shape", "gates"), _ARRAYS)
        shape, block_shape = (
            tuple(sizes) if isinstance(sizes, (tuple, list)) else sizes
            for sizes in (state["shape"], state["block_shape"])
        )
        check_block_shape(shape, block_shape, state["gates"])
        columns = state["columns"]
        if columns is not None:
            columns = columns.to(column_dtype(ceil(shape[1] / block_shape[1])))
            if not torch.equal(columns.long(), state["columns"]):
                raise ValueError(
                    "BlockSparseMatrix: expected columns within the matrix, got others"
                )
        return cls(**{**state, "shape": shape, "block_shape": block_shape, "columns": columns})

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy begins with an empty cache: torch, for one, cannot copy CSR tensors. Arrays are
        # handed to another process as they lie in memory, so nothing here may be a copy.
        return _unpickled, (self._state_with(self.columns.view(_SIGNED[self.columns.dtype])),)

    def __repr__(self) -> str:
        (rows, columns), (r, c) = self.shape, self.block_shape
        return (
            f"BlockSparseMatrix({rows} x {columns}, gates={self.gates}, blocks={r} x {c}, "
            f"{names((self.dtype,))}, density={self.density:.3f}, stored={self.stored_density:.3f}"
            f"{'' if self.diagonal is None else ', diagonal apart'})"
        )


_version = attrgetter("_version")


def versions(arrays: Sequence[Tensor]) -> list[int]:
    """What changes when somebody writes to the arrays, resizes them or moves them to other memory.

    Sharing an array with another process moves it. Not seen is what is written behind torch's back,
    through `.data`, numpy or a pointer.
    """
    # Every call comes by here, and this is the quickest way.
    return [*map(_version, arrays), *map(Tensor.data_ptr, arrays)]


def _unpickled(state: dict[str, Any]) -> BlockSparseMatrix:
    """The matrix of `__reduce__`; ValueError if it is none."""
    check_state(state, ("shape", "block_shape", "gates"), _ARRAYS)
    unsigned = {signed: dtype for dtype, signed in _SIGNED.items()}
    columns = state["columns"]
    if getattr(columns, "dtype", None) in unsigned:
        columns = columns.view(unsigned[columns.dtype])
    return BlockSparseMatrix(**{**state, "columns": columns})
