"""Whether a training can reach, or has reached, what its options say; where not, a warning."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence

from torch import Tensor

from fairseq_rnnprune.pruning import (
    Prunable,
    Pruner,
    meets_target,
    misses_target,
    passes_target,
)

logger = logging.getLogger(__name__)

# A share of zeros that no training leaves by itself.
MANY_ZEROS = 0.1


def warn_at_start(pruner: Pruner, total: int | None) -> None:
    """As `warn_of_the_end`; and warns of zeros that no mask keeps or that are more than wanted."""
    warn_of_the_end(pruner, total)
    for w in pruner.weights:
        if w.kept == 0:
            logger.warning(
                "%s is all zeros, which count as pruned and stay so; where they are but its first "
                "values, leave its type out of --prune-types",
                w.name,
            )
        in_kept = (w.kept - int(w.weight.count_nonzero())) / w.weight.numel()
        if in_kept > MANY_ZEROS and max(w.block_shape) > 1:
            logger.warning(
                "%.1f %% of %s are zeros, which will be trained, as they lie in blocks of %d x %d "
                "with other weights",
                *(100 * in_kept, w.name, *w.block_shape),
            )
    for type, name, per_cent in _targets(pruner):
        if passes_target(pruner, type):
            logger.warning(
                "%s weights begin with more zeros (%.1f %%) than %s asks for, and keep them, for "
                "masks only shrink; begin with a denser checkpoint",
                *(name, per_cent, pruner.schedules[type]),
            )


def warn_of_the_end(pruner: Pruner, total: int | None) -> None:
    """Warns if masks would be final only after the last of `total` updates (None: unknown).

    Those that meet their target, as of a sparse model that is trained on, are as good as final.
    """
    ends = [pruner.schedules[t].end for t in pruner.types if not meets_target(pruner, t)]
    end = max(ends, default=0)
    if total is not None and end > total:
        logger.warning(
            "masks are final after %d updates, but the training ends after %d: weights will "
            "not reach their sparsity; set --prune-end to fewer updates",
            *(end, total),
        )


def warn_on_resuming(pruner: Pruner) -> None:
    """Warns of types whose target lies ahead, but whose masks change no more."""
    for type, name, per_cent in _targets(pruner):
        if pruner.is_final(type) and misses_target(pruner, type):
            logger.warning(
                "%s weights are %.1f %% sparse, not as asked, and stay so: by %s their masks do "
                "not change after update %d; set --prune-start and --prune-end beyond it",
                *(name, per_cent, pruner.schedules[type], pruner.updates),
            )


def warn_at_the_end(pruner: Pruner) -> None:
    """Warns of types whose masks a training leaves before they are final, or off their target."""
    for type, name, per_cent in _targets(pruner):
        is_final = pruner.is_final(type)
        if misses_target(pruner, type) or not (is_final or meets_target(pruner, type)):
            advice = (
                "their masks are final: resume with --prune-end beyond this update"
                if is_final
                else "give --max-update, or --prune-start and --prune-end in updates"
            )
            logger.warning(
                "the training ends after %d updates with %s weights that are %.1f %% sparse, not "
                "as asked by %s; %s",
                *(pruner.updates, name, per_cent, pruner.schedules[type]),
                advice,
            )


def _targets(pruner: Pruner) -> Iterator[tuple[str, str, float]]:
    """A type of every target, the names of all types that share it, their sparsity in per cent."""
    if pruner.allocation != "uniform":
        yield pruner.types[0], "+".join(pruner.types), 100 * pruner.sparsity()
    else:
        yield from ((type, type, 100 * pruner.sparsity(type)) for type in pruner.types)


def warn_of_other_zeros(others: Sequence[tuple[Prunable, Tensor]], reason: str) -> None:
    """Warns of weights that were pruned before and, for this `reason`, are not any more."""
    if many := with_zeros(others):
        text = "%s are zeros, which will be trained, as %s"
        logger.warning(text, ", ".join(many), reason)


def with_zeros(weights: Sequence[tuple[Prunable, Tensor]]) -> list[str]:
    """Those that were pruned, by name and share of zeros."""
    shares = [(1 - int(w.count_nonzero()) / w.numel(), tag.name) for tag, w in weights]
    return [f"{100 * zeros:.1f} % of {name}" for zeros, name in shares if zeros > MANY_ZEROS]
