"""The best checkpoints are of those whose masks are final; early stopping waits for them, and so
does reduce_lr_on_plateau.

A model that is still dense is nearly always better than what it is pruned to.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

from fairseq import checkpoint_utils
from fairseq.trainer import Trainer
from omegaconf import OmegaConf
from torch.optim.lr_scheduler import ReduceLROnPlateau

from fairseq_rnnprune.compat.wrap import wrap_once

from .pruned import pruned_optimizer
from .targets import warn_at_the_end

# `python -m fairseq_cli.train` runs fairseq-train under another name.
_MODULES = ("fairseq_cli.train", "__main__")
_FUNCTION = "validate_and_save"


def install() -> None:
    """Wraps a function of fairseq-train, if that runs; a second call changes nothing."""
    for module in map(sys.modules.get, _MODULES):
        if hasattr(module, _FUNCTION):
            wrap_once(module, _FUNCTION, partial(_compare_final_masks, module))
            wrapped = getattr(module, _FUNCTION)
            # In a process that multiprocessing has started, functions of the main module look
            # others up in a namespace that is not the module's.
            inspect.unwrap(wrapped).__globals__[_FUNCTION] = wrapped


def _compare_final_masks(
    module: ModuleType, original: Callable, cfg: Any, trainer: Trainer, *args: Any, **kwargs: Any
) -> Any:
    optimizer = pruned_optimizer(trainer.optimizer)
    if optimizer is None:
        return original(cfg, trainer, *args, **kwargs)
    if not optimizer.best_has_final_masks:
        # fairseq keeps the best loss so far as attributes of functions.
        for function in (checkpoint_utils.save_checkpoint, module.should_stop_early):
            vars(function).pop("best", None)
        _forget_best(trainer.lr_scheduler)
    is_final = optimizer.pruner.is_final()
    # This runs after every update.
    if not is_final and cfg.checkpoint.keep_best_checkpoints > 0:
        # They are compared with those of other runs of fairseq-train by their files' names.
        cfg = OmegaConf.merge(cfg, {"checkpoint": {"keep_best_checkpoints": -1}})
    losses, should_stop = original(cfg, trainer, *args, **kwargs)
    optimizer.best_has_final_masks = is_final
    if should_stop:
        warn_at_the_end(optimizer.pruner)
    return losses, should_stop


def _forget_best(scheduler: Any) -> None:
    """So that reduce_lr_on_plateau does not take the loss of pruning for a plateau."""
    plateau = getattr(scheduler, "lr_scheduler", None)
    if isinstance(plateau, ReduceLROnPlateau):
        plateau.best, plateau.num_bad_epochs = plateau.mode_worse, 0
