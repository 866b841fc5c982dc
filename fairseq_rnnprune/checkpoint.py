"""Reads a fairseq checkpoint without fairseq, and without running any code in it."""

from __future__ import annotations

import argparse
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a checkpoint that tell what a model weighs and how it was trained.

    `model` holds the tensors by name, on the CPU; tied matrices share storage. `config` is
    fairseq's configuration as nested dicts, or one flat dict from old versions. `updates` and
    `epochs` (which may end in a fraction) tell how far the training was, `training_seconds` how
    long it took, validation and interrupted runs included; None means unknown.
    """

    path: Path
    model: dict[str, Tensor]
    config: dict[str, Any]
    updates: int | None
    epochs: float | None
    optimizer_state: dict[str, Any] | None
    training_seconds: float | None = None

    def option(self, group: str, name: str) -> Any:
        """An option of the configuration, such as ("optimization", "max_epoch"), or None."""
        return _dict(self.config.get(group), self.config).get(name)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a fairseq checkpoint or a plain state dict of tensors.

    ValueError, in one line, if the file is missing, truncated or anything else. Nothing but
    tensors, containers, numbers, strings and argparse.Namespace (in which fairseq keeps a
    model's options) is unpickled.
    """
    path = Path(path)
    loaded = _load(path)
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        model = _tensors(loaded["model"])
    else:
        loaded, model = {}, _tensors(loaded if isinstance(loaded, Mapping) else {})
    if not model:
        raise ValueError(
            "read_checkpoint: expected a fairseq checkpoint or a state dict of tensors, "
            f"got {path}, which holds no tensors of a model; name a file that fairseq-train wrote"
        )
    config = _dict(loaded.get("cfg")) or _dict(loaded.get("args"))
    history = loaded.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else {}
    updates = _int(_dict(last).get("num_updates"))
    extra = _dict(loaded.get("extra_state"))
    iterator = _dict(extra.get("train_iterator"))
    seconds = extra.get("previous_training_time")
    frequency = _dict(config.get("optimization"), config).get("update_freq")
    return Checkpoint(
        path=path,
        model=_tie(model),
        config=config,
        updates=updates,
        epochs=_epochs(iterator, updates, frequency),
        optimizer_state=_dict(loaded.get("last_optimizer_state")) or None,
        training_seconds=seconds if isinstance(seconds, float) else None,
    )


def _load(path: Path) -> Any:
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


def _tensors(values: Mapping[Any, Any]) -> dict[str, Tensor]:
    return {n: t for n, t in values.items() if isinstance(n, str) and isinstance(t, Tensor)}


def _tie(model: dict[str, Tensor]) -> dict[str, Tensor]:
    """Makes equal matrices one tensor again.

    fairseq copies every tensor of a GPU or fp16 model before saving it, so an output layer that
    is tied to an embedding arrives twice. Untrained zeros may be equal without being tied.
    """
    firsts: dict[tuple[object, ...], list[Tensor]] = {}
    tied = {}
    for name, tensor in model.items():
        if tensor.dim() == 2 and tensor.numel() > 0 and tensor.layout is torch.strided:
            seen = firsts.setdefault((tensor.shape, tensor.dtype), [])
            match = next((s for s in seen if torch.equal(s, tensor)), None)
            if match is None:
                seen.append(tensor)
            elif match.any():
                tensor = match
        tied[name] = tensor
    return tied


def _epochs(iterator: dict[str, Any], updates: int | None, frequency: Any) -> float | None:
    """Epochs done, from the position in the data; None inside the first one, of unknown length."""
    epoch, batches = _int(iterator.get("epoch")), _int(iterator.get("iterations_in_epoch"))
    if epoch is None or batches is None:
        return None
    finished = epoch - 1
    if batches == 0:
        return float(finished) or None
    if finished < 1 or not updates:
        return None
    accumulated = frequency[-1] if isinstance(frequency, list) and frequency else 1
    in_finished = updates - batches / accumulated
    return finished * updates / in_finished if in_finished > 0 else None


def _dict(value: Any, default: dict[str, Any] | None = None) -> dict[str, Any]:
    if isinstance(value, argparse.Namespace):
        return vars(value)
    return value if isinstance(value, dict) else default or {}


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None
