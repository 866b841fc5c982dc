"""The subcommands `rnnprune report` and `rnnprune calibrate`."""

from __future__ import annotations

import argparse
import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import add_block_shape, add_types, parse_block_shapes, parse_types

if TYPE_CHECKING:
    from .table import CheckpointReport

# torch and matplotlib are imported when a subcommand runs: --help answers at once.


def add_report(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune report`."""
    parser = subcommands.add_parser(
        "report",
        help="show where the zeros of checkpoints are, and what they save",
        description="Shows the sparsity of every prunable tensor and gate, the parameters kept "
        "and the bytes they take, several checkpoints side by side.",
    )
    parser.add_argument("checkpoints", nargs="+", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument(
        "--plot", type=Path, metavar="DIR", help="write PNG files into this directory"
    )
    parser.add_argument(
        "--log",
        type=Path,
        action="append",
        default=[],
        metavar="TRAINLOG",
        help="JSON log of a training for --plot; repeatable (default: each checkpoint's own "
        "--log-file, or train.log beside it, if there is one)",
    )
    add_block_shape(parser, "as the checkpoint was trained, else 1,1")
    add_types(parser, "all that a checkpoint has")
    parser.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> None:
    """Prints the table or JSON, after writing the plots."""
    from fairseq_rnnprune.checkpoint import read_checkpoint
    from fairseq_rnnprune.pruning import TYPES

    from . import render
    from .grid import print_grid
    from .table import report_checkpoint, short_labels
    from .trainlog import find_train_log

    if args.log and not args.plot:
        raise ValueError("--log: expected --plot DIR as well, got none; a log is only drawn")
    types = parse_types(args.types) or list(TYPES)
    shapes = parse_block_shapes(args.block_shape, types)
    reports, logs = [], {}
    for path, label in zip(args.checkpoints, short_labels(args.checkpoints), strict=True):
        checkpoint = read_checkpoint(path)
        reports.append(report_checkpoint(checkpoint, types, shapes, label))
        logs[label] = find_train_log(checkpoint)
    plots = [str(p) for p in _plot(reports, logs, args)] if args.plot else []
    if args.json:
        print(json.dumps(render.report_json(reports) | {"plots": plots}, indent=2))
        return
    print_grid(render.report_grid(reports))
    print("\n".join(["", *render.report_notes(reports), *(f"wrote {p}" for p in plots)]))


def _plot(
    reports: list[CheckpointReport], found: dict[str, Path | None], args: argparse.Namespace
) -> list[Path]:
    from .plot import plot_sparsity, plot_training
    from .table import short_labels
    from .trainlog import read_train_log

    if args.log:
        logs = dict(zip(short_labels(args.log), map(read_train_log, args.log), strict=True))
    else:
        logs = {}
        for label, path in found.items():
            # A log that nobody asked for may well be that of a dense training.
            with contextlib.suppress(ValueError):
                if path is not None:
                    logs[label] = read_train_log(path)
    plots = [plot_sparsity(reports, args.plot)]
    if logs:
        plots.append(plot_training(list(logs.values()), list(logs), args.plot))
    return plots


def add_calibrate(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune calibrate`."""
    parser = subcommands.add_parser(
        "calibrate",
        help="choose the thresholds of a pruned training from a dense model",
        description="Reads q, the quantile of the weights of a trained dense model, by type of "
        "weights, derives the ramp of arXiv 1704.05119 (eq. 1, Table 1), and prints the options "
        "for fairseq-train and the sparsity that they would give this model.",
    )
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a dense model")
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

    from . import render_calibration as render
    from .calibration import calibrate, present_types
    from .grid import print_grid

    checkpoint = read_checkpoint(args.checkpoint)
    default = ["recurrent", "input", "linear"]
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
