"""One direction of one packed recurrent layer, and how a network's layers are packed."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor, nn

from .dispatch import gru_sequence, rnn_sequence
from .lengths import last_valid, reverse_valid
from .linear import SparseLinear
from .matrix import BlockShape, BlockSparseMatrix
from .shapes import keeps_diagonal

# Gates by cell.
GATES = {"gru": 3, "relu": 1, "tanh": 1}
ShapeChoice = BlockShape | Callable[[Tensor, int], BlockShape]


class Direction(nn.Module):
    """One direction of one layer."""

    def __init__(
        self,
        input: SparseLinear,
        recurrent: SparseLinear,
        cell: str,
        ceiling: float = inf,
        reverse: bool = False,
    ):
        super().__init__()
        self.input = input
        self.recurrent = recurrent
        self.cell = cell
        self.ceiling = ceiling
        self.reverse = reverse

    def forward(self, x: Tensor, h: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, I] and the first state [B, H] to all states [T, B, H] and the last one.

        With lengths [B], that of each sequence's last valid step; states beyond it mean nothing.
        """
        gates_x = self.input(x)
        if self.reverse:
            gates_x = reverse_valid(gates_x, lengths)
        W, bias, backend = self.recurrent.W, self.recurrent.bias, self.recurrent.backend
        if self.cell == "gru":
            states = gru_sequence(W, gates_x, h, bias, backend)
        else:
            states = rnn_sequence(W, gates_x, h, bias, self.cell, self.ceiling, backend)
        last = last_valid(states, lengths)
        return (reverse_valid(states, lengths) if self.reverse else states), last


def pack_layers(
    dense: nn.RNNBase,
    cell: str,
    block_shape: ShapeChoice,
    dtype: torch.dtype,
    backend: str | None,
    ceiling: float = inf,
) -> list[list[Direction]]:
    """Every direction of every layer of a torch.nn.GRU or RNN."""

    def pack(kind: str, suffix: str) -> SparseLinear:
        weight, gates = getattr(dense, f"weight_{kind}_{suffix}"), GATES[cell]
        shape = block_shape(weight, gates) if callable(block_shape) else block_shape
        apart = keeps_diagonal(weight, shape, gates)
        matrix = BlockSparseMatrix.from_dense(weight, shape, dtype, gates, apart)
        return SparseLinear(matrix, getattr(dense, f"bias_{kind}_{suffix}", None), backend)

    directions = ("", "_reverse") if dense.bidirectional else ("",)
    return [
        [
            Direction(
                pack("ih", f"l{layer}{direction}"),
                pack("hh", f"l{layer}{direction}"),
                cell,
                ceiling,
                reverse=bool(direction),
            )
            for direction in directions
        ]
        for layer in range(dense.num_layers)
    ]
