"""What a fairseq checkpoint says of a model and its training, without fairseq."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .file import load_state


@dataclass(frozen=True)
class Checkpoint:
    """The parts of a checkpoint that tell what a model weighs and how it was trained.

    `model` holds the tensors by name, on the CPU; tied matrices share storage. `config` is
    fairseq's configuration as nested dicts, or one flat dict from old versions. `updates` and
    `epochs` (which may end in a fraction) tell how far the training was, `training_seconds` how
    long it took, validation and interrupted runs included; None means unknown. `block_shapes` are
    those by type of the pruned optimizer, empty after a dense one.
    """

    path: Path
    model: dict[str, Tensor]
    config: dict[str, Any]
    updates: int | None
    epochs: float | None
    training_seconds: float | None = None
    block_shapes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def option(self, group: str, name: str) -> Any:
        """An option of the configuration, such as ("optimization", "max_epoch"), or None."""
        return _dict(self.config.get(group), self.config).get(name)

    def check_finite(self) -> None:
        """Raises ValueError if a tensor of the model has a NaN or inf."""
        bad = [n for n, t in self.model.items() if t.is_floating_point() and not _is_finite(t)]
        if bad:
            raise ValueError(
                f"{self.path}: expected finite weights, got NaN or inf in {bad[0]}"
                f"{f' and {len(bad) - 1} more' if len(bad) > 1 else ''}; the training diverged, "
                "take an earlier checkpoint"
            )


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads a fairseq checkpoint, a file of `rnnprune export` or a plain state dict of tensors.

    ValueError, in one line, if the file is missing, truncated or anything else.
    """
    path = Path(path)
    return checkpoint_of(load_state(path), path)


def checkpoint_of(loaded: Any, path: Path) -> Checkpoint:
    """The parts of what `load_state` has read from a file; ValueError as `read_checkpoint`'s."""
    if isinstance(loaded, Mapping) and isinstance(loaded.get("model"), Mapping):
        model = _tensors(loaded["model"])
    else:
        loaded, model = {}, _tensors(loaded if isinstance(loaded, Mapping) else {})
    if not model:
        raise ValueError(
            "read_checkpoint: expected a fairseq checkpoint or a state dict of tensors, "
            f"got {path}, which holds no tensors of a model; name a file that fairseq-train wrote"
        )
    _check_kinds(model, path)
    config = _dict(loaded.get("cfg")) or _dict(loaded.get("args"))
    history = loaded.get("optimizer_history")
    last = history[-1] if isinstance(history, list) and history else {}
    # A packed file keeps that part of the optimizer's state only.
    pruning = _dict(_dict(loaded.get("last_optimizer_state"), loaded).get("rnnprune"))
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
        training_seconds=seconds if isinstance(seconds, float) else None,
        block_shapes={t: tuple(shape) for t, shape in _dict(pruning.get("block_shape")).items()},
    )


def _is_finite(tensor: Tensor) -> bool:
    # A part at a time, for isfinite makes copies.
    return all(bool(part.isfinite().all()) for part in tensor.flatten().split(1 << 20))


def _check_kinds(model: Mapping[str, Tensor], path: Path) -> None:
    """Refuses what other programs save, and torch cannot count, compare or call finite."""
    for name, t in model.items():
        has_data = t.layout is torch.strided and not t.is_meta and not t.is_quantized
        if not has_data or (t.is_floating_point() and t.element_size() < 2):
            raise ValueError(
                f"{path}: expected dense tensors, floating-point ones of 16 bits or more, got "
                f"{name}: {t.dtype}, {t.layout} on {t.device}; convert it, or leave it out"
            )


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
        if tensor.dim() == 2 and tensor.numel() > 0:
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
