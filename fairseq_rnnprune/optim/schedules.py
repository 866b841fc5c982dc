"""The schedules that the options of `--optimizer pruned` ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from fairseq_rnnprune.pruning import (
    CubicSchedule,
    OneShotSchedule,
    QuantileRamp,
    RampSchedule,
    Schedule,
    default_start,
)

from .reading import by_type
from .updates import read_updates, training_updates

T = TypeVar("T")


def build_schedules(
    cfg: Any, types: list[str], epoch_lengths: Sequence[int]
) -> dict[str, Schedule]:
    """Schedule by type; `epoch_lengths` as in PrunedOptimizer.start.

    ValueError, naming the options, for what no schedule can do.
    """
    options = _Options(cfg, types, epoch_lengths)
    make = _read(options)
    try:
        return {type: make(type) for type in types}
    except ValueError as error:
        raise ValueError(
            f"--prune-schedule {cfg.prune_schedule}: {error} (from {', '.join(options.read)})"
        ) from None


def _read(options: _Options) -> Callable[[str], Schedule]:
    """What makes the schedule of a type; ValueError, naming it, for an option that is no value."""
    schedule = options.cfg.prune_schedule
    if schedule == "ramp":
        ramp, end = options.updates("--prune-ramp", "25%"), options.updates("--prune-end", "50%")
        window = options.start_before(ramp), ramp, end, options.value("--prune-freq")
        factor = options.value("--prune-ramp-factor")
        if options.cfg.prune_q == "auto":
            final = options.by_type("--prune-sparsity", _sparsity)
            single = {type: _single(sparsity) for type, sparsity in final.items()}
            return lambda type: QuantileRamp(*window, single[type], factor)
        q = options.by_type("--prune-q", float)
        return lambda type: RampSchedule.from_quantile(q[type], *window, factor)
    if schedule == "cubic":
        end = options.updates("--prune-end", "50%")
        window = options.start_before(end // 2), end, options.value("--prune-freq")
        final = options.by_type("--prune-sparsity", _sparsity)
        return lambda type: CubicSchedule(*window, final[type])
    if schedule == "hard":
        update = options.updates("--prune-start", "50%")
    else:
        update = options.updates("--prune-start", "100%")
        # Updates count from 0: the end of the training is its last one.
        update -= update == training_updates(options.cfg, options.epoch_lengths)
    final = options.by_type("--prune-sparsity", _sparsity)
    return lambda type: OneShotSchedule(update, final[type])


class _Options:
    """Reads options and keeps, in `read`, what they say: of that a schedule is made."""

    def __init__(self, cfg: Any, types: list[str], epoch_lengths: Sequence[int]):
        self.cfg, self.types, self.epoch_lengths = cfg, types, epoch_lengths
        self.read: list[str] = []

    def updates(self, option: str, default: str) -> int:
        """An option in updates, epochs or per cent."""
        given = self._value(option)
        text = default if given is None else given
        count = read_updates(self.cfg, option, text, self.epoch_lengths)
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

    def value(self, option: str) -> Any:
        """An option as it is."""
        self.read.append(f"{option} {self._value(option)}")
        return self._value(option)

    def by_type(self, option: str, parse: Callable[[str], T]) -> dict[str, T]:
        """An option with one value for all types or one for each."""
        return by_type(option, self.value(option), self.types, parse)

    def _value(self, option: str) -> Any:
        return getattr(self.cfg, option[2:].replace("-", "_"))


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
