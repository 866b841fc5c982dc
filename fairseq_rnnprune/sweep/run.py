"""One run of a sweep, from its folder to its row; what a killed sweep left there goes on."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from fairseq_rnnprune import experiment, provenance

from .figures import found_figures, run_figures, silent_evaluations
from .grid import Grid
from .plan import Run
from .process import Process, start
from .rows import Row

LAST = "checkpoint_last.pt"
LOG = "train.log"


def perform(
    run: Run, grid: Grid, environment: Mapping[str, str], lock: int, measured: Mapping[str, Any]
) -> Generator[Process, None, Row]:
    """Does a run: yields each process, to be continued when it has ended, and returns the row.

    `measured` is where and with what. RuntimeError if a command fails, ValueError if
    a figure is not in the output.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    log = run.folder / LOG
    if not is_trained(run):
        _note(run, trained=False)
        yield from _do("train", run.train.arguments, log, environment, lock)
        _note(run, trained=True)
    outputs = []
    for i, (name, command) in enumerate(run.evaluate, 1):
        output = run.folder / f"evaluate-{name or i}.log"
        output.unlink(missing_ok=True)
        label = f"evaluate {name or i}"
        yield from _do(label, command.arguments, output, environment, lock)
        outputs.append((name, output.read_text(encoding="utf-8", errors="replace")))
    figures = run_figures(run.folder / LAST, log) | found_figures(grid.figures, outputs)
    named = {"name": run.name, "axes": run.axes, "figures": figures, "commands": run.shown}
    if silent := grid.figures and silent_evaluations(grid.figures, outputs):
        named["no_figures_from"] = silent
    return {**named, **measured}


def _do(
    label: str, words: list[str], log: Path, environment: Mapping[str, str], lock: int
) -> Generator[Process, None, None]:
    process = start(label, experiment.in_this_python(words), log, environment, [lock])
    yield process
    process.check()


def facts(environment: Mapping[str, str], jobs: int) -> dict[str, Any]:
    """Where and with what a run is measured that has this environment, beside so many others."""
    found = provenance.environment()
    threads = provenance.threads_in(environment)
    return found | {"machine": found["machine"] | {"threads": threads, "jobs": jobs}}


def check_folder(run: Run) -> None:
    """ValueError if the folder of a run was begun with another training."""
    begun = _read_note(run)
    if begun and {**begun, "trained": None} != {**_identity(run), "trained": None}:
        raise ValueError(
            f"sweep: expected {run.folder} to be begun with the grid's training and variables, "
            "got others; delete the folder, or give another --work"
        )


def is_trained(run: Run) -> bool:
    """True if the training of a run has come to its end: fairseq would add an update to it."""
    return bool(_read_note(run).get("trained"))


def tidy(run: Run, keep: str) -> None:
    """Deletes the checkpoints of a run that are not to be kept."""
    if keep == "all":
        return
    for path in run.folder.glob("checkpoint*.pt"):
        if keep == "none" or path.name != LAST:
            path.unlink()
    if keep == "none":
        _note_file(run).unlink(missing_ok=True)


def _note_file(run: Run) -> Path:
    return run.folder / "run.json"


def _identity(run: Run) -> dict[str, Any]:
    return {"train": run.train.shown, "variables": run.variables}


def _note(run: Run, trained: bool) -> None:
    file = _note_file(run)
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps({**_identity(run), "trained": trained}, indent=1) + "\n")
    temporary.replace(file)


def _read_note(run: Run) -> dict[str, Any]:
    file = _note_file(run)
    if not file.exists():
        return {}
    try:
        note = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        note = None
    if not isinstance(note, dict):
        raise ValueError(
            f"sweep: expected the note of a run in {file}, got something else; delete the folder, "
            "and the run begins again"
        )
    return note
