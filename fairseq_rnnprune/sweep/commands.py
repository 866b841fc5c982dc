"""The subcommand `rnnprune sweep`."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .grid import Grid
    from .plan import Run
    from .process import Process
    from .rows import Row

# torch and yaml are imported when a subcommand runs: --help answers at once.

_GRID = """\
GRID.yaml, for instance:

  variables:
    data: null                 # must be given: --set data=FOLDER
  axes:                        # a list of values, or a mapping from values to options
    method:
      dense: --optimizer adam
      cubic: --optimizer pruned --prune-schedule cubic --prune-sparsity {sparsity}
    sparsity: [0.8, 0.9]
    seed: [1, 2]
  runs:                        # in this order; an axis that is left out takes all its values
    - {method: dense, sparsity: 0}
    - {method: cubic}
  train: fairseq-train {data} --user-dir {user_dir} --save-dir {folder} {method} --seed {seed}
    --log-format json ...
  evaluate:                    # after the training; a list, or by name as here
    test: fairseq-eval-lm {data} --user-dir {user_dir} --path {folder}/checkpoint_last.pt
  figures:                     # a regular expression with one group; its last match counts
    perplexity: 'Perplexity: ([\\d.]+)'      # test_perplexity, after the evaluation's name

{folder} is the run's own folder in WORK, {work} is WORK, {user_dir} the plugin. Every row also
gets parameters, kept_parameters, training_seconds, final_sparsity (by type too), the axes, the
commands, commit, machine and versions.
"""


def add_sweep(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune sweep`."""
    parser = subcommands.add_parser(
        "sweep",
        help="train and evaluate a grid of runs; stopped anywhere, it goes on",
        description="Trains and evaluates every combination that a grid names, and appends a line "
        "to the results for each that is finished. Those that the results have are passed over, "
        "so the same command goes on after an interruption, from the last checkpoint.",
        epilog=_GRID,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("grid", type=Path, metavar="GRID.yaml")
    parser.add_argument(
        "--results",
        type=Path,
        required=True,
        metavar="RESULTS.jsonl",
        help="one JSON object a line",
    )
    parser.add_argument(
        "--work", type=Path, required=True, metavar="WORK", help="checkpoints and logs"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=1,
        metavar="N",
        help="runs at a time; with more than one, each has one thread unless OMP_NUM_THREADS "
        "says otherwise (default: 1)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="value of a variable of the grid; repeatable. In the results, paths are written as "
        "the name in capitals: runs on other data need other results",
    )
    add_choices(parser, "--only", "runs with one of these values of an axis")
    parser.add_argument(
        "--keep",
        choices=("last", "all", "none"),
        default="last",
        help="checkpoints of a finished run that stay (default: last, checkpoint_last.pt)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the runs and their commands, do nothing"
    )
    parser.set_defaults(run=run_sweep)


def add_choices(parser: argparse.ArgumentParser, option: str, meaning: str) -> None:
    """Adds a repeatable option for `rows.parse_choices`."""
    parser.add_argument(
        option,
        action="append",
        default=[],
        metavar="NAME=VALUE,...",
        help=f"{meaning}; repeatable, all must hold",
    )


def run_sweep(args: argparse.Namespace) -> None:
    """Prints the plan, or does what is missing.

    ValueError at the end if runs have failed; exit status 130 if it is interrupted.
    """
    from .plan import make_runs, split_done
    from .read import read_grid
    from .results import load
    from .rows import parse_choices
    from .run import check_folder

    if args.jobs < 1:
        raise ValueError(f"--jobs: expected a number of runs >= 1, got {args.jobs}")
    grid = read_grid(args.grid)
    only = parse_choices("--only", args.only)
    runs = make_runs(grid, _settings(args.set), only, args.work, args.grid)
    done, _ = split_done(runs, load(args.results), args.results)
    for run in runs:
        check_folder(run)
    if args.dry_run:
        _print_plan(runs, done)
    else:
        _do(args, grid, runs)


def _do(args: argparse.Namespace, grid: Grid, runs: list[Run]) -> None:
    from .execute import ends_like_ctrl_c, execute
    from .plan import split_done
    from .results import append, load, locked, repair
    from .run import facts, perform, tidy

    environment = dict(os.environ)
    if args.jobs > 1:
        # Two runs with a thread for each core would only get in each other's way.
        environment.setdefault("OMP_NUM_THREADS", "1")
    with locked(args.results) as results, locked(args.work / "sweep.lock") as work:
        if repair(results, args.results):
            print(f"{args.results}: dropped the last line, which was torn; its run is done again")
        # Again: another sweep may have ended since.
        rows = load(args.results)
        done, missing = split_done(runs, rows, args.results)
        _warn_of_missing_figures(args.results, rows, grid, done)

        def begin(run: Run) -> Generator[Process, None, Row]:
            return perform(run, grid, environment, work, facts(environment, args.jobs))

        def save(run: Run, row: Row) -> None:
            append(results, row)
            tidy(run, args.keep)

        try:
            with ends_like_ctrl_c():
                failed = execute(missing, begin, save, args.jobs)
        except KeyboardInterrupt:
            count = len(split_done(runs, load(args.results), args.results)[0])
            print(
                f"stopped: {count} of {len(runs)} runs are in {args.results}; "
                "the same command goes on",
                file=sys.stderr,
            )
            raise SystemExit(130) from None
    new = len(missing) - len(failed)
    print(f"{len(runs)} runs: {len(done)} were in {args.results}, {new} are new")
    if failed:
        raise ValueError(
            f"sweep: expected every run to succeed, got {len(failed)} that failed: "
            f"{', '.join(failed)}; the same command tries them again"
        )


def _warn_of_missing_figures(results: Path, rows: list[Row], grid: Grid, done: list[Run]) -> None:
    """Says which of the grid's figures finished runs do not have: they are not evaluated again."""
    from .figures import lacks

    finished = [row for row in rows if any(row.get("axes") == run.axes for run in done)]
    evaluations = [name for name, _ in grid.evaluate]
    for name in grid.figures:
        if count := sum(lacks(row["figures"], name, evaluations) for row in finished):
            print(
                f"{results}: {count} finished runs have no {name}, which the grid has by now; "
                "take their lines out to have them evaluated again",
                file=sys.stderr,
            )


def _settings(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if not text.partition("=")[1]:
            raise ValueError(f"--set: expected NAME=VALUE, got {text!r}")
    return dict(text.split("=", 1) for text in texts)


def _print_plan(runs: list[Run], done: list[Run]) -> None:
    """As a shell script: a comment and the commands of every run."""
    names = {run.name for run in done}
    for run in runs:
        print(f"# {run.name}{' (in the results)' if run.name in names else ''}")
        for command in (run.train, *(command for _, command in run.evaluate)):
            print(shlex.join(command.arguments))
    print(f"# {len(runs)} runs: {len(done)} in the results, {len(runs) - len(done)} to do")
