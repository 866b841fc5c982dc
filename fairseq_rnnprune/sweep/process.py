"""The processes of a sweep: each with a log, in a group of its own that can be stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import guard

GRACE_SECONDS = 10.0
LINES = 15


@dataclass(frozen=True)
class Process:
    """A running command: what it is of its run, its log, its guard."""

    label: str
    log: Path
    guard: subprocess.Popen

    @property
    def is_running(self) -> bool:
        return self.guard.poll() is None

    def check(self) -> None:
        """RuntimeError with the last lines of the log if the command has failed."""
        self.guard.stdin.close()
        if self.guard.returncode:
            raise RuntimeError(
                f"{self.label}: exit status {self.guard.returncode}; {self.log} ends with\n"
                + last_lines(self.log)
            )


def start(
    label: str,
    arguments: Sequence[str],
    log: Path,
    environment: Mapping[str, str],
    inherited: Iterable[int] = (),
) -> Process:
    """Starts a command whose output is appended to `log`; it inherits these file descriptors."""
    with log.open("ab") as file:
        # -I: modules in the current folder must not get in the way of the guard.
        child = subprocess.Popen(
            [sys.executable, "-I", guard.__file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=tuple(inherited),
            start_new_session=True,
        )
    return Process(label, log, child)


def stop(processes: Iterable[Process]) -> None:
    """Ends commands and all that they have started: first politely, then for good."""
    running = [p for p in processes if p.is_running]
    for process in running:
        _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    for process in running:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.guard.wait(max(0.0, deadline - time.monotonic()))
        if process.is_running:
            _signal(process, signal.SIGKILL)
            process.guard.wait()
        process.guard.stdin.close()


def last_lines(log: Path) -> str:
    """The end of a log."""
    with log.open(encoding="utf-8", errors="replace") as file:
        return "".join(deque(file, LINES)).rstrip()


def _signal(process: Process, number: int) -> None:
    # Its own session makes the guard's number that of the group.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.guard.pid, number)
