"""Which matrix gives how much of a target sparsity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .mask import select_lowest, whole_part
from .masked_weight import MaskedWeight
from .ramp import RAMPS
from .schedule import Schedule

# Each matrix its target, or all together: by their scores as they are, or by lamp_scores.
ALLOCATIONS = ("uniform", "global", "lamp")


def check_allocation(allocation: str, schedules: Sequence[Schedule]) -> None:
    """Raises ValueError for an unknown allocation, or one that needs other schedules by type."""
    if allocation not in ALLOCATIONS:
        raise ValueError(f"Pruner: expected an allocation among {ALLOCATIONS}, got {allocation!r}")
    if allocation != "uniform" and not has_one_target(schedules):
        raise ValueError(
            f"Pruner: expected one target sparsity for all weights with {allocation} allocation, "
            f"got {', '.join(map(str, dict.fromkeys(schedules)))}; give a schedule with targets "
            "such as cubic and a single sparsity, or take uniform allocation"
        )


def has_one_target(schedules: Sequence[Schedule]) -> bool:
    """Tells whether all weights aim at one sparsity at a time, which they could share out."""
    first = schedules[0]
    is_target = not isinstance(first, RAMPS) and not isinstance(first.final, tuple)
    return is_target and all(s == first for s in schedules)


def lowest_blocks(
    weights: Sequence[MaskedWeight],
    scores: Sequence[Tensor],
    sparsity: float | tuple[float, ...],
    allocation: str,
) -> list[Tensor]:
    """The lowest blocks, bool by weight, that hold the fraction `sparsity` of the elements.

    Of the elements of each weight (`uniform`, where `sparsity` may be one per gate) or of all
    together: `global` compares block scores of different matrices as they are (class-blind pruning,
    arXiv 1606.09274, section 3.2), `lamp` compares `lamp_scores`.
    """
    if allocation == "uniform":
        return [w.lowest(s, sparsity) for w, s in zip(weights, scores, strict=True)]
    if allocation == "lamp":
        scores = [lamp_scores(s, w.sizes) for w, s in zip(weights, scores, strict=True)]
    flat = torch.cat([s.flatten() for s in scores])
    sizes = torch.cat([w.sizes.flatten() for w in weights])
    count = whole_part(sparsity, sum(w.weight.numel() for w in weights))
    chosen = select_lowest(flat, sizes, count).split([s.numel() for s in scores])
    return [c.view(s.shape) for c, s in zip(chosen, scores, strict=True)]


def lamp_scores(scores: Tensor, sizes: Tensor) -> Tensor:
    """Layer-adaptive scores of one matrix, float64 in [0, 1]; pruned blocks keep theirs, below 0.

    The squared score of a block over the sum of those not below it, each times the elements of its
    block: what an element of it would cost, relative to what would be left (arXiv 2010.07611,
    section 2). The highest score of every matrix is 1, so none is emptied before all are.
    """
    squares = scores.double().clamp(min=0).square().flatten()
    rising, order = squares.sort(stable=True)
    left = (rising * sizes.flatten()[order]).flip(0).cumsum(0).flip(0)
    lamp = torch.empty_like(squares)
    # A matrix of zeros has nothing left either.
    lamp[order] = rising / left.clamp(min=torch.finfo(torch.float64).tiny)
    lamp[order[-1]] = rising[-1] > 0
    return torch.where(scores < 0, scores.double(), lamp.view(scores.shape))
