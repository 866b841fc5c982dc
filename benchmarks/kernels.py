"""Packed weights against torch: time of a product or a GRU sequence, medians over rounds.

    OMP_NUM_THREADS=1 python benchmarks/kernels.py gru --hidden 2560 --sparsity 0.9 --batch 1

Several batches and sparsities share the packing; each pair of them is a result of its own. The
roofline of a product is the time to read as many bytes as the fp32-16x1 matrix has, by the fastest
of a few functions that do little else, in the same rounds.

With --device cuda the Triton kernels are timed against torch's on the GPU, each as a CUDA graph.
Weights that fit stay in the GPU's cache, as they do between the steps of a sequence.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import Any

import torch
from harness import RESULTS, Candidate, parity, parser, replayed, timed
from subjects import (
    DENSE,
    DISTINCT,
    FORMATS,
    Format,
    Subject,
    default_csr_product,
    dense_products,
    grus,
    packed_product,
)

from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.sparse import cpu_library

STEPS = 64
# In front of every name of a reader.
READ = "read-"


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    if arguments.device != "cpu":
        torch.set_default_device(arguments.device)
        # cuDNN would compute float32 in TF32, which is not within the limit.
        torch.backends.cudnn.allow_tf32 = False
    with torch.no_grad(), warnings.catch_warnings():
        # torch's quantised GRU, a baseline here, is deprecated but still its fastest on CPUs.
        warnings.simplefilter("ignore")
        for sparsity in arguments.sparsity:
            torch.manual_seed(arguments.seed)
            compare(arguments, sparsity)


def parse() -> argparse.Namespace:
    options = parser(__doc__)
    options.add_argument("operation", choices=["gru", "matmul"])
    options.add_argument("--hidden", type=int, default=2560, help="matmul: [3 * hidden, hidden]")
    options.add_argument("--sparsity", type=float, nargs="+", default=[0.9])
    options.add_argument("--batch", type=int, nargs="+", default=[1])
    options.add_argument(
        "--steps", type=int, help=f"of a GRU; times are per step ({STEPS} / batch, at least 8)"
    )
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--device", choices=FORMATS, default="cpu")
    arguments = options.parse_args()
    more = "" if arguments.device == "cpu" else "_gpu"
    arguments.out = arguments.out or RESULTS / f"{arguments.operation}{more}"
    return arguments


def compare(arguments: argparse.Namespace, sparsity: float) -> None:
    """Writes the results of all batches at one sparsity."""
    hidden, is_gru = arguments.hidden, arguments.operation == "gru"
    formats = FORMATS[arguments.device]
    steps = {batch: arguments.steps or max(8, STEPS // batch) for batch in arguments.batch}
    if is_gru:
        # The input has one unit: nearly all of the time is recurrent, in torch's GRU as in ours.
        x = torch.randn(max(steps.values()), DISTINCT, 1)
        subjects, reading = list(grus(hidden, sparsity, x, formats)), []
    else:
        x = torch.randn(DISTINCT, hidden)
        weight = torch.randn(3 * hidden, hidden) / hidden**0.5
        subjects = list(products(weight, sparsity, x, formats))
        reading = readers(next(s.nbytes for s in subjects if s.name == "fp32-16x1"))
    for batch in arguments.batch:
        inputs = x[: steps[batch]] if is_gru else x
        candidates = [*(subject.at(inputs, batch) for subject in subjects), *reading]
        if arguments.device != "cpu":
            for candidate in candidates:
                parity(candidate)
            candidates = [replayed(candidate) for candidate in candidates]
        rows = timed(candidates, arguments, steps[batch] if is_gru else 1, DENSE)
        save(arguments, sparsity, batch, steps[batch], figures_of(rows))


def products(
    weight: torch.Tensor, sparsity: float, x: torch.Tensor, formats: Sequence[Format]
) -> Iterator[Subject]:
    """Everything that multiplies x with the weight [3H, H] or with one pruned from it."""
    yield from dense_products(weight, x)
    if not weight.is_cuda:
        yield default_csr_product(weight, sparsity, x)
    for form in formats:
        yield packed_product(weight, form, sparsity, x)


def readers(nbytes: int) -> list[Candidate]:
    """Functions that read that many bytes of float32 once."""
    ones = torch.ones(nbytes // 4)
    # A matrix-vector product reads the matrix, and a vector that stays in the first cache.
    wide = ones[: len(ones) // 256 * 256].view(-1, 256)
    vector = torch.ones(256)
    count = torch.tensor([float(len(ones))]).double()
    limit = 1e-5
    found = [
        Candidate(READ + "sum", lambda: ones.sum()[None], count, limit),
        Candidate(READ + "dot", lambda: ones.dot(ones)[None], count, limit),
        Candidate(READ + "max", lambda: ones.amax(0, keepdim=True), count / count, limit),
        Candidate(READ + "mv", lambda: wide.mv(vector), wide.double().sum(1), limit),
        Candidate(READ + "mv-to-and-fro", to_and_fro(wide, vector), wide.double().sum(1), limit),
    ]
    if not ones.is_cuda:
        array = ones.numpy()
        call = lambda: torch.tensor([array @ array])  # noqa: E731
        found.append(Candidate(READ + "numpy-dot", call, count, limit))
    return found


def to_and_fro(matrix: torch.Tensor, vector: torch.Tensor) -> Callable[[], torch.Tensor]:
    """A product that begins with the rows that the one before has read last, as packed ones do."""
    y = matrix.new_empty(len(matrix))
    rows = 2**19 // (matrix.element_size() * matrix.shape[1])
    parts = list(zip(matrix.split(rows), y.split(rows), strict=True))
    orders = cycle([parts, parts[::-1]])

    def call() -> torch.Tensor:
        for some, found in next(orders):
            torch.mv(some, vector, out=found)
        return y

    return call


def figures_of(rows: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """The rows with further ratios and, of a product, the roofline instead of its readers."""
    figures: dict[str, dict[str, Any]] = {n: r for n, r in rows.items() if not n.startswith(READ)}
    us = {name: row["us"] for name, row in rows.items()}
    for name, row in figures.items():
        row["times_16x1"] = us[name] / us["fp32-16x1"]
        if {"csr-int32", "csr-int64"} <= rows.keys():
            row["over_csr_int32"] = us["csr-int32"] / us[name]
            row["over_csr_int64"] = us["csr-int64"] / us[name]
    reading = [name for name in rows if name.startswith(READ)]
    if reading:
        best = min(reading, key=us.__getitem__)
        quantiles = {key: rows[best][key] for key in ("us", "us_20", "us_80")}
        fraction = us[best] / us["fp32-16x1"]
        figures["roofline"] = {**quantiles, "reader": best, "fraction": fraction}
    return figures


def save(
    arguments: argparse.Namespace, sparsity: float, batch: int, steps: int, figures: dict[str, Any]
) -> None:
    """Prints the figures and writes them, with the command that measures them alone."""
    for name, row in figures.items():
        more = f"{row['speedup']:7.2f} x  error {row['error']:.1e}" if "error" in row else ""
        print(f"{name:12} {row['us']:10.1f} us {more}")
    operation, hidden, threads = arguments.operation, arguments.hidden, arguments.threads
    path = save_result(
        arguments.out,
        f"{operation}-h{hidden}-p{100 * sparsity:.0f}-b{batch}-t{threads}",
        arguments.seed,
        f"python benchmarks/kernels.py {operation} --hidden {hidden} --sparsity {sparsity:g} "
        f"--batch {batch}{f' --steps {steps}' if operation == 'gru' else ''} --threads {threads} "
        f"--device {arguments.device} "
        f"--rounds {arguments.rounds} --seconds {arguments.seconds:g} --seed {arguments.seed}",
        figures,
        instruction_set=(cpu_library.instruction_sets() or ["none"])[0],
        hidden=hidden,
        sparsity=sparsity,
        batch=batch,
        steps=steps,
    )
    print(f"written to {path}", flush=True)


if __name__ == "__main__":
    main()
