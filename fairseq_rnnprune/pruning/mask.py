"""Block masks: score the blocks of a matrix, choose the lowest, expand the choice to elements.

A weight [M, K] with G gates is cut, gate by gate, into blocks of r x c elements; the blocks at
the lower and right edge of a gate may be ragged. Whatever is said per block has the shape
[G, ceil(M / G / r), ceil(K / c)]; in a block mask, True means keep.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BlockShape = tuple[int, int]
SCORES = ("max", "mean", "l2")


def check_block_shape(
    shape: tuple[int, int], block_shape: BlockShape, gates: int = 1, name: str = "weight"
) -> None:
    """Raises ValueError unless blocks of `block_shape` fit into each gate of `shape`."""
    if len(shape) != 2 or gates < 1 or shape[0] % gates:
        raise ValueError(
            f"check_block_shape: expected {name} to be a matrix of {gates} equal gates, "
            f"got shape {tuple(shape)}"
        )
    rows, columns = shape[0] // gates, shape[1]
    if not (1 <= block_shape[0] <= rows and 1 <= block_shape[1] <= columns):
        raise ValueError(
            f"check_block_shape: expected a block shape within {rows} x {columns}, one gate of "
            f"{name}, got {block_shape[0]} x {block_shape[1]}; choose a smaller block"
        )


def block_scores(
    weight: Tensor, block_shape: BlockShape = (1, 1), gates: int = 1, score: str = "max"
) -> Tensor:
    """Importance of every block of `weight`: the higher, the later it is pruned.

    `max` is the largest |w| (arXiv 1711.02782, section 3.1), `mean` the mean |w|, `l2` the root
    mean square, which orders full blocks as their L2 norms do. Of few elements at a ragged edge the
    largest is smaller, and means spread more: of equal weights `max` keeps fewer there than
    elsewhere, the others more.
    """
    if score not in SCORES:
        raise ValueError(f"block_scores: expected a score among {SCORES}, got {score!r}")
    magnitude = weight.detach().abs()
    if block_shape == (1, 1):
        return magnitude.view(gates, -1, weight.shape[1])
    if score == "max":
        return _cut(magnitude, block_shape, gates).amax(dim=(2, 4))
    sizes = block_sizes(tuple(weight.shape), block_shape, gates).to(weight.device)
    if score == "mean":
        return _cut(magnitude, block_shape, gates).sum(dim=(2, 4)) / sizes
    return (_cut(magnitude.square(), block_shape, gates).sum(dim=(2, 4)) / sizes).sqrt()


def block_sizes(shape: tuple[int, int], block_shape: BlockShape = (1, 1), gates: int = 1) -> Tensor:
    """Number of elements in every block, int64; smaller at ragged edges."""
    check_block_shape(shape, block_shape, gates)
    rows = _extents(shape[0] // gates, block_shape[0])
    columns = _extents(shape[1], block_shape[1])
    if rows[-1] == block_shape[0] and columns[-1] == block_shape[1]:
        # One number seen from everywhere: a size per weight would need 8 bytes each.
        return rows[0].mul(columns[0]).expand(gates, len(rows), len(columns))
    return (rows[:, None] * columns).expand(gates, -1, -1)


def expand_mask(
    block_mask: Tensor,
    shape: tuple[int, int],
    block_shape: BlockShape = (1, 1),
    gates: int = 1,
) -> Tensor:
    """The element mask [M, K] of a block mask, in the block mask's dtype."""
    rows = shape[0] // gates
    if block_shape != (1, 1):
        block_mask = block_mask.repeat_interleave(block_shape[0], 1)[:, :rows]
        block_mask = block_mask.repeat_interleave(block_shape[1], 2)[:, :, : shape[1]]
    return block_mask.reshape(shape)


def mask_from_zeros(weight: Tensor, block_shape: BlockShape = (1, 1), gates: int = 1) -> Tensor:
    """The block mask that a weight's own zeros imply: a block is dropped if it is all zero."""
    return block_scores(weight, block_shape, gates) != 0


def select_lowest(scores: Tensor, sizes: Tensor, count: int) -> Tensor:
    """Chooses the lowest-scoring blocks that together hold at most `count` elements.

    `scores` and `sizes` have one entry per block. Returns bool, True = chosen. The choice falls
    short of `count` by less than one block. Equal scores are resolved by position, so that
    every process of a distributed run chooses the same.
    """
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat_scores, flat_sizes = scores.flatten(), sizes.flatten()
    total = int(flat_sizes.sum())
    if count >= total:
        return torch.ones_like(scores, dtype=torch.bool)
    # The score of the element of rank `count`: every block below it is chosen as a whole.
    if total == flat_sizes.numel():
        by_element = flat_scores
    else:
        by_element = flat_scores.repeat_interleave(flat_sizes)
    pivot = by_element.kthvalue(count).values
    chosen = flat_scores < pivot
    ties = (flat_scores == pivot).nonzero().flatten()
    room = count - int((flat_sizes * chosen).sum())
    chosen[ties[flat_sizes[ties].cumsum(0) <= room]] = True
    return chosen.view(scores.shape)


def whole_part(sparsity: float, total: int) -> int:
    """How many whole elements the fraction `sparsity` of `total` has."""
    # 0.29 * 100 is 28.999...: an element is not to be lost to rounding.
    return int(sparsity * total + 1e-6)


def quantile(scores: Tensor, sizes: Tensor, sparsity: float, total: int | None = None) -> float:
    """The threshold below which the fraction `sparsity`, in [0, 1), of all elements lies.

    It is the exact quantile of the block scores, each counted once per element. Where scores are
    equal, and with blocks, less lies below it. `total` elements there are, more than the blocks
    hold if some are in none; at most all but the best block lie below the threshold.
    """
    in_blocks = int(sizes.sum())
    count = whole_part(sparsity, in_blocks if total is None else total)
    lowest = select_lowest(scores, sizes, min(count, in_blocks - 1))
    return float(scores[~lowest].min())


def _cut(values: Tensor, block_shape: BlockShape, gates: int) -> Tensor:
    """Views [M, K] as [G, block rows, r, block columns, c], zeros filling the ragged edges."""
    check_block_shape(tuple(values.shape), block_shape, gates)
    r, c = block_shape
    by_gate = values.view(gates, -1, values.shape[1])
    padded = F.pad(by_gate, (0, -by_gate.shape[2] % c, 0, -by_gate.shape[1] % r))
    return padded.unflatten(2, (-1, c)).unflatten(1, (-1, r))


def _extents(length: int, step: int) -> Tensor:
    """Lengths of the pieces when `length` is cut every `step`."""
    return (
        torch.full((-(-length // step),), step)
        .cumsum(0)
        .clamp(max=length)
        .diff(prepend=torch.zeros(1, dtype=torch.int64))
    )
