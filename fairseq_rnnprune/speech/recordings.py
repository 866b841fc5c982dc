"""Finds recordings in folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

# What people have. Whether it can be read is seen later: what is left out here, nobody misses.
SUFFIXES = (
    *(".aac", ".aif", ".aifc", ".aiff", ".amr", ".au", ".caf", ".flac", ".m4a", ".mka", ".mp2"),
    *(".mp3", ".mp4", ".oga", ".ogg", ".opus", ".rf64", ".snd", ".sph", ".voc", ".w64", ".wav"),
    *(".wave", ".webm", ".wma"),
)


def find_recordings(paths: Iterable[Path]) -> Iterator[Path | ValueError]:
    """Files as they are; what is a recording by its name in folders at any depth, sorted.

    ValueErrors, not raised, for folders without one and for those that cannot be read.
    """
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        closed: list[OSError] = []
        found = sorted(_recordings(path, closed.append))
        yield from found
        for error in closed:
            yield ValueError(
                f"{error.filename}: expected a folder that can be read, got {error.strerror}"
            )
        if not found and not closed:
            yield ValueError(f"{path}: expected recordings ({' '.join(SUFFIXES)}), got none")


def _recordings(folder: Path, on_error: Callable[[OSError], None]) -> Iterator[Path]:
    """Every recording once, by its name; links are followed, and one that is broken is named."""
    seen = {os.path.realpath(folder)}
    for root, folders, files in os.walk(folder, onerror=on_error, followlinks=True):
        # A link may lead back, or where another path has led.
        targets = {
            os.path.realpath(os.path.join(root, name)): name
            for name in sorted(folders, reverse=True)
        }
        folders[:] = [name for target, name in targets.items() if target not in seen]
        seen.update(targets)
        yield from (Path(root, name) for name in files if Path(name).suffix.lower() in SUFFIXES)
