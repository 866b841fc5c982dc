"""Batch normalisation of padded sequences, whose padding neither counts nor leaks."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class FrameBatchNorm(nn.BatchNorm1d):
    """torch.nn.BatchNorm1d over the frames of sequences: its arguments, parameters and state.

    In training, mean and variance of a feature are taken over all valid frames of the batch
    (sequence-wise normalisation, arXiv 1512.02595, section 3.2); otherwise, and where a feature has
    one value only, the running ones hold.
    """

    def forward(self, input: Tensor, valid: Tensor | None = None) -> Tensor:
        """input [B, T, C * n] to its normal form, zero where `valid` [B, T] is False.

        C features of n values each: the n values share their feature's statistics. `valid` is a
        bool mask, or None where every frame is valid.
        """
        if valid is None:
            return self._normalise(input.flatten(0, 1)).view(input.shape)
        frames = self._normalise(input[valid])
        output = frames.new_zeros(input.shape)
        output[valid] = frames
        return output

    def _normalise(self, frames: Tensor) -> Tensor:
        """Frames [N, C * n] to the same shape."""
        features = frames
        if frames.shape[1] != self.num_features:
            features = frames.view(len(frames), self.num_features, -1)
        # One frame has no variance.
        if self.training and features.numel() == self.num_features:
            state = (self.running_mean, self.running_var, self.weight, self.bias)
            return F.batch_norm(frames, *state, training=False, eps=self.eps)
        return super().forward(features).view(frames.shape)
