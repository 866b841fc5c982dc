"""What the benchmarks share: random block masks, a parity gate, interleaved timing, medians.

Before anything is timed, every candidate must agree with float64. Then the candidates take turns:
in each round each of them warms up and makes some calls in a row, of which the mean counts. How
many calls and rounds there are follows from the time that they may take.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RESULTS = Path(__file__).parent / "results"
WARM_UP_CALLS = 3
MAX_CALLS = 1000
MIN_ROUNDS = 3
# Largest error / root mean square of the exact result.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.int8: 0.15}


@dataclass
class Candidate:
    """Something to time: `call()` computes what `exact` holds in float64, nearly.

    threads: torch's number of threads during its turns; None leaves it alone.
    """

    name: str
    call: Callable[[], Tensor]
    exact: Tensor
    limit: float
    threads: int | None = None


def parity(candidate: Candidate) -> float:
    """The candidate's error; SystemExit if it is too large for a time to mean anything."""
    use_threads(candidate)
    error = (candidate.call().double() - candidate.exact).abs().max()
    error = float(error / candidate.exact.square().mean().sqrt())
    if not error <= candidate.limit:
        raise SystemExit(f"{candidate.name}: error {error:.1e} beyond {candidate.limit:.1e}")
    return error


def measure(
    candidates: Sequence[Candidate], rounds: int, seconds: float, turn: float
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


def calls_in(candidate: Candidate, turn: float) -> int:
    """How many calls in a row fit into `turn` seconds, from 1 to MAX_CALLS."""
    use_threads(candidate)
    # The parity gate made the first call, in which much is prepared.
    once = timed(candidate.call, 1)
    if once < turn / WARM_UP_CALLS:
        once = timed(candidate.call, WARM_UP_CALLS) / WARM_UP_CALLS
    return max(1, min(MAX_CALLS, round(turn / once)))


def timed(call: Callable[[], Any], count: int) -> float:
    """Seconds of that many calls in a row."""
    started = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - started


def use_threads(candidate: Candidate) -> None:
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


def block_mask(shape: Sequence[int], block_shape: tuple[int, int], sparsity: float) -> Tensor:
    """Bool [M, K]: random blocks are kept, exactly the fraction 1 - sparsity of them."""
    rows, columns = (-(-size // block) for size, block in zip(shape, block_shape, strict=True))
    order = torch.randperm(rows * columns).view(rows, columns)
    kept = order < round((1 - sparsity) * rows * columns)
    whole = kept.repeat_interleave(block_shape[0], 0).repeat_interleave(block_shape[1], 1)
    return whole[: shape[0], : shape[1]]


def parser(description: str, **defaults: Any) -> argparse.ArgumentParser:
    """A parser with the options of every timing script; `defaults` replace their values."""
    found = argparse.ArgumentParser(description=description.splitlines()[0])
    found.add_argument("--rounds", type=int, default=15, help="at most")
    found.add_argument("--seconds", type=float, default=8.0, help="of the rounds, about")
    found.add_argument("--turn", type=float, default=0.03, help="seconds of one candidate's turn")
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--out", type=Path, help="folder of the JSON files")
    found.set_defaults(**defaults)
    return found
