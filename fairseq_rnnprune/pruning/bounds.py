"""How far a ramp with a given q may go: a threshold that prunes too much or too little is moved."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field

from torch import Tensor

from .mask import quantile
from .ramp import RampSchedule

logger = logging.getLogger(__name__)


@dataclass
class Bounds:
    """The sparsity of a type that holds a ramp, and the one that it ends at or above."""

    max_sparsity: float = 0.95
    min_sparsity: float = 0.0
    # Types of which a warning has said so: their threshold moves with their weights from then on.
    _told: set[str] = field(default_factory=set, init=False)

    def __post_init__(self) -> None:
        if not 0 < self.max_sparsity < 1:
            raise ValueError(f"Pruner: expected max_sparsity in (0, 1), got {self.max_sparsity}")
        if not 0 <= self.min_sparsity <= self.max_sparsity:
            raise ValueError(
                f"Pruner: expected min_sparsity in [0, max_sparsity = {self.max_sparsity}], got "
                f"{self.min_sparsity}"
            )

    def threshold(
        self, schedule: RampSchedule, n: int, type: str, scores: Tensor, sizes: Tensor, total: int
    ) -> float:
        """The threshold of a type after update `n`.

        `scores` and `sizes` are those of all blocks of the type, flat, of whose `total` elements
        some may be in no block.
        """
        asked = schedule.threshold(n)
        below = int((sizes * (scores < asked)).sum()) / total
        # Algorithm 1 has no brake: a slope that is too steep would prune everything.
        is_held = below > self.max_sparsity
        if is_held:
            change, bound, sparsity = "is held at", "max_sparsity", self.max_sparsity
        elif schedule.is_last(n) and below < self.min_sparsity:
            change, bound, sparsity = "is raised to", "min_sparsity", self.min_sparsity
        else:
            return asked
        # Below 0 are the scores of what is pruned, which may be more by now.
        threshold = max(0.0, quantile(scores, sizes, sparsity, total))
        if not (is_held and type in self._told):
            logger.warning(
                "update %d: the threshold of %s weights %s %.3g, where their sparsity reaches "
                "%s = %g; the schedule asked for %.3g, which prunes %.1f %%",
                *(n, type, change, threshold, bound, sparsity, asked, 100 * below),
            )
        self._told |= {type} if is_held else set()
        return threshold
