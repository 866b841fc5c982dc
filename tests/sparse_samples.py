"""Weights to pack: one small enough to check by hand, and random ones."""

import torch
from torch import Tensor, nn

# Two gates of 3 x 4; in blocks of 2 x 2, the second panel of each gate has one row of padding.
WEIGHT = torch.tensor(
    [
        [1.0, 0.0, 0.0, 0.0],
        [0.0, 2.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 3.0],
        [0.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0],
        [4.0, 0.0, 0.0, 5.0],
    ]
)


def sparse_weight(rows: int, columns: int, density: float = 0.3, seed: int = 0) -> Tensor:
    """Normal weights [rows, columns] with that fraction kept; -0.0 is among the zeros."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=generator)
    return weight * (torch.rand(rows, columns, generator=generator) < density)


def pruned(layer: nn.Module, keep_every: int = 5) -> nn.Module:
    """Keeps every n-th weight."""
    with torch.no_grad():
        for parameter in layer.parameters():
            if parameter.dim() == 2:
                mask = torch.arange(parameter.numel()) % keep_every == 0
                parameter *= mask.view_as(parameter)
    return layer.eval()
