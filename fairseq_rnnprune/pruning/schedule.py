"""Pruning schedules: pure functions from an update number to a threshold or a target sparsity.

Updates are 0-based. Masks change at the multiples of `freq` strictly inside (start, end).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol


class Schedule(Protocol):
    """When masks change; they are final after `end` updates.

    A schedule also has `threshold(n)`, `fraction(n)` of a quantile, or `sparsity(n)`.
    """

    end: int

    def is_mask_update(self, n: int) -> bool: ...


@dataclass(frozen=True)
class RampSchedule:
    """The rising threshold of Algorithm 1 in arXiv 1704.05119.

    The threshold grows by `start_slope` (theta) per mask update from update `start` on, and by
    `ramp_slope` (phi) from update `ramp` on, until update `end`. ValueError if the updates are
    negative, out of order or leave no mask update, or if a slope is not positive.
    """

    start: int
    ramp: int
    end: int
    freq: int
    start_slope: float
    ramp_slope: float

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.ramp <= self.end:
            raise ValueError(
                "RampSchedule: expected 0 <= start <= ramp <= end, got "
                f"start={self.start}, ramp={self.ramp}, end={self.end}; "
                "give the updates in this order"
            )
        _check_window("RampSchedule", self.start, self.end, self.freq)
        for name in ("start_slope", "ramp_slope"):
            slope = getattr(self, name)
            if not 0 < slope < float("inf"):
                raise ValueError(f"RampSchedule: expected {name} > 0, got {slope}")

    @classmethod
    def from_quantile(
        cls,
        q: float,
        start: int,
        ramp: int,
        end: int,
        freq: int = 100,
        ramp_factor: float = 1.5,
    ) -> RampSchedule:
        """Chooses the slopes by eq. 1, so that the threshold reaches `q` at `end`.

        `q` is the quantile of |w| (0.9 for a sparsity near 90 %) in a trained dense model of the
        same kind; `ramp_factor` is phi / theta, 1.5 to 2 in Table 1. The threshold ends at q
        for a factor of 1.5 and above it for a larger one.
        """
        if not 0 < q < float("inf"):
            raise ValueError(
                f"RampSchedule.from_quantile: expected q > 0, got {q}; "
                "`rnnprune calibrate` reads it from a dense checkpoint"
            )
        if not 0 < ramp_factor < float("inf"):
            raise ValueError(
                f"RampSchedule.from_quantile: expected ramp_factor > 0, got {ramp_factor}"
            )
        # A window without length would divide by zero: the constructor's message is the clear one.
        length = max(1, 2 * (ramp - start) + 3 * (end - ramp))
        theta = 2 * q * freq / length
        return cls(start, ramp, end, freq, theta, ramp_factor * theta)

    def is_mask_update(self, n: int) -> bool:
        """Tells whether masks are recomputed after update `n`."""
        return _is_mask_update(n, self.start, self.end, self.freq)

    def is_last(self, n: int) -> bool:
        """Tells whether masks are recomputed after update `n` for the last time."""
        return n == _last_mask_update(self.end, self.end, self.freq)

    def threshold(self, n: int) -> float:
        """The threshold in force after update `n`: a block scoring below it is pruned."""
        n = _last_mask_update(n, self.end, self.freq)
        if n <= self.start:
            return 0.0
        if n < self.ramp:
            return self.start_slope * (n - self.start + 1) / self.freq
        before_ramp = self.start_slope * (self.ramp - self.start + 1)
        return (before_ramp + self.ramp_slope * (n - self.ramp + 1)) / self.freq


@dataclass(frozen=True)
class QuantileRamp:
    """The ramp of Algorithm 1 towards a q that is read from the weights at every change of masks.

    q is the threshold that would prune the fraction `final`, in (0, 1), of the weights as they are
    then, pruned ones included: no dense model is needed, and the sparsity ends at `final`. The
    threshold is q times `fraction(n)`, which rises to 1 with the slopes of eq. 1, arXiv 1704.05119.
    """

    start: int
    ramp: int
    end: int
    freq: int
    final: float
    ramp_factor: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.final < 1:
            raise ValueError(f"QuantileRamp: expected final in (0, 1), got {self.final}")
        self._unit  # noqa: B018 - refuses a bad window now rather than at the first change

    def is_mask_update(self, n: int) -> bool:
        """Tells whether masks are recomputed after update `n`."""
        return _is_mask_update(n, self.start, self.end, self.freq)

    def fraction(self, n: int) -> float:
        """The part of q that the threshold is after update `n`, in [0, 1]."""
        return self._unit.threshold(n) / self._unit.threshold(self.end)

    @property
    def _unit(self) -> RampSchedule:
        return RampSchedule.from_quantile(
            1.0, self.start, self.ramp, self.end, self.freq, self.ramp_factor
        )


RAMPS = (RampSchedule, QuantileRamp)


@dataclass(frozen=True)
class CubicSchedule:
    """The target sparsity of Zhu and Gupta, arXiv 1710.01878, section 3.

    It rises from `initial` at update `start` to `final` at the last mask update before `end`,
    fast at first: s = final + (initial - final) (1 - t)^3. `final` may be a tuple with a target
    for each gate. ValueError for a target outside [0, 1), a falling target or a window without a
    mask update.
    """

    start: int
    end: int
    freq: int
    final: float | tuple[float, ...]
    initial: float = 0.0

    def __post_init__(self) -> None:
        _check_window("CubicSchedule", self.start, self.end, self.freq)
        _check_sparsity("CubicSchedule", "final", self.final)
        _check_sparsity("CubicSchedule", "initial", self.initial)
        lowest = min(self.final) if isinstance(self.final, tuple) else self.final
        if self.initial > lowest:
            raise ValueError(
                f"CubicSchedule: expected initial <= final, got {self.initial} > {lowest}; "
                "masks only shrink"
            )

    def is_mask_update(self, n: int) -> bool:
        """Tells whether masks are recomputed after update `n`."""
        return _is_mask_update(n, self.start, self.end, self.freq)

    def sparsity(self, n: int) -> float | tuple[float, ...]:
        """The target sparsity in force after update `n`, in [0, 1); by gate if `final` is so."""
        last = _last_mask_update(self.end, self.end, self.freq)
        n = max(self.start, _last_mask_update(n, self.end, self.freq))
        if n == self.start:
            return _by_gate(self.final, lambda _: self.initial)
        remaining = (last - n) / (last - self.start)
        return _by_gate(self.final, lambda s: s + (self.initial - s) * remaining**3)


@dataclass(frozen=True)
class OneShotSchedule:
    """Prunes once, after update `update`, to the sparsity `final`, a number or one per gate."""

    update: int
    final: float | tuple[float, ...]

    def __post_init__(self) -> None:
        if self.update < 0:
            raise ValueError(f"OneShotSchedule: expected update >= 0, got {self.update}")
        _check_sparsity("OneShotSchedule", "final", self.final)

    @property
    def end(self) -> int:
        """Masks are final after this many updates."""
        return self.update + 1

    def is_mask_update(self, n: int) -> bool:
        """Tells whether masks are recomputed after update `n`."""
        return n == self.update

    def sparsity(self, n: int) -> float | tuple[float, ...]:
        """The target sparsity in force after update `n`: 0 before `update`, then `final`."""
        return self.final if n >= self.update else _by_gate(self.final, lambda _: 0.0)


def default_start(epoch_length: int, ramp: int) -> int:
    """Where pruning starts if nobody says: with the second epoch (arXiv 1704.05119, Table 1).

    Where the ramp begins no later than that, as in a run of a few epochs: halfway to it.
    """
    return epoch_length if epoch_length < ramp else ramp // 2


def _is_mask_update(n: int, start: int, end: int, freq: int) -> bool:
    return start < n < end and n % freq == 0


def _last_mask_update(n: int, end: int, freq: int) -> int:
    """The last multiple of `freq` that is at most `n` and below `end`."""
    return min(n, end - 1) // freq * freq


def _check_window(owner: str, start: int, end: int, freq: int) -> None:
    if freq < 1:
        raise ValueError(f"{owner}: expected freq >= 1, got {freq}")
    if not 0 <= start < end:
        raise ValueError(
            f"{owner}: expected 0 <= start < end, got start={start}, end={end}; "
            "give updates in this order"
        )
    if _last_mask_update(end, end, freq) <= start:
        raise ValueError(
            f"{owner}: expected a mask update between start={start} and end={end}, got none with "
            f"freq={freq}; masks change at multiples of freq strictly between the two, "
            "so lower freq or widen the window"
        )


def _by_gate(final: float | tuple[float, ...], of: Callable[[float], float]) -> Any:
    """`of` the one target, or the tuple of `of` every gate's."""
    return tuple(map(of, final)) if isinstance(final, tuple) else of(final)


def _check_sparsity(owner: str, name: str, value: float | tuple[float, ...]) -> None:
    for v in value if isinstance(value, tuple) else (value,):
        if not 0 <= v < 1:
            raise ValueError(f"{owner}: expected {name} in [0, 1), got {v}")
