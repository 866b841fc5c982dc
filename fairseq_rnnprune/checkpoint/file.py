"""Reads the file of a checkpoint without running any code in it."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from .packed_file import is_packed_file, read_packed_file


def load_state(path: Path) -> Any:
    """What torch.load gives of a checkpoint, or `read_packed_file` of a packed file.

    ValueError, in one line, if the file is missing, truncated or of another format. Nothing but
    tensors, containers, numbers, strings and argparse.Namespace (in which fairseq keeps a
    model's options) is unpickled.
    """
    if path.is_dir():
        raise ValueError(
            f"read_checkpoint: expected a file, got the directory {path}; "
            f"name a checkpoint in it, such as {path / 'checkpoint_best.pt'}"
        )
    if not path.exists():
        raise ValueError(f"read_checkpoint: expected a checkpoint file, got none at {path}")
    with path.open("rb") as file:
        start = file.read(4)
    if not start:
        raise ValueError(f"read_checkpoint: expected a checkpoint, got the empty file {path}")
    if start == b"PK\3\4" and not zipfile.is_zipfile(path):
        raise ValueError(
            f"read_checkpoint: expected a whole checkpoint, got {path}, which is truncated; "
            "copy it again or take an older one"
        )
    if is_packed_file(path):
        return read_packed_file(path)
    # For good: the context manager `safe_globals` would, on leaving, take it from fairseq as well.
    torch.serialization.add_safe_globals([argparse.Namespace])
    try:
        # torch warns about archives that it then refuses: one line must be enough.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    # A file of another format can break the unpickler in any way there is.
    except Exception as error:
        refused = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:global|class) ([\w.]+)", str(error))
        if refused:
            raise ValueError(
                f"read_checkpoint: expected tensors, numbers and strings only, got {path} with "
                f"an object of {refused[1] or refused[2]}, which could run code; "
                "name a file that fairseq-train wrote"
            ) from None
        raise ValueError(
            f"read_checkpoint: expected a file written by fairseq-train or torch.save, got {path}, "
            "which is truncated or of another format"
        ) from None
