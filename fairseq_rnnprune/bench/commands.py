"""The subcommand `rnnprune bench`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .figures import CheckpointBench, Settings

# torch is imported when the subcommand runs: --help answers at once.


def add_bench(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune bench`."""
    parser = subcommands.add_parser(
        "bench",
        help="measure what the layers of checkpoints cost per time step, dense and packed",
        description="Counts the multiply-adds, the bytes stored and the bytes read per time step "
        "of every layer that can run packed, and measures its time on this machine's CPU: dense "
        "as torch runs it, packed with each choice of values, and what the option auto chooses.",
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    parser.add_argument(
        "--values",
        metavar="VALUES",
        default="fp32,bf16,int16,int8",
        help="packed values among fp32, bf16, int16, int8 (default: %(default)s)",
    )
    parser.add_argument(
        "--batch", type=int, default=1, metavar="B", help="sequences at once (default: 1)"
    )
    parser.add_argument(
        "--steps",
        type=int,
        default=64,
        metavar="T",
        help="time steps in one call of a recurrent layer; 1 is what generation does, calls from "
        "Python included (default: 64)",
    )
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="(default: 1)")
    parser.add_argument(
        "--rounds",
        type=int,
        default=15,
        metavar="N",
        help="in which all variants take turns, at most; medians count (default: 15)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=4.0,
        metavar="S",
        help="of the rounds of a layer, about; there are at least 3 (default: 4)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> None:
    """Prints the table or JSON, after a warning if the machine is busy."""
    from fairseq_rnnprune.display.grid import print_grid

    from . import render

    settings = _settings(args)
    # Before the measurement itself makes it busy.
    warning = render.busy_warning(settings.threads)
    if warning:
        print(f"rnnprune: warning: {warning}", file=sys.stderr, flush=True)
    benches = _bench(args.checkpoints, settings)
    if args.json:
        print(json.dumps(render.bench_json(benches, settings, warning), indent=2))
        return
    print_grid(render.bench_grid(benches))
    print("\n".join(["", *render.bench_notes(benches, settings)]))


def _bench(paths: list[Path], settings: Settings) -> list[CheckpointBench]:
    import torch

    from fairseq_rnnprune.checkpoint import read_checkpoint
    from fairseq_rnnprune.display.labels import short_labels
    from fairseq_rnnprune.sparse import cpu_library

    from .figures import bench_checkpoint

    # A mistake in the last name should not cost the measurement of the first.
    checkpoints = [read_checkpoint(path) for path in paths]
    for checkpoint in checkpoints:
        checkpoint.check_finite()
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        if cpu_library.threads() != settings.threads:
            raise ValueError(
                f"--threads: expected {cpu_library.THREADS_VARIABLE} to be unset or "
                f"{settings.threads}, got {cpu_library.threads()}; kernels obey it"
            )
        return [
            bench_checkpoint(checkpoint, settings, label)
            for checkpoint, label in zip(checkpoints, short_labels(paths), strict=True)
        ]
    finally:
        torch.set_num_threads(threads)


def _settings(args: argparse.Namespace) -> Settings:
    from fairseq_rnnprune.sparse.cpu_library import MAX_THREADS

    from .figures import Settings
    from .timing import MIN_ROUNDS
    from .variants import VALUES

    least = {"batch": 1, "steps": 1, "threads": 1, "rounds": MIN_ROUNDS, "seconds": 0}
    for name, limit in least.items():
        if not getattr(args, name) >= limit:
            raise ValueError(
                f"--{name}: expected a number of at least {limit}, got {getattr(args, name)}"
            )
    if args.threads > MAX_THREADS:
        raise ValueError(f"--threads: expected a number up to {MAX_THREADS}, got {args.threads}")
    values = tuple(dict.fromkeys(value.strip() for value in args.values.split(",")))
    if not set(values) <= set(VALUES):
        raise ValueError(f"--values: expected some of {','.join(VALUES)}, got {args.values!r}")
    return Settings(values=values, **{name: getattr(args, name) for name in least})
