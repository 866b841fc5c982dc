"""A ReLU RNN in dynamic int8. torch quantises none, but the linear layers of which it consists."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LinearRNN(nn.Module):
    """As an nn.RNN with ReLU: x [T, B, I], or [B, T, I] if batch_first, to outputs and states."""

    def __init__(self, rnn: nn.RNN):
        super().__init__()
        self.batch_first = rnn.batch_first
        ways = ("", "_reverse") if rnn.bidirectional else ("",)
        self.layers = nn.ModuleList(
            nn.ModuleList(_Direction(rnn, f"_l{layer}{way}") for way in ways)
            for layer in range(rnn.num_layers)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x, last = x.transpose(0, 1) if self.batch_first else x, []
        for directions in self.layers:
            outputs = [direction(x) for direction in directions]
            last += [
                out[0 if d.reverse else -1] for d, out in zip(directions, outputs, strict=True)
            ]
            x = torch.cat(outputs, dim=2)
        return x.transpose(0, 1) if self.batch_first else x, torch.stack(last)


class _Direction(nn.Module):
    """One direction of a layer."""

    def __init__(self, rnn: nn.RNN, suffix: str):
        super().__init__()
        self.reverse = suffix.endswith("_reverse")
        self.input = _linear(rnn, f"ih{suffix}")
        self.recurrent = _linear(rnn, f"hh{suffix}")

    def forward(self, x: Tensor) -> Tensor:
        """x [T, B, I] to the states [T, B, H]; the input's products of all steps are one."""
        from_x = self.input(x)
        states = torch.empty_like(from_x)
        h = torch.zeros_like(from_x[0])
        steps = range(len(x))
        for t in reversed(steps) if self.reverse else steps:
            h = self.recurrent(h).add_(from_x[t]).relu_()
            states[t] = h
        return states


def _linear(rnn: nn.RNN, name: str) -> nn.Linear:
    weight, bias = getattr(rnn, f"weight_{name}"), getattr(rnn, f"bias_{name}")
    linear = nn.Linear(weight.shape[1], weight.shape[0])
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear
