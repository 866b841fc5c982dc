"""The paper's ramp of the threshold, towards a q that is given or read from the run's weights."""

from __future__ import annotations

from dataclasses import dataclass

from .schedule import check_window, is_mask_update, last_mask_update


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
        check_window("RampSchedule", self.start, self.end, self.freq)
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
        for a factor of 1.5 and above it for a larger one, but for the last step of `freq`, which
        Algorithm 1 does not make: with 50 changes of masks it ends some two per cent below.
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
        return is_mask_update(n, self.start, self.end, self.freq)

    def is_last(self, n: int) -> bool:
        """Tells whether masks are recomputed after update `n` for the last time."""
        return n == last_mask_update(self.end, self.end, self.freq)

    def threshold(self, n: int) -> float:
        """The threshold in force after update `n`: a block scoring below it is pruned."""
        n = last_mask_update(n, self.end, self.freq)
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
        # Refuses a bad window now rather than at the first change of masks.
        self.fraction(self.end)

    def is_mask_update(self, n: int) -> bool:
        """Tells whether masks are recomputed after update `n`."""
        return is_mask_update(n, self.start, self.end, self.freq)

    def fraction(self, n: int) -> float:
        """The part of q that the threshold is after update `n`, in [0, 1]."""
        unit = RampSchedule.from_quantile(
            1.0, self.start, self.ramp, self.end, self.freq, self.ramp_factor
        )
        return unit.threshold(n) / unit.threshold(self.end)


RAMPS = (RampSchedule, QuantileRamp)


def default_start(epoch_length: int, ramp: int) -> int:
    """Where pruning starts if nobody says: with the second epoch (arXiv 1704.05119, Table 1).

    Where the ramp begins no later than that, as in a run of a few epochs: halfway to it.
    """
    return epoch_length if epoch_length < ramp else ramp // 2
