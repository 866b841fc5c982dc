"""Packed weights against torch: time of a product or a GRU sequence, medians over rounds.

    OMP_NUM_THREADS=1 python benchmarks/kernels.py gru --hidden 2560 --sparsity 0.9 --batch 1

Before anything is timed, every candidate must agree with float64. Then the candidates take turns:
in each round each of them warms up and makes some calls in a row, of which the mean counts. All
have normal random weights of one size; the mask is random, in blocks of the candidate's own shape.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    SparseGRU,
    cpu_library,
    matmul,
    reference,
)

RESULTS = Path(__file__).parent / "results"
WARM_UP_CALLS = 3
# Largest error / root mean square of the exact result.
LIMITS = {torch.float32: 1e-5, torch.bfloat16: 5e-2, torch.int8: 0.15}
# Name, block shape, dtype, backend.
PACKED = (
    ("csr-int32", (1, 1), torch.float32, "torch_csr"),
    ("fp32-16x1", (16, 1), torch.float32, "cpu"),
    ("fp32-4x4", (4, 4), torch.float32, "cpu"),
    ("fp32-8x4", (8, 4), torch.float32, "cpu"),
    ("fp32-8x8", (8, 8), torch.float32, "cpu"),
    ("bf16-16x1", (16, 1), torch.bfloat16, "cpu"),
    ("bf16-4x4", (4, 4), torch.bfloat16, "cpu"),
    ("int8-16x4", (16, 4), torch.int8, "cpu"),
)


@dataclass
class Candidate:
    """Something to time: `call()` computes what `exact` holds in float64, nearly."""

    name: str
    call: Callable[[], Tensor]
    exact: Tensor
    limit: float


def main() -> None:
    arguments = parse()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    make = {"gru": gru_candidates, "matmul": matmul_candidates}[arguments.operation]
    with torch.no_grad(), warnings.catch_warnings():
        # torch's quantised GRU, a baseline here, is deprecated but still its fastest on CPUs.
        warnings.simplefilter("ignore")
        candidates = make(arguments)
        errors = {candidate.name: parity(candidate) for candidate in candidates}
        samples = measure(candidates, arguments.rounds, arguments.calls)
    per = arguments.steps if arguments.operation == "gru" else 1
    figures = summary(samples, errors, per)
    for name, row in figures.items():
        print(f"{name:12} {row['us']:10.1f} us {row['speedup']:7.2f} x  error {row['error']:.1e}")
    path = save_result(
        arguments.out,
        arguments.name,
        arguments.seed,
        f"python benchmarks/kernels.py {' '.join(sys.argv[1:])}",
        figures,
        instruction_set=(cpu_library.instruction_sets() or ["none"])[0],
    )
    print(f"written to {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("operation", choices=["gru", "matmul"])
    parser.add_argument("--hidden", type=int, default=2560, help="matmul: [3 * hidden, hidden]")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=64, help="of a GRU; times are per step")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=6, help="in a row, in every round")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "kernels", help="folder")
    arguments = parser.parse_args()
    arguments.name = (
        f"{arguments.operation}-h{arguments.hidden}-p{100 * arguments.sparsity:.0f}"
        f"-b{arguments.batch}-t{arguments.threads}"
    )
    return arguments


def block_mask(shape: torch.Size, block_shape: tuple[int, int], sparsity: float) -> Tensor:
    """Bool [M, K]: random blocks are kept, exactly the fraction 1 - sparsity of them."""
    rows, columns = (-(-size // block) for size, block in zip(shape, block_shape, strict=True))
    order = torch.randperm(rows * columns).view(rows, columns)
    kept = order < round((1 - sparsity) * rows * columns)
    whole = kept.repeat_interleave(block_shape[0], 0).repeat_interleave(block_shape[1], 1)
    return whole[: shape[0], : shape[1]]


def matmul_candidates(arguments: argparse.Namespace) -> list[Candidate]:
    H = arguments.hidden
    dense = torch.randn(3 * H, H) / H**0.5
    x = torch.randn(arguments.batch, H)
    # A warm dense product, over a mask like all others: zeros cost it as much as other numbers.
    linear = nn.functional.linear
    exact = linear(x.double(), dense.double())
    found = [Candidate("dense", lambda: linear(x, dense), exact, LIMITS[torch.float32])]
    for name, block_shape, dtype, backend in PACKED:
        weight = dense * block_mask(dense.shape, block_shape, arguments.sparsity)
        W = BlockSparseMatrix.from_dense(weight, block_shape, dtype, gates=3)
        call = lambda W=W, backend=backend: matmul(W, x, backend=backend)  # noqa: E731
        found.append(Candidate(name, call, reference.matmul(W, x.double()), LIMITS[dtype]))
    return found


def gru_candidates(arguments: argparse.Namespace) -> list[Candidate]:
    H, T = arguments.hidden, arguments.steps
    # The input has one unit: nearly all of the time is recurrent, in torch's GRU as in ours.
    dense = nn.GRU(1, H)
    nn.init.normal_(dense.weight_hh_l0, std=H**-0.5)
    x = torch.randn(T, arguments.batch, 1)

    def exact(gru: nn.GRU) -> Tensor:
        return copy.deepcopy(gru).double()(x.double())[0]

    quantised = torch.ao.quantization.quantize_dynamic(dense, {nn.GRU})
    found = [
        Candidate("dense", lambda: dense(x)[0], exact(dense), LIMITS[torch.float32]),
        # Every weight of it is stored, so its error adds up over more columns.
        Candidate("dense-int8", lambda: quantised(x)[0], exact(dense), 2 * LIMITS[torch.int8]),
    ]
    for name, block_shape, dtype, backend in PACKED:
        pruned = copy.deepcopy(dense)
        pruned.weight_hh_l0 *= block_mask((3 * H, H), block_shape, arguments.sparsity)
        # The input's single column cannot hold wider blocks.
        sparse = SparseGRU.from_dense(pruned, shapes(block_shape), dtype, backend)
        sparse.layers[0][0].input.backend = None
        call = lambda sparse=sparse: sparse(x)[0]  # noqa: E731
        found.append(Candidate(name, call, exact(pruned), LIMITS[dtype]))
    return found


def shapes(block_shape: tuple[int, int]) -> Callable[[Tensor, int], tuple[int, int]]:
    return lambda weight, gates: block_shape if weight.shape[1] > 1 else (16, 1)


def parity(candidate: Candidate) -> float:
    """The candidate's error; SystemExit if it is too large for a time to mean anything."""
    error = (candidate.call().double() - candidate.exact).abs().max()
    error = float(error / candidate.exact.square().mean().sqrt())
    if not error <= candidate.limit:
        raise SystemExit(f"{candidate.name}: error {error:.1e} beyond {candidate.limit:.1e}")
    return error


def measure(candidates: list[Candidate], rounds: int, calls: int) -> dict[str, list[float]]:
    """Seconds per call of each candidate in each round."""
    samples: dict[str, list[float]] = {candidate.name: [] for candidate in candidates}
    for _ in range(rounds):
        for candidate in candidates:
            for _ in range(WARM_UP_CALLS):
                candidate.call()
            started = time.perf_counter()
            for _ in range(calls):
                candidate.call()
            samples[candidate.name].append((time.perf_counter() - started) / calls)
    return samples


def summary(
    samples: dict[str, list[float]], errors: dict[str, float], per: int
) -> dict[str, dict[str, float]]:
    """Microseconds per step, `per` of which make up a call, and speed-up over `dense`."""
    medians = {name: statistics.median(seconds) for name, seconds in samples.items()}
    rows = {}
    for name, seconds in samples.items():
        low, *_, high = statistics.quantiles(seconds, n=5)
        rows[name] = {
            "us": 1e6 * medians[name] / per,
            "us_20": 1e6 * low / per,
            "us_80": 1e6 * high / per,
            "speedup": medians["dense"] / medians[name],
            "error": errors[name],
        }
    return rows


if __name__ == "__main__":
    main()
