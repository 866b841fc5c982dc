"""What the values of the options of `--optimizer pruned` mean: types, block shapes, worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fairseq_rnnprune.pruning import RAMPS, Schedule, has_one_target
from fairseq_rnnprune.pruning.by_type import read_block_shape, read_by_type, read_types

from .inner import given_in_vain
from .options import PruningOptions

T = TypeVar("T")


def pruned_types(cfg: Any) -> list[str]:
    """The types named by --prune-types; ValueError for an unknown one."""
    return read_types("--prune-types", cfg.prune_types)


def block_shapes(cfg: Any, types: list[str]) -> dict[str, tuple[int, int]]:
    """Block shape by type from --prune-block-shape."""
    return by_type("--prune-block-shape", cfg.prune_block_shape, types, read_block_shape)


def worth(
    cfg: Any, schedules: Sequence[Schedule], shapes: Sequence[tuple[int, int]]
) -> tuple[float, str, str]:
    """--prune-fisher-power, --prune-score and --prune-allocation, or what loses least.

    Of weights with these schedules and block shapes.
    Gradients count unless something else says what is worth less; where they do, a block is worth
    the root mean square of its weights, and matrices share out a target that is given once for all
    (examples/comparison), if they have blocks of one shape: the scores of others say nothing about
    each other.
    """
    # As strings: fairseq's enums cannot be pickled, and what masks are chosen by is saved.
    score, allocation = str(cfg.prune_score), str(cfg.prune_allocation)
    power = cfg.prune_fisher_power
    if power is None:
        is_free = score != "random" and cfg.prune_penalty == "none"
        has_ramp = any(isinstance(s, RAMPS) for s in schedules)
        power = 0.25 if cfg.prune_inner == "adam" and is_free and not has_ramp else 0.0
    if score == "auto":
        score = "l2" if power and set(shapes) != {(1, 1)} else "max"
    if allocation == "auto":
        is_shared = "=" not in str(cfg.prune_sparsity) and has_one_target(schedules)
        is_global = power and is_shared and len(set(shapes)) == 1
        allocation = "global" if is_global else "uniform"
    return power, score, allocation


def unread_options(cfg: Any) -> dict[str, list[str]]:
    """The options that were given, but that what was chosen ignores, by what was chosen."""
    bounds, schedule = ["prune_max_sparsity", "prune_min_sparsity"], str(cfg.prune_schedule)
    if schedule == "ramp":
        names = bounds if cfg.prune_q == "auto" else ["prune_sparsity"]
    else:
        names = ["prune_ramp", "prune_q", "prune_ramp_factor", *bounds]
        names += [] if schedule == "cubic" else ["prune_end", "prune_freq"]
    strength = ["prune_penalty_strength"] if cfg.prune_penalty == "none" else []
    defaults = PruningOptions()

    def given(names: list[str]) -> list[str]:
        return [name for name in names if getattr(cfg, name) != getattr(defaults, name)]

    unread = {
        f"--prune-schedule {schedule}": given(names),
        f"--prune-penalty {cfg.prune_penalty}": given(strength),
        f"--prune-inner {cfg.prune_inner}": given_in_vain(cfg),
    }
    return {
        choice: ["--" + name.replace("_", "-") for name in names]
        for choice, names in unread.items()
        if names
    }


def by_type(option: str, text: str, types: list[str], parse: Callable[[str], T]) -> dict[str, T]:
    """Reads an option as `read_by_type` does; ValueError unless every pruned type has a value."""
    values = read_by_type(option, text, types, parse, " (--prune-types)")
    if set(values) != set(types):
        raise ValueError(
            f"{option}: expected a value for each of {','.join(types)} (--prune-types), got "
            f"{text!r}"
        )
    return values
