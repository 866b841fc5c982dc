"""The subcommand `rnnprune calibrate`."""

from __future__ import annotations

import argparse
import json
from math import inf
from pathlib import Path

from .arguments import add_block_shape, add_types, parse_block_shapes, parse_types

# torch is imported when a subcommand runs: --help answers at once.


def add_calibrate(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune calibrate`."""
    parser = subcommands.add_parser(
        "calibrate",
        help="choose the thresholds of a pruned training",
        description="Reads q, the quantile of the weights of a trained dense model, by type of "
        "weights, derives the ramp of arXiv 1704.05119 (eq. 1, Table 1), and prints the options "
        "for fairseq-train and the sparsity that they would give this model. Without a dense "
        "model it prints the options of a ramp that reads q from the weights of its own run.",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        nargs="?",
        metavar="CHECKPOINT",
        help="a dense model; none: the run to come is its own, and --updates are needed",
    )
    parser.add_argument(
        "--sparsity", type=float, default=0.9, metavar="S", help="aim, in (0, 1) (default: 0.9)"
    )
    add_block_shape(parser, "1,1")
    add_types(parser, "recurrent,input,linear, as far as the model has them")
    parser.add_argument(
        "--score",
        choices=("max", "mean", "l2"),
        default="max",
        help="importance of a block: max |w|, mean |w| or L2 norm (default: max)",
    )
    parser.add_argument(
        "--updates", type=int, metavar="N", help="of the run to come (default: the checkpoint's)"
    )
    parser.add_argument(
        "--epochs", type=float, metavar="E", help="of the run to come (default: the checkpoint's)"
    )
    parser.add_argument(
        "--freq",
        type=int,
        metavar="N",
        help="updates between masks (default: 100, fewer in a short training)",
    )
    parser.add_argument(
        "--ramp-factor",
        type=float,
        default=1.5,
        metavar="F",
        help="slope of the threshold after --prune-ramp / slope before it (default: 1.5)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.set_defaults(run=run_calibrate)


def run_calibrate(args: argparse.Namespace) -> None:
    """Prints the calibration as a table and options, or as JSON."""
    from fairseq_rnnprune.checkpoint import read_checkpoint
    from fairseq_rnnprune.display.grid import print_grid

    from . import render_calibration as render
    from .calibration import calibrate, present_types

    if args.epochs is not None and not 0 < args.epochs < inf:
        raise ValueError(f"--epochs: expected a number above 0, got {args.epochs}")
    default = ["recurrent", "input", "linear"]
    if args.checkpoint is None:
        _calibrate_without_model(args, parse_types(args.types) or default)
        return
    checkpoint = read_checkpoint(args.checkpoint)
    checkpoint.check_finite()
    types = parse_types(args.types) or present_types(checkpoint, default)
    result = calibrate(
        checkpoint,
        {t: (1, 1) for t in types} | parse_block_shapes(args.block_shape, types),
        sparsity=args.sparsity,
        score=args.score,
        updates=args.updates,
        epochs=args.epochs,
        freq=args.freq,
        ramp_factor=args.ramp_factor,
    )
    if args.json:
        print(json.dumps(render.calibration_json(result), indent=2))
        return
    print_grid(render.calibration_grid(result))
    print("\n".join(["", *render.calibration_notes(result)]))
    print("\nOptions for fairseq-train:\n" + render.options(result))


def _calibrate_without_model(args: argparse.Namespace, types: list[str]) -> None:
    from .calibration import options_without_model

    if args.updates is None:
        raise ValueError(
            "calibrate: expected a CHECKPOINT or the --updates of the run to come, got neither"
        )
    shapes = {t: (1, 1) for t in types} | parse_block_shapes(args.block_shape, types)
    options = options_without_model(
        shapes,
        args.sparsity,
        args.score,
        args.updates,
        args.epochs,
        args.freq,
        args.ramp_factor,
    )
    if args.json:
        print(json.dumps({"options": options}, indent=2))
        return
    print("Options for fairseq-train:\n" + options)
