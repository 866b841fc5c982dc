"""Convolutional front ends of speech models: log-mel frames to fewer, wider frames."""

from __future__ import annotations

import math
from typing import TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_rnnprune.layers import CEILING, FrameBatchNorm, valid_frames

Lengths = TypeVar("Lengths", int, Tensor)


class Block(nn.Module):
    """Convolution over time, batch norm over the valid frames, clipped ReLU.

    `half` frames of zeros are padded on either side. The norm's is the only bias.
    """

    def __init__(self, convolution: nn.Conv1d | nn.Conv2d):
        super().__init__()
        self.convolution = convolution
        self.norm = FrameBatchNorm(convolution.out_channels)
        self.kernel, self.stride = convolution.kernel_size[0], convolution.stride[0]
        self.half = self.kernel // 2

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x [B, T, I] to [B, ceil(T / stride), O]; padding is zero in both.

        lengths [B]: valid frames of x; None: all.
        """
        padded = F.pad(x, (0, 0, self.half, self.half))
        if lengths is None:
            return self.convolve(padded)
        steps = self.output_lengths(x.shape[1])
        return self.convolve(padded, valid_frames(self.output_lengths(lengths), steps))

    def convolve(self, padded: Tensor, valid: Tensor | None = None) -> Tensor:
        """Frames [B, T, I] with their padding to [B, (T - kernel) // stride + 1, O]."""
        return self.norm(self._product(padded), valid).clamp(0.0, CEILING)

    def _product(self, padded: Tensor) -> Tensor:
        return self.convolution(padded.transpose(1, 2)).transpose(1, 2)

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """How many frames become of `lengths` frames."""
        return (lengths + self.stride - 1) // self.stride


class FrequencyBlock(Block):
    """A Block that convolves over frequency as well; a frame is channels x frequencies in a row."""

    def _product(self, padded: Tensor) -> Tensor:
        image = padded.unflatten(2, (self.convolution.in_channels, -1)).transpose(1, 2)
        return self.convolution(image).transpose(1, 2).flatten(2)


class FrontEnd(nn.Module):
    """Blocks one after the other: [B, T, mel_bins] to [B, T', width]."""

    def __init__(self, blocks: list[Block], width: int):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.width = width

    @property
    def stride(self) -> int:
        """Input frames per output frame."""
        return math.prod(block.stride for block in self.blocks)

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """x [B, T, mel_bins] to [B, T', width], zero beyond the output's lengths.

        lengths [B]: valid frames of x, whatever is beyond; None: all.
        """
        if lengths is not None:
            x = x.masked_fill(~valid_frames(lengths, x.shape[1]).unsqueeze(2), 0.0)
        for block in self.blocks:
            x = block(x, lengths)
            lengths = None if lengths is None else block.output_lengths(lengths)
        return x

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """How many frames become of `lengths` frames."""
        for block in self.blocks:
            lengths = block.output_lengths(lengths)
        return lengths


def conv1d(mel_bins: int, channels: int, kernel: int, stride: int) -> FrontEnd:
    """One light convolution over time, all mel bins at once.

    ValueError unless the kernel is odd and at least as long as the stride, so that padding is
    symmetric and no frame is skipped.
    """
    if kernel % 2 == 0 or not 1 <= stride <= kernel:
        raise ValueError(
            "conv1d: expected an odd kernel and a stride from 1 to it, "
            f"got kernel {kernel}, stride {stride}; change --conv-kernel or --conv-stride"
        )
    return FrontEnd([Block(nn.Conv1d(mel_bins, channels, kernel, stride, bias=False))], channels)


def conv2d(mel_bins: int) -> FrontEnd:
    """Two convolutions over time and frequency, 32 channels each (arXiv 1512.02595, section 3.5).

    One output frame for two input frames, a quarter of the frequencies.
    """
    channels, frequencies, blocks = 32, mel_bins, []
    for inputs, kernel, stride in ((1, (11, 41), (2, 2)), (channels, (11, 21), (1, 2))):
        convolution = nn.Conv2d(
            inputs, channels, kernel, stride, padding=(0, kernel[1] // 2), bias=False
        )
        blocks.append(FrequencyBlock(convolution))
        frequencies = (frequencies + 1) // 2
    return FrontEnd(blocks, channels * frequencies)
