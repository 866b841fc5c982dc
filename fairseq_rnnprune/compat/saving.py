"""Checkpoints that are whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable

from .wrap import wrap_once


def copy_checkpoints_whole() -> None:
    """Copy a checkpoint beside its other name first, and rename it then.

    fairseq writes a checkpoint so, but copies it straight over checkpoint_last.pt: who was killed
    meanwhile had a file there that nobody reads, and a training that did not go on.
    """
    from fairseq.file_io import PathManager

    def copy(original: Callable, src_path: str, dst_path: str, overwrite: bool = False) -> bool:
        # iopath takes addresses as well, for which it has no rename.
        if not (overwrite and PathManager.supports_rename(dst_path)):
            return original(src_path, dst_path, overwrite)
        temporary = f"{dst_path}.tmp"
        copied = original(src_path, temporary, overwrite)
        os.replace(temporary, dst_path)
        return copied

    wrap_once(PathManager, "copy", copy)
