"""Padded batches: what their lengths must be, which frames are valid, and those by themselves."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence


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


def pack_like(x: Tensor, lengths: Tensor, packed: PackedSequence) -> PackedSequence:
    """The valid frames of x [T, B, C] in the order of a PackedSequence of these lengths."""
    order = packed.sorted_indices
    if order is not None:
        x, lengths = x[:, order], lengths[order.to(lengths.device)]
    data = pack_padded_sequence(x, lengths).data
    return PackedSequence(data, packed.batch_sizes, order, packed.unsorted_indices)


def valid_frames(lengths: Tensor, steps: int) -> Tensor:
    """Lengths [B] to a mask [B, steps], True where a frame is valid."""
    return torch.arange(steps, device=lengths.device) < lengths.unsqueeze(1)


def zero_padding(x: Tensor, lengths: Tensor) -> Tensor:
    """x [T, B, C] with zeros as padding."""
    return x.masked_fill(~valid_frames(lengths, len(x)).t().unsqueeze(2), 0.0)


def reverse_valid(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x [T, B, ...] with the valid frames of each sequence in reverse, the padding where it was."""
    if lengths is None:
        return x.flip(0)
    steps, batch = x.shape[:2]
    t = torch.arange(steps, device=x.device).unsqueeze(1)
    lengths = lengths.to(x.device)
    source = torch.where(t < lengths, lengths - 1 - t, t)
    return x[source, torch.arange(batch, device=x.device)]


def last_valid(x: Tensor, lengths: Tensor | None) -> Tensor:
    """The last valid frame of each sequence of x [T, B, ...]: [B, ...]."""
    if lengths is None:
        return x[-1]
    return x[lengths.to(x.device) - 1, torch.arange(x.shape[1], device=x.device)]
