"""Reads the file of a checkpoint without running any code in it."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from .packed_file import is_packed_file, read_packed_file


def checkpoint_globals() -> list:
    """What torch.load must be told to allow in the checkpoints of fairseq-train.

    The options of a model with named sizes are a Namespace, and --eval-bleu leaves counts of
    n-grams as numpy arrays of integers.
    """
    # numpy 1 has it under another name.
    core = np._core if hasattr(np, "_core") else np.core
    arrays = [core.multiarray._reconstruct, np.ndarray, np.dtype, type(np.dtype(np.int64))]
    return [argparse.Namespace, *arrays]


def load_state(path: Path) -> Any:
    """What torch.load gives of a checkpoint, or `read_packed_file` of a packed file.

    ValueError, in one line, if the file is missing, truncated or of another format. Nothing but
    tensors, containers, numbers, strings and what `checkpoint_globals` names is unpickled.
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
    torch.serialization.add_safe_globals(checkpoint_globals())
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
