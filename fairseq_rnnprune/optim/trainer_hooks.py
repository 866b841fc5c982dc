"""What only fairseq's Trainer knows and the pruned optimizer needs, and what would lose masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fairseq.data.iterators import EpochBatchIterating
from fairseq.optim.fp16_optimizer import FP16Optimizer
from fairseq.trainer import Trainer

from fairseq_rnnprune.compat.wrap import wrap_once
from fairseq_rnnprune.pruning import prunable_parameters, read_tag, remove_tags, tag_prunable

from . import averaged, best_checkpoint
from .pruned import STATE, PrunedOptimizer, pruned_optimizer
from .refused import check_training
from .targets import warn_at_the_end, warn_of_other_zeros, with_zeros

_DENSE_OPTIMIZER = (
    "fairseq-train: expected --optimizer pruned, as the checkpoint has masks, got a dense one, "
    "which would lose them; give it, or --reset-optimizer to go on dense"
)


def install() -> None:
    """Wraps methods of fairseq; a second call changes nothing."""
    wrap_once(Trainer, "get_train_iterator", _tell_epoch_lengths)
    wrap_once(Trainer, "lr_step", _tell_of_the_last_rate)
    wrap_once(Trainer, "_build_optimizer", _build_for_masks)
    wrap_once(Trainer, "load_checkpoint", _tell_of_lost_masks)
    wrap_once(FP16Optimizer, "load_state_dict", _refuse_masks_of_others)


def _tell_epoch_lengths(
    original: Callable, self: Trainer, epoch: int, *args: Any, **kwargs: Any
) -> Any:
    """An optimizer never learns how long an epoch is, but schedules are given in epochs."""
    iterator = original(self, epoch, *args, **kwargs)
    optimizer = pruned_optimizer(self.optimizer)
    if optimizer is not None:
        options = self.cfg.optimization
        lengths = _updates_of_an_epoch(self.cfg, iterator)
        # Epochs before this one were another optimizer's, or this one has started already.
        optimizer.start(lengths[min(epoch, len(lengths)) - 1 :], epochs_before=epoch - 1)
        # fairseq asks for one epoch more than it trains.
        if options.max_epoch and epoch > options.max_epoch:
            warn_at_the_end(optimizer.pruner)
    return iterator


def _tell_of_the_last_rate(original: Callable, self: Trainer, *args: Any, **kwargs: Any) -> Any:
    """fairseq ends a training at --stop-min-lr after the epoch that came so far."""
    rate = original(self, *args, **kwargs)
    optimizer = pruned_optimizer(self.optimizer)
    if optimizer is not None and rate <= self.cfg.optimization.stop_min_lr:
        warn_at_the_end(optimizer.pruner)
    return rate


def _updates_of_an_epoch(cfg: Any, iterator: EpochBatchIterating) -> list[int]:
    """As many as fairseq makes of these batches, for every value of --update-freq.

    [] where a task streams its data: then nobody knows.
    """
    try:
        batches, updates = len(iterator), math.ceil
    except NotImplementedError:
        # fairseq.data.iterators.EpochBatchIterating, which a StreamingEpochBatchIterator leaves so.
        return []
    if cfg.dataset.grouped_shuffling:
        # Batches are shuffled in groups, one for each process; what fills no group is left out.
        batches = len(iterator.frozen_batches) // iterator.num_shards
    if cfg.optimization.skip_remainder_batch:
        # fairseq leaves out the last batch, whole or not, and then updates that are not whole.
        batches, updates = batches - 1, math.floor
    return [updates(batches / n) for n in cfg.optimization.update_freq]


def _build_for_masks(original: Callable, self: Trainer) -> None:
    """The optimizer never sees the model: here its weights get tags, and its dropout is handed on.

    fairseq flattens fp16 parameters, or hides an optimizer, before that can refuse.
    """
    name = getattr(self.cfg.optimizer, "_name", None)
    if name == "pruned":
        check_training(self.cfg)
        # Models of this package have tags since they were built; others are pruned, too.
        if not any(read_tag(p) for p in self._model.parameters()):
            tag_prunable(self._model)
        averaged.install()
        # Whatever trains has been imported by now.
        best_checkpoint.install()
    elif name == "composite":
        # It takes tags for options of parameters, and wants those of a group to be equal.
        remove_tags(self.model)
    original(self)
    if name == "pruned":
        pruned_optimizer(self.optimizer).adjust_dropout(self._model)


def _tell_of_lost_masks(original: Callable, self: Trainer, *args: Any, **kwargs: Any) -> Any:
    """A dense optimizer takes zeros for weights like any other, and fairseq advises to reset it."""
    name = getattr(self.cfg.optimizer, "_name", None)
    weights = prunable_parameters(self._model)
    try:
        extra_state = original(self, *args, **kwargs)
    except AssertionError as error:
        # The weights have been loaded by then.
        if name != "pruned" and "Optimizer does not match" in str(error) and with_zeros(weights):
            raise ValueError(_DENSE_OPTIMIZER) from error
        raise
    if name != "pruned" and extra_state is not None:
        warn_of_other_zeros(weights, f"--optimizer {name} has no masks; give --optimizer pruned")
    return extra_state


def _refuse_masks_of_others(
    original: Callable, self: FP16Optimizer, state_dict: dict[str, Any], *args: Any
) -> None:
    """fairseq compares the classes of optimizers, which fp16 hides behind one of its own."""
    if STATE in state_dict and not isinstance(self.fp32_optimizer, PrunedOptimizer):
        raise ValueError(_DENSE_OPTIMIZER)
    original(self, state_dict, *args)
