"""A training goes on only with data that was prepared as for its start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager
from fairseq.trainer import Trainer

from fairseq_rnnprune.compat.wrap import wrap_once

from .task import SpeechTask


def install() -> None:
    """Wraps a method of Trainer; a second call changes nothing."""
    wrap_once(Trainer, "load_checkpoint", _compare_task)


def _compare_task(
    original: Callable,
    self: Trainer,
    filename: str,
    reset_optimizer: bool = False,
    *args: Any,
    **kwargs: Any,
) -> Any:
    """fairseq's Trainer saves the state of a task, but never loads it.

    With --reset-optimizer and --finetune-from-model another training begins, with its own data.
    """
    resumes = isinstance(self.task, SpeechTask) and not reset_optimizer
    if resumes and PathManager.isfile(filename):
        state = checkpoint_utils.load_checkpoint_to_cpu(filename).get("task_state")
        if state:
            self.task.load_state_dict(state)
    return original(self, filename, reset_optimizer, *args, **kwargs)
