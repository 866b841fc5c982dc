"""The subcommand `rnnprune export`."""

from __future__ import annotations

import argparse
from pathlib import Path

# torch is imported when the subcommand runs: --help answers at once.

VALUES = {"fp32": "float32", "bf16": "bfloat16", "int16": "int16", "int8": "int8"}


def add_export(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune export`."""
    parser = subcommands.add_parser(
        "export",
        help="write a model into one small file",
        description="Writes a model with its options and, of speech, its units into one small file "
        "of safetensors: only what pruning has left of a matrix, and no state of an optimizer. "
        "fairseq-generate, fairseq-eval-lm, from_pretrained and rnnprune take it as they do a "
        "checkpoint.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("output", type=Path, metavar="OUTPUT", help="such as model.safetensors")
    parser.add_argument(
        "--values",
        choices=list(VALUES),
        default="fp32",
        help="of the prunable matrices: fp32 loses nothing, bf16 and int16 take half of it, int8 "
        "a quarter; integers have a scale per row (default: %(default)s)",
    )
    parser.set_defaults(run=run_export)


def run_export(args: argparse.Namespace) -> None:
    """Writes the file and prints what it takes beside the checkpoint and its dense weights."""
    import torch

    from .checkpoint import checkpoint_of, is_exported, load_state, write_packed_file
    from .display.grid import Grid, print_grid
    from .pruning import tensor_identity

    if not args.output.parent.is_dir():
        raise ValueError(
            f"export: expected a folder to write {args.output.name} into, got "
            f"{args.output.parent}, which is none; make it first"
        )
    output = args.output.resolve()
    is_ours = output.is_file() and (not output.stat().st_size or is_exported(output))
    if output.exists() and not is_ours:
        raise ValueError(
            f"export: expected a new file or an exported one to replace, got {args.output}, which "
            "is neither; name another"
        )
    state = load_state(args.checkpoint)
    checkpoint = checkpoint_of(state, args.checkpoint)
    if not checkpoint.config:
        raise ValueError(
            f"export: expected a checkpoint with the options of its model, got {args.checkpoint}, "
            "which has weights only; name a file that fairseq-train wrote"
        )
    checkpoint.check_finite()
    write_packed_file(output, state, checkpoint.model, getattr(torch, VALUES[args.values]))
    dense = {tensor_identity(t): 4 * t.numel() for t in checkpoint.model.values()}
    rows = [
        (str(args.checkpoint), args.checkpoint.stat().st_size),
        ("its weights, dense fp32", sum(dense.values())),
        (str(args.output), output.stat().st_size),
    ]
    print_grid(Grid(["file", "bytes"], [[name, f"{size:,}"] for name, size in rows], 1))
