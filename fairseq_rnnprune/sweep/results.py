"""The results file of a sweep: one line per finished run, whole or absent, one writer at a time."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .rows import Row, parse_lines

# What was started by a sweep that was killed is gone in less.
LOCK_SECONDS = 3.0


@contextlib.contextmanager
def locked(path: Path) -> Iterator[int]:
    """Holds a file, which is made if it is absent, for this sweep; gives its descriptor.

    Processes that inherit the descriptor hold the lock with it. ValueError if another sweep has it.
    """
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise ValueError(
                        f"sweep: expected {path} for this sweep alone, got one that another sweep "
                        "or a command of it holds; wait for its end, or give other --results and "
                        "another --work"
                    ) from None
                time.sleep(0.05)
        yield descriptor
    finally:
        os.close(descriptor)


def load(path: Path) -> list[Row]:
    """The rows of a results file; none if there is no file."""
    return parse_lines(path.read_bytes(), path)[0] if path.exists() else []


def repair(descriptor: int, path: Path) -> bool:
    """Cuts off a torn last line, and ends a whole one; True if a line was torn."""
    content = path.read_bytes()
    end = parse_lines(content, path)[1]
    if end < len(content):
        os.ftruncate(descriptor, end)
        os.fsync(descriptor)
        return True
    if content and not content.endswith(b"\n"):
        _write(descriptor, b"\n")
    return False


def append(descriptor: int, row: Row) -> None:
    """Adds a row, on the disk when this returns."""
    _write(descriptor, (json.dumps(row) + "\n").encode())


def _write(descriptor: int, line: bytes) -> None:
    written = os.write(descriptor, line)
    if written < len(line):
        raise OSError(f"sweep: expected to write {len(line)} bytes of results, got {written} done")
    os.fsync(descriptor)
