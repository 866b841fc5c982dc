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
        check_window("CubicSchedule", self.start, self.end, self.freq)
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
        return is_mask_update(n, self.start, self.end, self.freq)

    def sparsity(self, n: int) -> float | tuple[float, ...]:
        """The target sparsity in force after update `n`, in [0, 1); by gate if `final` is so."""
        last = last_mask_update(self.end, self.end, self.freq)
        n = max(self.start, last_mask_update(n, self.end, self.freq))
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


def is_mask_update(n: int, start: int, end: int, freq: int) -> bool:
    """Tells whether update `n` is a multiple of `freq` inside the window."""
    return start < n < end and n % freq == 0


def last_mask_update(n: int, end: int, freq: int) -> int:
    """The last multiple of `freq` that is at most `n` and below `end`."""
    return min(n, end - 1) // freq * freq


def check_window(owner: str, start: int, end: int, freq: int) -> None:
    """Raises ValueError unless there is a mask update between `start` and `end`."""
    if freq < 1:
        raise ValueError(f"{owner}: expected freq >= 1, got {freq}")
    if not 0 <= start < end:
        raise ValueError(
            f"{owner}: expected 0 <= start < end, got start={start}, end={end}; "
            "give updates in this order"
        )
    if last_mask_update(end, end, freq) <= start:
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
