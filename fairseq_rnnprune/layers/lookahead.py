"""Row convolution: what lets a unidirectional network look a few frames ahead."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Lookahead(nn.Module):
    """y_t = sum over j in 0..frames of weight[:, j] * x_{t+j}, feature by feature.

    The row convolution of arXiv 1512.02595, section 3.7. At first y = x: the frame itself weighs 1,
    those after it 0.
    """

    def __init__(self, features: int, frames: int):
        super().__init__()
        self.frames = frames
        # Three dimensions, like a convolution's: what is pruned is matrices.
        self.weight = nn.Parameter(torch.zeros(features, 1, frames + 1))
        with torch.no_grad():
            self.weight[:, :, 0] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, C], zero where it is padding, to [B, T, C]; zeros follow the last frame."""
        return self.convolve(F.pad(x, (0, 0, 0, self.frames)))

    def convolve(self, padded: Tensor) -> Tensor:
        """x [B, T + frames, C] to [B, T, C]."""
        y = F.conv1d(padded.transpose(1, 2), self.weight, groups=self.weight.shape[0])
        return y.transpose(1, 2)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, frames={self.frames}"
