"""What a sweep will do: its runs with their commands, and which of them the results have."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import fairseq_rnnprune

from .grid import Grid, Value
from .rows import SEED, Choices, Row, is_chosen, is_value, parts
from .template import Command, Place, is_path, make_command


@dataclass(frozen=True)
class Run:
    """One training and its evaluations. `variables` are what the user gave, folders absolute."""

    name: str
    axes: dict[str, Value]
    folder: Path
    train: Command
    evaluate: list[tuple[str, Command]]
    variables: dict[str, str]

    @property
    def shown(self) -> list[str]:
        """The commands as the results have them."""
        return [self.train.shown, *(command.shown for _, command in self.evaluate)]


def make_runs(
    grid: Grid, given: Mapping[str, str], only: Choices, work: Path, where: Path
) -> list[Run]:
    """Every run of a grid with its commands, in order; `only` leaves some out.

    ValueError, in one line, for a variable without value, a name or value that the grid does not
    know, two runs of one name and a training that cannot go on.
    """
    variables = _variables(grid, given, where)
    # What has a value in the grid is an option, even if a folder here happens to have its name.
    fixed = {
        n: Place(str(Path(v).resolve()), n.upper())
        for n, v in variables.items()
        if is_path(v) and (grid.variables[n] is None or os.sep in v)
    }
    fixed["user_dir"] = Place(str(Path(fairseq_rnnprune.__file__).parent), "user_dir")
    fixed["work"] = Place(str(work.resolve()), "WORK")
    made_from = variables | {n: fixed[n].path for n in variables if n in fixed}
    runs = []
    for axes in grid.combinations():
        name = "-".join(_label(axis, value) for axis, value in axes.items()) or "run"
        places = fixed | {"folder": Place(str((work / name).resolve()), f"WORK/{name}")}
        texts = variables | {n: grid.axes[n].text(value) for n, value in axes.items()}
        train = make_command(grid.train, texts, places, f"{where}: train")
        evaluate = [
            (n, make_command(command, texts, places, f"{where}: evaluate"))
            for n, command in grid.evaluate
        ]
        runs.append(Run(name, axes, work / name, train, evaluate, made_from))
    _check(runs, where)
    return _select(runs, only)


def split_done(
    runs: Iterable[Run], rows: Iterable[Row], results: Path
) -> tuple[list[Run], list[Run]]:
    """The runs that the results have, and those to do.

    ValueError if the results have a run of the same axes with other commands.
    """
    done, missing = [], []
    for run in runs:
        known = [row for row in rows if row.get("axes") == run.axes]
        if any(row.get("commands") == run.shown for row in known):
            done.append(run)
        elif known:
            before, now = _first_difference(known[-1].get("commands") or [], run.shown)
            raise ValueError(
                f"sweep: expected the run {run.name} in {results} to be of the grid's commands, "
                f"got `{before}` where the grid has `{now}`; the grid has changed: "
                "give other --results and another --work"
            )
        else:
            missing.append(run)
    return done, missing


def _variables(grid: Grid, given: Mapping[str, str], where: Path) -> dict[str, str]:
    unknown = sorted(given.keys() - grid.variables.keys())
    if unknown:
        known = ", ".join(grid.variables) or "none"
        raise ValueError(f"--set: expected variables of {where} ({known}), got {unknown[0]}")
    variables = grid.variables | given
    missing = [name for name, value in variables.items() if value is None]
    if missing:
        raise ValueError(
            f"sweep: expected a value of {', '.join(missing)}, got none; "
            f"add {' '.join(f'--set {name}=VALUE' for name in missing)}"
        )
    return variables


def _label(axis: str, value: Value) -> str:
    """A value as part of the name of a folder."""
    return ("s" if axis == SEED else "") + re.sub(r"[^\w.,+]", "_", str(value))


def _check(runs: list[Run], where: Path) -> None:
    names = [run.name for run in runs]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ValueError(f"{where}: expected values that tell runs apart, got {twice} twice")
    for run in runs:
        if not run.train.mentions("folder"):
            raise ValueError(
                f"{where}: train: expected {{folder}} in it, got none; a run must have a folder "
                "of its own, such as --save-dir {folder}"
            )
        words = run.train.words
        if words[0] == "fairseq-train" and not {"json", "--log-format=json"} & set(words):
            raise ValueError(
                f"{where}: train: expected --log-format json, got it without; "
                "the seconds and the sparsity are read from the log"
            )
        for command in (run.train, *(command for _, command in run.evaluate)):
            _check_program(command.arguments[0], where)


def _check_program(program: str, where: Path) -> None:
    is_ours = program == "rnnprune" or program.startswith("fairseq-")
    if not is_ours and not shutil.which(program):
        raise ValueError(f"{where}: expected a command that is installed, got {program}")


def _select(runs: list[Run], only: Choices) -> list[Run]:
    for axis, texts in only.items():
        values = dict.fromkeys(run.axes[axis] for run in runs if axis in run.axes)
        if not values:
            raise ValueError(f"--only: expected one of {', '.join(runs[0].axes)}, got {axis}")
        for text in texts:
            whole, *single = parts(text)
            unknown = [p for p in single if not any(is_value(value, p) for value in values)]
            if unknown and not any(is_value(value, whole) for value in values):
                known = ", ".join(map(str, values))
                raise ValueError(f"--only: expected {axis} among {known}, got {unknown[0]!r}")
    return [run for run in runs if is_chosen(run.axes, only)]


def _first_difference(before: list[str], now: list[str]) -> tuple[str, str]:
    """What two lists of commands differ in, cut to the words from there on."""
    for old, new in zip(before, now, strict=False):
        if old != new:
            same = 0
            words = list(zip(old.split(), new.split(), strict=False))
            while same < len(words) and words[same][0] == words[same][1]:
                same += 1
            start = max(0, same - 1)
            return tuple(" ".join(c.split()[start : start + 4]) for c in (old, new))
    return f"{len(before)} commands", f"{len(now)} commands"
