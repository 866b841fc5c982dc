"""Numbers of updates, as options give them: as such, in epochs, in per cent of the training."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf


def read_updates(cfg: Any, option: str, text: str, epoch_lengths: Sequence[int]) -> int:
    """Reads a number of updates written as N, 2e (epochs) or 25% (of the training)."""
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)(e|%)", str(text))
    if not match:
        raise ValueError(
            f"{option}: expected updates (3000), epochs (2e) or per cent (25%), got {text!r}"
        )
    if match[1]:
        return int(match[1])
    amount = float(match[2])
    if match[3] == "e":
        return _updates_in(amount, option, text, epoch_lengths)
    return round(amount / 100 * _total_updates(cfg, option, text, epoch_lengths))


def _total_updates(cfg: Any, option: str, text: str, epoch_lengths: Sequence[int]) -> int:
    """Updates of the whole training, of which an option gives a part."""
    if not cfg.max_update and not cfg.max_epoch:
        raise ValueError(
            f"{option}: expected --max-update or --max-epoch, of which {text} is a part, got "
            "neither; give one of them, or give the option in updates"
        )
    if not cfg.max_update:
        return _updates_in(cfg.max_epoch, option, text, epoch_lengths)
    return training_updates(cfg, epoch_lengths)


def training_updates(cfg: Any, epoch_lengths: Sequence[int], made: int = 0) -> int | None:
    """Updates after which --max-update or --max-epoch ends the training, as far as is known.

    So many were `made` before the first epoch that --max-epoch counts.
    """
    totals = [cfg.max_update] if cfg.max_update else []
    if cfg.max_epoch and epoch_lengths:
        totals.append(made + _updates_in(cfg.max_epoch, "--max-epoch", "", epoch_lengths))
    return min(totals, default=None)


def _updates_in(epochs: float, option: str, text: str, epoch_lengths: Sequence[int]) -> int:
    """Updates in so many epochs, from the first one on."""
    if not epoch_lengths:
        raise ValueError(
            f"{option}: expected a known epoch length for {text}, got none, as outside "
            "fairseq-train and of streamed data; give the option in updates"
        )
    whole, last = int(epochs), len(epoch_lengths) - 1
    lengths = [epoch_lengths[min(i, last)] for i in range(whole + 1)]
    return round(sum(lengths[:-1]) + (epochs - whole) * lengths[-1])


def without_epochs(cfg: DictConfig, before: int) -> DictConfig:
    """The options of a training whose first epochs another optimizer has made."""
    if not before or not cfg.max_epoch:
        return cfg
    return OmegaConf.merge(cfg, {"max_epoch": max(1, cfg.max_epoch - before)})
