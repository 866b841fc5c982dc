"""Two things that only fairseq's Trainer knows and the pruned optimizer needs at start."""

from __future__ import annotations

import functools
import math
from typing import Any

from fairseq.trainer import Trainer

from .pruned import PrunedOptimizer


def install() -> None:
    """Wraps two methods of Trainer; a second call changes nothing."""
    if not hasattr(Trainer.get_train_iterator, "__wrapped__"):
        Trainer.get_train_iterator = _tell_epoch_length(Trainer.get_train_iterator)
        Trainer._build_optimizer = _refuse_flat_fp16(Trainer._build_optimizer)


def _tell_epoch_length(get_train_iterator: Any) -> Any:
    """An optimizer never learns how long an epoch is, but schedules are given in epochs."""

    @functools.wraps(get_train_iterator)
    def wrapper(trainer: Trainer, epoch: int, *args: Any, **kwargs: Any) -> Any:
        iterator = get_train_iterator(trainer, epoch, *args, **kwargs)
        optimizer = getattr(trainer.optimizer, "fp32_optimizer", trainer.optimizer)
        if isinstance(optimizer, PrunedOptimizer):
            frequencies = trainer.cfg.optimization.update_freq
            frequency = frequencies[min(epoch, len(frequencies)) - 1]
            optimizer.start(math.ceil(len(iterator) / frequency))
        return iterator

    return wrapper


def _refuse_flat_fp16(build_optimizer: Any) -> Any:
    """fairseq flattens fp16 parameters before an optimizer can refuse them."""

    @functools.wraps(build_optimizer)
    def wrapper(trainer: Trainer) -> None:
        common = trainer.cfg.common
        pruned = getattr(trainer.cfg.optimizer, "_name", None) == "pruned"
        if pruned and common.memory_efficient_fp16:
            raise ValueError(
                "--optimizer pruned: expected weights in fp32, got --memory-efficient-fp16; "
                "use --fp16 --fp16-no-flatten-grads"
            )
        if pruned and common.fp16 and not common.fp16_no_flatten_grads:
            raise ValueError(
                "--optimizer pruned: expected one parameter per weight, got flat --fp16; "
                "add --fp16-no-flatten-grads"
            )
        build_optimizer(trainer)

    return wrapper
