"""The weights that --store-ema averages are zero where the model's are pruned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fairseq.models.ema.ema import EMA
from torch import nn

from fairseq_rnnprune.compat.wrap import wrap_once
from fairseq_rnnprune.pruning import read_tag


def install() -> None:
    """Wraps a method of fairseq; a second call changes nothing."""
    wrap_once(EMA, "_step_internal", _keep_zeros)


@torch.no_grad()
def _keep_zeros(
    original: Callable, self: EMA, new_model: nn.Module, *args: Any, **kwargs: Any
) -> None:
    """A mean of what came before a mask would go to zero, but never be there."""
    original(self, new_model, *args, **kwargs)
    averaged = self.model.state_dict()
    for name, parameter in new_model.named_parameters():
        if read_tag(parameter) is None:
            continue
        for copy in (averaged.get(name), self.fp32_params.get(name)):
            if copy is not None:
                copy.mul_(parameter != 0)
