"""The sparsity that a schedule ends with, and whether masks have it."""

from __future__ import annotations

from math import floor
from statistics import mean
from typing import TYPE_CHECKING

from .mask import whole_part
from .masked_weight import MaskedWeight, sparsity_of
from .ramp import RAMPS
from .schedule import Schedule

if TYPE_CHECKING:
    from .pruner import Pruner

# Beside one block, to which a target is met; a ramp with q from its own run ends within a point.
TOLERANCE = 0.01


def target_of(schedule: Schedule) -> float | tuple[float, ...] | None:
    """The final sparsity, maybe by gate; None for a ramp, whose q leads to it."""
    return getattr(schedule, "final", None)


def check_reachable(pruner: Pruner) -> None:
    """ValueError for a target beyond what the blocks hold, of which a kept diagonal is no part."""
    for w in pruner.weights:
        if w.diagonal is None:
            continue
        schedule = pruner.schedules[w.type]
        final, is_ramp = target_of(schedule), isinstance(schedule, RAMPS)
        if final is None:
            final = pruner.bounds.min_sparsity
        weights = _sharing(pruner, w.type) if is_ramp or pruner.allocation != "uniform" else [w]
        # A target by gate is one of each gate, and those of a weight with a diagonal are alike.
        parts, highest = (w.gates, max(final)) if isinstance(final, tuple) else (1, final)
        total = sum(other.weight.numel() for other in weights) // parts
        held = sum(int(other.sizes.sum()) for other in weights) // parts
        if whole_part(highest, total) > held:
            most = floor(1e4 * held / total) / 1e4
            raise ValueError(
                f"Pruner: expected a sparsity of at most {most} where the diagonal of {w.name} is "
                f"kept, got {highest}; ask for less, or leave keep_diagonal out"
            )


def _sharing(pruner: Pruner, type: str) -> list[MaskedWeight]:
    """The weights that meet the target of a type together."""
    return pruner.weights if pruner.allocation != "uniform" else pruner.of_type(type)


def meets_target(pruner: Pruner, type: str) -> bool:
    """Whether a type, or all that share its target, is as sparse as its schedule says."""
    return target_of(pruner.schedules[type]) is not None and not misses_target(pruner, type)


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
    weights = _sharing(pruner, type)
    block = max(int(w.sizes.max()) / w.weight.numel() for w in weights)
    beyond = sparsity_of(weights) - target
    return beyond if abs(beyond) > block + TOLERANCE else 0.0
