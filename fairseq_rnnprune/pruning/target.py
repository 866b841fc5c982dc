"""The sparsity that a schedule ends with, and whether masks have it."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING

from .schedule import Schedule

if TYPE_CHECKING:
    from .pruner import Pruner

# Beside one block, to which a target is met; a ramp with q from its own run ends within a point.
TOLERANCE = 0.01


def target_of(schedule: Schedule) -> float | tuple[float, ...] | None:
    """The final sparsity, maybe by gate; None for a ramp, whose q leads to it."""
    return getattr(schedule, "final", None)


def misses_target(pruner: Pruner, type: str) -> bool:
    """Whether a type, or all that share its target, is less sparse than its schedule says."""
    return _beyond_target(pruner, type) < 0


def passes_target(pruner: Pruner, type: str) -> bool:
    """Whether a type, or all that share its target, is sparser than its schedule says."""
    return _beyond_target(pruner, type) > 0


def _beyond_target(pruner: Pruner, type: str) -> float:
    """By how much the sparsity is more than asked for; 0 within a block and TOLERANCE."""
    final = target_of(pruner.schedules[type])
    if final is None:
        return 0.0
    target = mean(final) if isinstance(final, tuple) else final
    shared = pruner.allocation != "uniform"
    weights = pruner.weights if shared else pruner.of_type(type)
    block = max(int(w.sizes.max()) / w.weight.numel() for w in weights)
    beyond = pruner.sparsity(None if shared else type) - target
    return beyond if abs(beyond) > block + TOLERANCE else 0.0
