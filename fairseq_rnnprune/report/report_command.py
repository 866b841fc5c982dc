"""The subcommand `rnnprune report`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from fairseq_rnnprune.display.grid import print_grid, print_lines

from .arguments import add_block_shape, add_types, parse_block_shapes, parse_types

# torch and matplotlib are imported when the subcommand runs: --help answers at once.


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
        "--html", type=Path, metavar="FILE", help="write all of it as one page with no other file"
    )
    parser.add_argument(
        "--survivors",
        action="store_true",
        help="print more tables: dead units and constant gates, recurrent diagonals, kept weights "
        "per input and symbol, overlap of the first checkpoint's masks with the others'",
    )
    parser.add_argument(
        "--dict",
        type=Path,
        action="append",
        default=[],
        metavar="DICT",
        help="dict.txt that names the rows of embeddings and output layers; repeatable, the "
        "source's first (default: those in the data folder of the checkpoint's training)",
    )
    parser.add_argument(
        "--log",
        type=Path,
        action="append",
        default=[],
        metavar="TRAINLOG",
        help="JSON log of a training for --plot or --html; repeatable (default: each "
        "checkpoint's own --log-file, or train.log beside it, if there is one)",
    )
    add_block_shape(parser, "as the checkpoint was trained, else 1,1")
    add_types(parser, "all that a checkpoint has")
    parser.set_defaults(run=run_report)


def run_report(args: argparse.Namespace) -> None:
    """Prints the tables or JSON, after writing the plots and the page."""
    from . import output
    from .json_survivors import overlap_json, survivors_json
    from .page import check_page
    from .render import report_grid, report_json, report_notes
    from .render_survivors import survivor_sections

    if args.log and not (args.plot or args.html):
        raise ValueError(
            "--log: expected --plot DIR or --html FILE as well, got neither; a log is only drawn"
        )
    if args.html:
        check_page(args.html)
    types = parse_types(args.types)
    shapes = parse_block_shapes(args.block_shape, types or output.TYPES)
    findings = output.gather(args.checkpoints, types or output.TYPES, shapes, args.dict)
    written = output.write_files(findings, args.plot, args.html, args.log)
    if args.json:
        shown = report_json(findings.reports)
        for checkpoint, survivors in zip(shown["checkpoints"], findings.survivors, strict=True):
            checkpoint |= survivors_json(survivors)
        shown["overlap"] = overlap_json(findings.pairs)
        shown["plots"] = [str(path) for path in written if path != args.html]
        shown["html"] = str(args.html) if args.html else None
        print(json.dumps(shown, indent=2))
        return
    print_grid(report_grid(findings.reports))
    print_lines(["", *report_notes(findings.reports)])
    if args.survivors:
        for section in survivor_sections(findings.survivors, findings.pairs):
            print(f"\n{section.title}")
            print_grid(section.grid)
            print_lines(section.notes)
    print_lines(f"wrote {path}" for path in written)
