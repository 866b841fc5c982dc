"""Two things that only fairseq's Trainer knows and the pruned optimizer needs at start."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fairseq.trainer import Trainer

from fairseq_rnnprune.compat.wrap import wrap_once

from .pruned import PrunedOptimizer


def install() -> None:
    """Wraps two methods of Trainer; a second call changes nothing."""
    wrap_once(Trainer, "get_train_iterator", _tell_epoch_length)
    wrap_once(Trainer, "_build_optimizer", _refuse_flat_fp16)


def _tell_epoch_length(original: Callable) -> Callable:
    """An optimizer never learns how long an epoch is, but schedules are given in epochs."""

    def get_train_iterator(self: Trainer, epoch: int, *args: Any, **kwargs: Any) -> Any:
        iterator = original(self, epoch, *args, **kwargs)
        optimizer = getattr(self.optimizer, "fp32_optimizer", self.optimizer)
        if isinstance(optimizer, PrunedOptimizer):
            frequencies = self.cfg.optimization.update_freq
            frequency = frequencies[min(epoch, len(frequencies)) - 1]
            optimizer.start(math.ceil(len(iterator) / frequency))
        return iterator

    return get_train_iterator


def _refuse_flat_fp16(original: Callable) -> Callable:
    """fairseq flattens fp16 parameters before an optimizer can refuse them."""

    def _build_optimizer(self: Trainer) -> None:
        common = self.cfg.common
        pruned = getattr(self.cfg.optimizer, "_name", None) == "pruned"
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
        original(self)

    return _build_optimizer
