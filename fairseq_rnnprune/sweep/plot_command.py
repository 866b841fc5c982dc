"""The subcommand `rnnprune plot`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .commands import add_choices


def add_plot(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune plot`."""
    parser = subcommands.add_parser(
        "plot",
        help="draw a figure of results, such as errors over the parameters that are kept",
        description="Draws one column of results over another: the mean over seeds, joined by a "
        "line for each value of --by, and every seed as a small dot.",
    )
    parser.add_argument(
        "results",
        nargs="+",
        type=Path,
        metavar="RESULTS",
        help="RESULTS.jsonl of sweeps, JSON files of single runs, or folders of such JSON files",
    )
    parser.add_argument("--x", required=True, metavar="COLUMN", help="such as kept_parameters")
    parser.add_argument("--y", required=True, metavar="COLUMN", help="such as test_cer")
    parser.add_argument("--by", metavar="COLUMN", help="a colour and a line for each value")
    parser.add_argument("--style", metavar="COLUMN", help="a marker and dashes for each value")
    add_choices(parser, "--where", "rows with one of these values of a column")
    add_choices(
        parser,
        "--reference",
        "rows drawn as dashed horizontal lines at their mean, whatever --where says; such as "
        "method=dense",
    )
    parser.add_argument("--log-x", action="store_true", help="logarithmic x axis")
    parser.add_argument(
        "--lower-is-better", action="store_true", help="say so beside the label of y"
    )
    parser.add_argument("--title", help="(default: none)")
    parser.add_argument("--x-label", metavar="TEXT", help="(default: the column's name)")
    parser.add_argument("--y-label", metavar="TEXT", help="(default: the column's name)")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="OUT.png", help="(default: Y.png, Y as in --y)"
    )
    parser.set_defaults(run=run_plot)


def run_plot(args: argparse.Namespace) -> None:
    """Draws the figure, and says what could not be drawn."""
    from .plot import draw
    from .rows import parse_choices, read_rows
    from .series import make_picture

    picture = make_picture(
        read_rows(args.results),
        *(args.x, args.y, args.by, args.style),
        parse_choices("--where", args.where),
        parse_choices("--reference", args.reference),
    )
    better = " (lower is better)" if args.lower_is_better else ""
    labels = (args.x_label or args.x, (args.y_label or args.y) + better)
    path = draw(picture, labels, args.title, args.log_x, args.output or Path(f"{args.y}.png"))
    if picture.left_out:
        print(f"{picture.left_out} rows without numbers in {args.x} and {args.y} are left out")
    print(f"wrote {path}")
