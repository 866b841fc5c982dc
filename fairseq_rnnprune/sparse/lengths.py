"""What the lengths of a padded batch must be."""

from __future__ import annotations

import torch
from torch import Tensor


def check_lengths(lengths: Tensor, batch: int, steps: int, owner: str) -> Tensor:
    """The lengths as int64; ValueError unless they are integers [batch] from 1 to `steps`.

    `owner` asks.
    """
    if not isinstance(lengths, Tensor):
        raise TypeError(
            f"{owner}: expected lengths to be a tensor, got {type(lengths).__name__}; "
            "convert them with torch.as_tensor"
        )
    others = lengths.is_floating_point() or lengths.is_complex() or lengths.dtype == torch.bool
    if lengths.shape != (batch,) or others:
        raise ValueError(
            f"{owner}: expected integer lengths [{batch}], one for each sequence, "
            f"got {list(lengths.shape)} of {lengths.dtype}"
        )
    if batch and not 1 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ValueError(
            f"{owner}: expected lengths from 1 to the {steps} steps of the input, "
            f"got {lengths.tolist()}"
        )
    return lengths.long()
