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
    wrap_once(Trainer, "get_train_iterator", _tell_epoch_lengths)
    wrap_once(Trainer, "_build_optimizer", _refuse_what_loses_masks)


def _tell_epoch_lengths(original: Callable) -> Callable:
    """An optimizer never learns how long an epoch is, but schedules are given in epochs."""

    def get_train_iterator(self: Trainer, epoch: int, *args: Any, **kwargs: Any) -> Any:
        iterator = original(self, epoch, *args, **kwargs)
        optimizer = getattr(self.optimizer, "fp32_optimizer", self.optimizer)
        if isinstance(optimizer, PrunedOptimizer):
            options = self.cfg.optimization
            updates = math.floor if options.skip_remainder_batch else math.ceil
            optimizer.start([updates(len(iterator) / n) for n in options.update_freq])
        return iterator

    return get_train_iterator


def _refuse_what_loses_masks(original: Callable) -> Callable:
    """fairseq flattens fp16 parameters, or hides an optimizer, before that can refuse."""

    def _build_optimizer(self: Trainer) -> None:
        if getattr(self.cfg.optimizer, "_name", None) == "pruned":
            _check(self.cfg)
        original(self)

    return _build_optimizer


def _check(cfg: Any) -> None:
    common = cfg.common
    if common.memory_efficient_fp16:
        raise ValueError(
            "--optimizer pruned: expected weights in fp32, got --memory-efficient-fp16; "
            "use --fp16 --fp16-no-flatten-grads"
        )
    if common.fp16 and not common.fp16_no_flatten_grads:
        raise ValueError(
            "--optimizer pruned: expected one parameter per weight, got flat --fp16; "
            "add --fp16-no-flatten-grads"
        )
    if common.amp:
        raise ValueError(
            "--optimizer pruned: expected checkpoints with the optimizer's masks, got --amp, which "
            "leaves them out; use --fp16 --fp16-no-flatten-grads"
        )
    if cfg.optimization.use_bmuf:
        raise ValueError(
            "--optimizer pruned: expected the updates of one optimizer, got --use-bmuf, which "
            "averages weights between them; leave it out"
        )
