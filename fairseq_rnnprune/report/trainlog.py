"""Sparsity and threshold over the updates of a training, from fairseq's JSON log."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_rnnprune.checkpoint import Checkpoint

_BY_TYPE = ("sparsity_", "threshold_")


@dataclass(frozen=True)
class TrainLog:
    """Curves by name (`sparsity`, `sparsity_<type>`, `threshold_<type>`): update -> value."""

    path: Path
    curves: dict[str, dict[int, float]]

    def by_type(self, quantity: str) -> dict[str, dict[int, float]]:
        """The curves of `quantity` (sparsity or threshold) by type of weights."""
        start = f"{quantity}_"
        return {n.removeprefix(start): c for n, c in self.curves.items() if n.startswith(start)}


def read_train_log(path: str | Path) -> TrainLog:
    """Reads a log that `fairseq-train --log-format json` wrote, or the output it printed.

    Of an update that a resumed run repeats, the last line counts. ValueError if the file cannot
    be read or says nothing about sparsity.
    """
    path = Path(path)
    curves: dict[str, dict[int, float]] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                _collect(_parse(line), curves)
    except OSError as error:
        raise ValueError(
            f"read_train_log: expected a training log, got {path}: {error.strerror}"
        ) from None
    if not curves:
        raise ValueError(
            f"read_train_log: expected the log of a pruned training, got {path} without a line "
            "on sparsity; train with --optimizer pruned --log-format json --log-file FILE"
        )
    return TrainLog(path, {n: dict(sorted(c.items())) for n, c in sorted(curves.items())})


def find_train_log(checkpoint: Checkpoint) -> Path | None:
    """The log of the training that wrote a checkpoint: its --log-file, or train.log beside it.

    A relative --log-file comes last: it was relative to where the training was started.
    """
    log_file = checkpoint.option("common", "log_file")
    candidates = [checkpoint.path.parent / "train.log"]
    if isinstance(log_file, str):
        candidates.insert(0 if Path(log_file).is_absolute() else 1, Path(log_file))
    return next((path for path in candidates if path.is_file()), None)


def _parse(line: str) -> dict[str, Any]:
    """The JSON object that ends a line, whatever the logger wrote before it."""
    start = line.find("{")
    if start < 0:
        return {}
    try:
        stats = json.loads(line[start:])
    except ValueError:
        return {}
    return stats if isinstance(stats, dict) else {}


def _collect(stats: dict[str, Any], curves: dict[str, dict[int, float]]) -> None:
    # The summary of an epoch writes `train_` before every name.
    stats = {name.removeprefix("train_"): value for name, value in stats.items()}
    update = _number(stats.get("num_updates"))
    if update is None:
        return
    for name, value in stats.items():
        number = _number(value)
        if number is not None and (name == "sparsity" or name.startswith(_BY_TYPE)):
            curves.setdefault(name, {})[int(update)] = number


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
