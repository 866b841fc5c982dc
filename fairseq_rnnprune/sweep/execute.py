"""Does the runs of a sweep, some at a time, and shows how far they are."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_rnnprune.progress import new_progress

from .plan import Run
from .process import Process, stop
from .rows import Row

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

POLL_SECONDS = 0.1
_UPDATES = re.compile(rb'"(?:train_)?num_updates": "(\d+)"')


@dataclass
class _Active:
    run: Run
    steps: Generator[Process, None, Row]
    process: Process
    bar: TaskID


def execute(
    runs: Sequence[Run],
    perform: Callable[[Run], Generator[Process, None, Row]],
    save: Callable[[Run, Row], None],
    jobs: int,
) -> list[str]:
    """Does runs in order, `jobs` at a time, and saves their rows; returns the names of failed ones.

    `perform` yields each process of a run, and is continued when that has ended. What still runs
    is stopped before any exception leaves, KeyboardInterrupt included.
    """
    waiting, active, failed = deque(runs), [], []
    with new_progress() as progress:
        total = progress.add_task("runs", total=len(runs))

        def advance(run: Run, steps: Generator[Process, None, Row], bar: TaskID) -> None:
            try:
                process = next(steps)
                progress.update(bar, description=f"{run.name}: {process.label}")
                active.append(_Active(run, steps, process, bar))
                return
            except StopIteration as end:
                save(run, end.value)
                _say(progress, f"done {run.name}{_short(end.value)}")
            except (RuntimeError, ValueError, OSError) as error:
                failed.append(run.name)
                _say(progress, f"failed {run.name}: {error}")
            progress.remove_task(bar)
            progress.advance(total)

        try:
            while waiting or active:
                while waiting and len(active) < jobs:
                    run = waiting.popleft()
                    advance(run, perform(run), progress.add_task(run.name, total=None))
                for item in [item for item in active if not item.process.is_running]:
                    active.remove(item)
                    advance(item.run, item.steps, item.bar)
                for item in active:
                    progress.update(item.bar, description=_describe(item))
                time.sleep(POLL_SECONDS)
        finally:
            stop(item.process for item in active)
    return failed


@contextlib.contextmanager
def ends_like_ctrl_c() -> Iterator[None]:
    """Makes SIGTERM and SIGHUP a KeyboardInterrupt; one that is ignored, as by nohup, stays so."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = [s for s in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, interrupt) for s in signals}
    try:
        yield
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def _say(progress: Progress, text: str) -> None:
    progress.console.print(text, markup=False, highlight=False, soft_wrap=True)


def _short(row: Row) -> str:
    """The figures of a row, and what has given none."""
    parts = [f"{n} {v:g}" for n, v in row["figures"].items() if isinstance(v, int | float)]
    parts += [f"no figure in evaluate-{name}.log" for name in row.get("no_figures_from", [])]
    return f": {', '.join(parts)}" if parts else ""


def _describe(item: _Active) -> str:
    """What runs, and the update its log has come to."""
    updates = _UPDATES.findall(_end(item.process.log))
    done = f", update {int(updates[-1]):,}" if updates else ""
    return f"{item.run.name}: {item.process.label}{done}"


def _end(log: Path) -> bytes:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 4000))
        return file.read()
    return b""
