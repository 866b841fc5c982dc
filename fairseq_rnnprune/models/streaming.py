"""A speech model fed piece by piece, with the results of the whole utterance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class ModelStream:
    """One utterance through a unidirectional DeepSpeech2, as its frames arrive.

    All that is returned, concatenated, equals the log-probabilities of the whole utterance. What
    is kept between two calls does not grow: the last frames that a convolution still needs, and
    the state of each recurrent layer.
    """

    def __init__(self, model: Any):
        """ValueError if the model is bidirectional or in training mode."""
        if model.rnn.bidirectional:
            raise ValueError(
                "stream: expected a unidirectional model, got a bidirectional one, which needs the "
                "whole utterance; train with --unidirectional"
            )
        if model.training:
            raise ValueError(
                "stream: expected a model in evaluation mode, got one in training; call .eval()"
            )
        self._model = model
        self._stages: list[_Window | _Recurrence] = [
            _Window(block.convolve, block.kernel, block.stride, block.half, block.half)
            for block in model.front_end.blocks
        ]
        self._stages.append(_Recurrence(model.rnn))
        if model.lookahead is not None:
            frames = model.lookahead.frames
            self._stages.append(_Window(model.lookahead.convolve, frames + 1, 1, 0, frames))
        self._is_finished = False

    @property
    def latency_frames(self) -> int:
        """Output t appears this many input frames after frame t * frame_stride."""
        latency, stride = 0, 1
        for stage in self._stages:
            if isinstance(stage, _Window):
                latency += stage.after * stride
                stride *= stage.stride
        return latency

    def push(self, features: Tensor) -> Tensor:
        """Takes the next frames [t, mel_bins], t of at least 0; returns [t', classes]."""
        mel_bins = self._model.mel_bins
        if features.dim() != 2 or features.shape[1] != mel_bins:
            raise ValueError(f"push: expected features [t, {mel_bins}], got {list(features.shape)}")
        return self._advance(features.unsqueeze(0) if len(features) else None, is_last=False)

    def finish(self) -> Tensor:
        """Says that no frame follows; returns what is left [t', classes]."""
        return self._advance(None, is_last=True)

    @torch.no_grad()
    def _advance(self, x: Tensor | None, is_last: bool) -> Tensor:
        if self._is_finished:
            raise ValueError(
                "stream: expected no call after finish, got one; "
                "the next utterance needs a stream of its own"
            )
        self._is_finished = is_last
        for stage in self._stages:
            x = stage.advance(x, is_last)
        output = self._model.output
        if x is None:
            return output.weight.new_zeros(0, output.out_features)
        return self._model.get_normalized_probs({"encoder_out": output(x[0])}, log_probs=True)


class _Window:
    """A convolution [1, T, I] to [1, T', O] of frames with zeros before and after them.

    `advance` takes and returns None for no frames.
    """

    def __init__(
        self,
        convolve: Callable[[Tensor], Tensor],
        kernel: int,
        stride: int,
        before: int,
        after: int,
    ):
        self.convolve, self.kernel, self.stride = convolve, kernel, stride
        self.before, self.after = before, after
        self.kept: Tensor | None = None

    def advance(self, x: Tensor | None, is_last: bool) -> Tensor | None:
        if x is not None:
            before = self.kept
            if before is None:
                before = x.new_zeros(1, self.before, x.shape[2])
            self.kept = torch.cat([before, x], dim=1)
        if self.kept is None:
            return None
        if is_last:
            self.kept = F.pad(self.kept, (0, 0, 0, self.after))
        frames = (self.kept.shape[1] - self.kernel) // self.stride + 1
        if frames < 1:
            return None
        output = self.convolve(self.kept[:, : (frames - 1) * self.stride + self.kernel])
        # A copy, because a slice would keep the whole alive.
        self.kept = self.kept[:, frames * self.stride :].clone()
        return output


class _Recurrence:
    """Recurrent layers [1, T, I] to [1, T, H] and their state between two pieces."""

    def __init__(self, rnn: Any):
        self.rnn = rnn
        self.state: Tensor | None = None

    def advance(self, x: Tensor | None, is_last: bool) -> Tensor | None:
        if x is None:
            return None
        output, self.state = self.rnn(x, self.state)
        return output
