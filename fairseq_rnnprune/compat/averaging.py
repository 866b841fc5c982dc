"""Repair of --store-ema for models with buffers that are counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .wrap import wrap_once


def copy_counts_to_averages() -> None:
    """Let --store-ema copy what is no floating-point number, such as batch norm's count of batches.

    fairseq 0.12 takes averages of all buffers: RuntimeError, "result type Float can't be cast".
    """
    from fairseq.models.ema.ema import EMA

    def __init__(original: Callable, self: Any, model: Any, *args: Any, **kwargs: Any) -> None:
        original(self, model, *args, **kwargs)
        state = self.model.state_dict()
        counts = {name for name, value in state.items() if not value.is_floating_point()}
        self.skip_keys = {*self.skip_keys, *counts}

    wrap_once(EMA, "__init__", __init__)
