"""Features of several utterances as a model's input."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def pad_sources(sources: Sequence[Tensor]) -> dict[str, Tensor | None]:
    """Features [T, F] as {"source": [B, T, F], "padding_mask": [B, T], or None if none is padded}.

    Padding is zeros, the mean of normalised features.
    """
    lengths = torch.tensor([len(source) for source in sources])
    source = pad_sequence(list(sources), batch_first=True)
    mask = torch.arange(source.shape[1]) >= lengths[:, None]
    return {"source": source, "padding_mask": mask if mask.any() else None}
