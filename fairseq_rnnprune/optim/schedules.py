"""The schedules that the options of `--optimizer pruned` ask for, and the updates they mean."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf

from fairseq_rnnprune.pruning import (
    CubicSchedule,
    OneShotSchedule,
    QuantileRamp,
    RampSchedule,
    Schedule,
    default_start,
)

from .reading import by_type

T = TypeVar("T")


def build_schedules(
    cfg: Any, types: list[str], epoch_lengths: Sequence[int]
) -> dict[str, Schedule]:
    """Schedule by type; `epoch_lengths` as in PrunedOptimizer.start.

    ValueError, naming the options, for what no schedule can do.
    """
    options = _Options(cfg, types, epoch_lengths)
    try:
        return _build(options, types)
    except ValueError as error:
        # The text of an option is refused by its name, a schedule speaks of its own parts.
        if str(error).startswith("--"):
            raise
        raise ValueError(
            f"--prune-schedule {cfg.prune_schedule}: {error} (from {', '.join(options.read)})"
        ) from None


def _build(options: _Options, types: list[str]) -> dict[str, Schedule]:
    schedule = options.cfg.prune_schedule
    if schedule == "ramp":
        ramp, end = options.updates("--prune-ramp", "25%"), options.updates("--prune-end", "50%")
        window = options.start_before(ramp), ramp, end, options.number("--prune-freq")
        factor = options.number("--prune-ramp-factor")
        if options.cfg.prune_q == "auto":
            final = options.by_type("--prune-sparsity", _sparsity)
            return {t: QuantileRamp(*window, _single(s), factor) for t, s in final.items()}
        q = options.by_type("--prune-q", float)
        return {t: RampSchedule.from_quantile(q[t], *window, factor) for t in types}
    if schedule == "cubic":
        end = options.updates("--prune-end", "50%")
        window = options.start_before(end // 2), end, options.number("--prune-freq")
        final = options.by_type("--prune-sparsity", _sparsity)
        return {t: CubicSchedule(*window, s) for t, s in final.items()}
    if schedule == "hard":
        update = options.updates("--prune-start", "50%")
    else:
        update = options.updates("--prune-start", "100%")
        # Updates count from 0: the end of the training is its last one.
        update -= update == training_updates(options.cfg, options.epoch_lengths)
    final = options.by_type("--prune-sparsity", _sparsity)
    return {t: OneShotSchedule(update, s) for t, s in final.items()}


class _Options:
    """Reads options and keeps, in `read`, what they say: of that a schedule is made."""

    def __init__(self, cfg: Any, types: list[str], epoch_lengths: Sequence[int]):
        self.cfg, self.types, self.epoch_lengths = cfg, types, epoch_lengths
        self.read: list[str] = []

    def updates(self, option: str, default: str) -> int:
        """An option in updates, epochs or per cent."""
        given = self._value(option)
        text = default if given is None else given
        count = _updates(self.cfg, option, text, self.epoch_lengths)
        updates = "" if str(count) == text else f" = {count}"
        self.read.append(f"{option} {text}{updates}{' by default' if given is None else ''}")
        return count

    def start_before(self, ramp: int) -> int:
        """--prune-start or what comes before a ramp."""
        start = self.updates("--prune-start", "1e")
        if self._value("--prune-start") is None:
            start = default_start(start, ramp)
            self.read[-1] = f"--prune-start {start} by default"
        return start

    def number(self, option: str) -> Any:
        self.read.append(f"{option} {self._value(option)}")
        return self._value(option)

    def by_type(self, option: str, parse: Callable[[str], T]) -> dict[str, T]:
        self.read.append(f"{option} {self._value(option)}")
        return by_type(option, self._value(option), self.types, parse)

    def _value(self, option: str) -> Any:
        return getattr(self.cfg, option[2:].replace("-", "_"))


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
