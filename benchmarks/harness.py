"""What the benchmarks share: random block masks and a parity gate; timing is the package's.

Before anything is timed, every candidate must agree with float64. Then the candidates take turns,
as in `rnnprune bench` (fairseq_rnnprune/bench/timing.py).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_rnnprune.bench.timing import measure, relative_error, summary, use_threads

RESULTS = Path(__file__).parent / "results"
# Largest error / root mean square of the exact result.
LIMITS = {
    torch.float32: 1e-5,
    torch.bfloat16: 5e-2,
    torch.float16: 1e-2,
    torch.int16: 1e-2,
    torch.int8: 0.15,
}


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
    error = relative_error(candidate.call(), candidate.exact)
    if not error <= candidate.limit:
        raise SystemExit(f"{candidate.name}: error {error:.1e} beyond {candidate.limit:.1e}")
    return error


def timed(
    candidates: Sequence[Candidate],
    arguments: argparse.Namespace,
    per: int = 1,
    baselines: Sequence[str] = ("dense",),
) -> dict[str, dict[str, float]]:
    """Parity of all candidates, then their turns; the figures of `summary` by candidate."""
    errors = {candidate.name: parity(candidate) for candidate in candidates}
    samples = measure(candidates, arguments.rounds, arguments.seconds, arguments.turn)
    return summary(samples, errors, per, baselines)


def replayed(candidate: Candidate) -> Candidate:
    """The candidate as a CUDA graph, captured after a first call: its launches cost no CPU time."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = candidate.call()

    def call() -> Tensor:
        graph.replay()
        return result

    return replace(candidate, call=call)


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
