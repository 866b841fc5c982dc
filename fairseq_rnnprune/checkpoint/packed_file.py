"""A model in one file of safetensors: weights packed, options and task as JSON, no pickle.

The file stands in for a fairseq checkpoint wherever one is only run or looked at: reading it gives
what torch.load gives of a checkpoint, without the optimizer's state, whose zeros are exact.
"""

from __future__ import annotations

import json
import os
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .matrices import from_arrays, to_arrays
from .tree import from_json, to_json

_FORMAT = "rnnprune 1"
# What a model needs of a checkpoint's parts to be built and run, and reports to tell its history.
_PARTS = ("args", "cfg", "task_state")
_STATE = "@state"


def is_packed_file(path: str | Path) -> bool:
    """Whether a file begins as those of safetensors do: the length of a JSON header, a brace."""
    with open(path, "rb") as file:
        start = file.read(9)
    # safetensors itself allows no longer header.
    return start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= 100_000_000


def is_exported(path: str | Path) -> bool:
    """Whether a file is one of `rnnprune export`: other programs write safetensors as well."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return (file.metadata() or {}).get("format") == _FORMAT
    except (SafetensorError, OSError):
        return False


def write_packed_file(
    path: str | Path,
    state: Mapping[str, Any],
    model: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float32,
) -> None:
    """Writes a model whose matrices have values of `dtype`: float32, bfloat16, int16 or int8.

    `state` is what a checkpoint holds, `model` its weights, tied ones sharing memory. The file
    appears whole or not at all. ValueError for a checkpoint of anything but plain values and for a
    path that is not UTF-8, OSError for a file that cannot be written.
    """
    path = Path(path)
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"write_packed_file: expected a path in UTF-8, which safetensors needs, got {path}; "
            "name another"
        ) from None
    arrays, layout = to_arrays(model, dtype)
    parts = {name: state.get(name) for name in _PARTS}
    parts |= {"optimizer_history": [_history(state)], "extra_state": _extra(state)}
    pruning = (state.get("last_optimizer_state") or {}).get("rnnprune") or state.get("rnnprune")
    if pruning is not None:
        parts["rnnprune"] = {"block_shape": pruning["block_shape"]}
    layout["state"] = to_json(parts, arrays, _STATE)
    metadata = {"format": _FORMAT, "layout": json.dumps(layout)}
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    try:
        save_file(arrays, temporary, metadata)
        # mkstemp's are for their owner alone.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException as error:
        os.unlink(temporary)
        if isinstance(error, SafetensorError):
            raise OSError(f"write_packed_file: cannot write {path}: {error}") from None
        raise


def read_packed_file(path: str | Path) -> dict[str, Any]:
    """What torch.load gives of a checkpoint: args, cfg, model (float32), task_state, history.

    ValueError, in one line, for a file that is torn or has other contents; values that changed on
    the way are not noticed, as safetensors has no checksum.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError(
                    f"expected a file of `rnnprune export` (format {_FORMAT!r}), got format "
                    f"{metadata.get('format')!r}"
                )
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        layout = json.loads(metadata["layout"])
        state = from_json(layout["state"], arrays)
        return {**state, "model": from_arrays(arrays, layout)}
    except (SafetensorError, LookupError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"read_packed_file: expected a whole packed file, got {path}: {reason:.300}; export it "
            "again"
        ) from None


def _history(state: Mapping[str, Any]) -> dict[str, Any]:
    """The last entry of the optimizer's history, which fairseq asks for the number of updates."""
    history = state.get("optimizer_history") or [{}]
    kept = ("criterion_name", "optimizer_name", "num_updates")
    entry = {name: history[-1][name] for name in kept if name in history[-1]}
    return {"num_updates": 0, "optimizer_name": "", **entry, "lr_scheduler_state": {}}


def _extra(state: Mapping[str, Any]) -> dict[str, Any]:
    extra = state.get("extra_state") or {}
    iterator = extra.get("train_iterator") or {}
    position = {name: iterator.get(name, 0) for name in ("epoch", "iterations_in_epoch")}
    return {
        "train_iterator": position,
        "previous_training_time": extra.get("previous_training_time"),
    }
