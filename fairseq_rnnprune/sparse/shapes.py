"""The block shape in which a pruned weight runs fastest, read from its zeros."""

from __future__ import annotations

from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor

from . import cpu
from .matrix import BlockShape, split_diagonal

SINGLE_ELEMENTS: BlockShape = (1, 1)
# Time of a nonzero in torch's CSR product, of a value in a block of the native kernels 1.
CSR_COST = 2.5
# The int8 kernel that takes activations in 8 bits, too, is far ahead of the others.
INT8_COSTS = {(16, 4): 0.5}


def choose_block_shape(
    weight: Tensor, gates: int = 1, dtype: torch.dtype = torch.float32
) -> BlockShape:
    """The block shape to pack `weight` [M, K] with, from how many values each would store.

    A mask in blocks is found again, with little or no fill-in. Unstructured masks get (1, 1), for
    which torch's CSR product is the backend, and so does everything the native kernels cannot run.
    Of equal shapes the larger one is chosen, because it has fewer column indices.
    """
    if weight.device.type != "cpu" or cpu.unavailable_reasons() or dtype not in cpu.DTYPES:
        return SINGLE_ELEMENTS
    best, least = SINGLE_ELEMENTS, CSR_COST * int(weight.count_nonzero())
    for r, c in cpu.BLOCK_SHAPES:
        if r > weight.shape[0] // gates or c > weight.shape[1]:
            continue
        cost = float(stored_values(weight, (r, c), gates))
        if dtype == torch.int8:
            cost *= INT8_COSTS.get((r, c), 1.0)
        if cost < least or (cost == least and r * c > best[0] * best[1]):
            best, least = (r, c), cost
    return best


def keeps_diagonal(weight: Tensor, block_shape: BlockShape, gates: int = 1) -> bool:
    """Whether a recurrent weight [G * H, H] stores fewer values with its diagonals apart."""
    if weight.shape[0] != gates * weight.shape[1]:
        return False
    rest, apart = split_diagonal(weight.detach(), gates)
    saved = stored_values(weight, block_shape, gates) - stored_values(rest, block_shape, gates)
    return saved > apart.numel()


def stored_values(weight: Tensor, block_shape: BlockShape, gates: int = 1) -> int:
    """How many values a packed `weight` stores: of every block with a nonzero, all of them."""
    (rows, columns), (r, c) = weight.shape, block_shape
    height = rows // gates
    is_nonzero = weight.detach().ne(0).view(gates, height, columns)
    padded = F.pad(is_nonzero, (0, -columns % c, 0, -height % r))
    blocks = padded.reshape(gates, ceil(height / r), r, ceil(columns / c), c)
    return int(blocks.any(4).any(2).sum()) * r * c
