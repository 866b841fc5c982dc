"""Interleaved timing: candidates take turns in rounds, and medians over the rounds count.

In each round each candidate warms up and makes some calls in a row, of which the mean counts. How
many calls and rounds there are follows from the time that they may take.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

WARM_UP_CALLS = 3
MAX_CALLS = 1000
MIN_ROUNDS = 3


class Timed(Protocol):
    """Something to time; `threads` is torch's number of threads meanwhile, None: as it is."""

    name: str
    call: Callable[[], Any]
    threads: int | None


def relative_error(found: Tensor, exact: Tensor) -> float:
    """The largest error / the root mean square of the exact result, in float64; NaN stays NaN."""
    error = (found.double() - exact).abs().max()
    # Of nothing but zeros, zeros are no error.
    return float(error / exact.square().mean().sqrt()) if error != 0 else 0.0


def measure(
    candidates: Sequence[Timed], rounds: int, seconds: float, turn: float
) -> dict[str, list[float]]:
    """Seconds per call of each candidate in each round.

    A turn takes about `turn` seconds, and at least one call; its warm-up is no longer. There are
    at most `rounds`, and no more than fit into `seconds`, but at least MIN_ROUNDS.
    """
    samples: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    calls = {candidate.name: calls_in(candidate, turn) for candidate in candidates}
    started = time.perf_counter()
    for done in range(rounds):
        elapsed = time.perf_counter() - started
        # The last round took about elapsed / done.
        if done >= MIN_ROUNDS and elapsed * (done + 1) / done > seconds:
            break
        for candidate in candidates:
            use_threads(candidate)
            count = calls[candidate.name]
            timed(candidate.call, min(count, WARM_UP_CALLS))
            samples[candidate.name].append(timed(candidate.call, count) / count)
    return samples


def calls_in(candidate: Timed, turn: float) -> int:
    """How many calls in a row fit into `turn` seconds, from 1 to MAX_CALLS."""
    use_threads(candidate)
    # A check of its result made the first call, in which much is prepared.
    once = timed(candidate.call, 1)
    if once < turn / WARM_UP_CALLS:
        once = timed(candidate.call, WARM_UP_CALLS) / WARM_UP_CALLS
    return max(1, min(MAX_CALLS, round(turn / once)))


def timed(call: Callable[[], Any], count: int) -> float:
    """Seconds of that many calls in a row, what they started on a GPU included."""
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None
    wait()
    started = time.perf_counter()
    for _ in range(count):
        call()
    wait()
    return time.perf_counter() - started


def use_threads(candidate: Timed) -> None:
    if candidate.threads:
        torch.set_num_threads(candidate.threads)


def summary(
    samples: Mapping[str, list[float]],
    errors: Mapping[str, float],
    per: int = 1,
    baselines: Sequence[str] = ("dense",),
) -> dict[str, dict[str, float]]:
    """By candidate, microseconds per step, `per` of which make up a call, and speed-ups.

    `speedup` is over the first of the baselines, `over_best` over the fastest of those there are.
    """
    medians = {name: statistics.median(seconds) for name, seconds in samples.items()}
    best = min(medians[name] for name in baselines if name in medians)
    rows = {}
    for name, seconds in samples.items():
        low, *_, high = statistics.quantiles(seconds, n=5, method="inclusive")
        rows[name] = {
            "us": 1e6 * medians[name] / per,
            "us_20": 1e6 * low / per,
            "us_80": 1e6 * high / per,
            "speedup": medians[baselines[0]] / medians[name],
            "over_best": best / medians[name],
            "error": errors[name],
        }
    return rows


def load_average() -> float | None:
    """Processes that ran or wanted to, over the last minute; None where nobody counts them."""
    with contextlib.suppress(AttributeError, OSError):
        return os.getloadavg()[0]
    return None
