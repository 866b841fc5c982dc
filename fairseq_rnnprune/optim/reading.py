"""What the values of the options of `--optimizer pruned` mean: types, shapes, schedules."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from fairseq_rnnprune.pruning import (
    RAMPS,
    CubicSchedule,
    OneShotSchedule,
    QuantileRamp,
    RampSchedule,
    Schedule,
    default_start,
    has_one_target,
)
from fairseq_rnnprune.pruning.by_type import read_block_shape, read_by_type, read_types

from .options import PruningOptions

T = TypeVar("T")


def pruned_types(cfg: Any) -> list[str]:
    """The types named by --prune-types; ValueError for an unknown one."""
    return read_types("--prune-types", cfg.prune_types)


def block_shapes(cfg: Any, types: list[str]) -> dict[str, tuple[int, int]]:
    """Block shape by type from --prune-block-shape."""
    return _by_type("--prune-block-shape", cfg.prune_block_shape, types, read_block_shape)


def build_schedules(
    cfg: Any, types: list[str], epoch_lengths: Sequence[int]
) -> dict[str, Schedule]:
    """Schedule by type; `epoch_lengths` as in PrunedOptimizer.start."""

    def updates(option: str, default: str) -> int:
        given = getattr(cfg, option[2:].replace("-", "_"))
        return _updates(cfg, option, default if given is None else given, epoch_lengths)

    def start_before(ramp: int) -> int:
        start = updates("--prune-start", "1e")
        return default_start(start, ramp) if cfg.prune_start is None else start

    def final() -> dict[str, float | tuple[float, ...]]:
        return _by_type("--prune-sparsity", cfg.prune_sparsity, types, _sparsity)

    if cfg.prune_schedule == "ramp":
        ramp, end = updates("--prune-ramp", "25%"), updates("--prune-end", "50%")
        window = start_before(ramp), ramp, end, cfg.prune_freq
        factor = cfg.prune_ramp_factor
        if cfg.prune_q == "auto":
            return {t: QuantileRamp(*window, _single(s), factor) for t, s in final().items()}
        q = _by_type("--prune-q", cfg.prune_q, types, float)
        return {t: RampSchedule.from_quantile(q[t], *window, factor) for t in types}
    if cfg.prune_schedule == "cubic":
        end = updates("--prune-end", "50%")
        start = start_before(end // 2)
        return {t: CubicSchedule(start, end, cfg.prune_freq, s) for t, s in final().items()}
    if cfg.prune_schedule == "hard":
        update = updates("--prune-start", "50%")
    else:
        update = updates("--prune-start", "100%")
        if update == training_updates(cfg, epoch_lengths):
            # Updates count from 0: the end of the training is its last one.
            update -= 1
    return {t: OneShotSchedule(update, s) for t, s in final().items()}


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


def unread_options(cfg: Any) -> list[str]:
    """The options of when and how far that were given, but that the chosen schedule ignores."""
    bounds, schedule = ["prune_max_sparsity", "prune_min_sparsity"], str(cfg.prune_schedule)
    if schedule == "ramp":
        names = bounds if cfg.prune_q == "auto" else ["prune_sparsity"]
    else:
        names = ["prune_ramp", "prune_q", "prune_ramp_factor", *bounds]
        names += [] if schedule == "cubic" else ["prune_end", "prune_freq"]
    defaults = PruningOptions()
    given = [name for name in names if getattr(cfg, name) != getattr(defaults, name)]
    return ["--" + name.replace("_", "-") for name in given]


def without_epochs(cfg: DictConfig, before: int) -> DictConfig:
    """The options of a training whose first epochs another optimizer has made."""
    if not before or not cfg.max_epoch:
        return cfg
    return OmegaConf.merge(cfg, {"max_epoch": max(1, cfg.max_epoch - before)})


def _sparsity(text: str) -> float | tuple[float, ...]:
    """Reads S, or S/S/S for the gates."""
    values = tuple(map(float, text.split("/")))
    return values if len(values) > 1 else values[0]


def _single(sparsity: float | tuple[float, ...]) -> float:
    if isinstance(sparsity, tuple):
        raise ValueError(
            "--prune-sparsity: expected one sparsity for all gates with --prune-schedule ramp, "
            f"whose threshold they share, got {'/'.join(map(str, sparsity))}; give one, or take "
            "--prune-schedule cubic"
        )
    return sparsity


def _by_type(option: str, text: str, types: list[str], parse: Callable[[str], T]) -> dict[str, T]:
    """As `read_by_type`, with a value for every pruned type."""
    values = read_by_type(option, text, types, parse, " (--prune-types)")
    if set(values) != set(types):
        raise ValueError(
            f"{option}: expected a value for each of {','.join(types)} (--prune-types), got "
            f"{text!r}"
        )
    return values


def _updates(cfg: Any, option: str, text: str, epoch_lengths: Sequence[int]) -> int:
    """Reads a number of updates written as N, 2e (epochs) or 25% (of the training)."""
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)(e|%)", str(text))
    if not match:
        raise ValueError(
            f"{option}: expected updates (3000), epochs (2e) or per cent (25%), got {text!r}"
        )
    if match[1]:
        return int(match[1])
    amount = float(match[2])
    if match[3] == "e":
        return _updates_in(amount, option, text, epoch_lengths)
    return round(amount / 100 * _total_updates(cfg, option, text, epoch_lengths))


def _total_updates(cfg: Any, option: str, text: str, epoch_lengths: Sequence[int]) -> int:
    """Updates of the whole training, of which an option gives a part."""
    if not cfg.max_update and not cfg.max_epoch:
        raise ValueError(
            f"{option}: expected --max-update or --max-epoch, of which {text} is a part, got "
            "neither; give one of them, or give the option in updates"
        )
    if not cfg.max_update:
        return _updates_in(cfg.max_epoch, option, text, epoch_lengths)
    return training_updates(cfg, epoch_lengths)


def training_updates(cfg: Any, epoch_lengths: Sequence[int]) -> int | None:
    """Updates after which --max-update or --max-epoch ends the training, as far as is known."""
    totals = [cfg.max_update] if cfg.max_update else []
    if cfg.max_epoch and epoch_lengths:
        totals.append(_updates_in(cfg.max_epoch, "--max-epoch", "", epoch_lengths))
    return min(totals, default=None)


def _updates_in(epochs: float, option: str, text: str, epoch_lengths: Sequence[int]) -> int:
    """Updates in so many epochs, from the first one on."""
    if not epoch_lengths:
        raise ValueError(
            f"{option}: expected a known epoch length for {text}, got none outside "
            "fairseq-train; give the option in updates"
        )
    whole, last = int(epochs), len(epoch_lengths) - 1
    lengths = [epoch_lengths[min(i, last)] for i in range(whole + 1)]
    return round(sum(lengths[:-1]) + (epochs - whole) * lengths[-1])
