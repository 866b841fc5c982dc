"""Short names for what a command compares."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path


def short_labels(paths: Iterable[Path]) -> list[str]:
    """What tells paths apart: the directories and names that not all of them share.

    The label of one path alone is its file name; equal paths are numbered.
    """
    parts = [Path(os.path.abspath(p)).parts for p in paths]
    if len(parts) == 1:
        return [parts[0][-1]]
    before = len(os.path.commonprefix(parts))
    after = len(os.path.commonprefix([p[before:][::-1] for p in parts]))
    labels = ["/".join(p[before : len(p) - after]) or p[-1] for p in parts]
    return [
        label if labels.count(label) == 1 else f"{label} #{i}" for i, label in enumerate(labels, 1)
    ]
