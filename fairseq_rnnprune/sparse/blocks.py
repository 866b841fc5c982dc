"""Cutting a weight into panels and blocks, and converting what is stored of it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .validation import MAX_INT16_ROW, check_values_finite

BlockShape = tuple[int, int]
# Elements: few beside those of any layer that is worth packing.
PACKED_AT_ONCE = 2**20


def diagonals(weight: Tensor, gates: int) -> Tensor:
    """A view [G, H] of the diagonals of a weight [G * H, H]."""
    return weight.view(gates, -1, weight.shape[1]).diagonal(dim1=1, dim2=2)


def split_diagonal(weight: Tensor, gates: int) -> tuple[Tensor, Tensor]:
    """A copy of weight [G * H, H] with zeros on its diagonals, and these, float32 [G * H]."""
    rest = weight.clone(memory_format=torch.contiguous_format)
    diagonal = diagonals(rest, gates)
    apart = diagonal.float().flatten() + 0.0
    diagonal.zero_()
    return rest, apart


def rows_of_panels(weight: Tensor, block_shape: BlockShape, gates: int) -> Iterator[Tensor]:
    """The rows of some panels at a time, from the first to the last.

    What packing them takes on the way is several times their own memory.
    """
    height = max(1, PACKED_AT_ONCE // (block_shape[0] * weight.shape[1])) * block_shape[0]
    for gate in weight.chunk(gates):
        yield from gate.split(height)


def cut(rows: Tensor, block_shape: BlockShape) -> Tensor:
    """All blocks of the rows of some panels, zeros included: [panels, block columns, r, c]."""
    (height, columns), (r, c) = rows.shape, block_shape
    padded = F.pad(rows, (0, -columns % c, 0, -height % r))
    return padded.reshape(-1, r, padded.shape[1] // c, c).transpose(1, 2)


def pack(
    weight: Tensor, block_shape: BlockShape, gates: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Which blocks are stored, bool [panels, block columns], their values, and integers' scales."""
    stored, values, scales = [], [], []
    for rows in rows_of_panels(weight, block_shape, gates):
        blocks, scale = _convert(cut(rows, block_shape), dtype)
        is_stored = blocks.ne(0).flatten(2).any(2)
        stored.append(is_stored)
        values.append(blocks[is_stored])
        scales += [] if scale is None else [scale]
    return torch.cat(stored), torch.cat(values), torch.cat(scales) if scales else None


def _convert(blocks: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """The blocks in `dtype` and, for integers, the scale of every row [panels, r]."""
    if dtype.is_floating_point:
        values = blocks.to(dtype)
        check_values_finite(values)
        # Adding 0.0 turns -0.0 into 0.0 and leaves every other value as it is.
        return values + 0.0, None
    blocks = blocks.float()
    sizes, largest = blocks.abs(), torch.iinfo(dtype).max
    scales = sizes.amax(dim=(1, 3)) / largest
    if dtype == torch.int16:
        # Rounding adds up to a half to each.
        columns = blocks.shape[1] * blocks.shape[3]
        most = MAX_INT16_ROW - min(columns, MAX_INT16_ROW) / 2
        scales = scales.maximum(sizes.sum(dim=(1, 3), dtype=torch.float64).div(most).float())
    # A scale must not vanish, however small the weights: rows of zeros and subnormals get `tiny`.
    scales = scales.clamp(min=torch.finfo(torch.float32).tiny)
    values = (blocks / scales[:, None, :, None]).round()
    return values.clamp(-largest, largest).to(dtype), scales
