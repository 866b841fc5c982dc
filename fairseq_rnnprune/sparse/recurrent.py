"""SparseGRU: drop-in for torch.nn.GRU at inference."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from .dispatch import gru_sequence
from .linear import SparseLinear
from .matrix import BlockShape, BlockSparseMatrix
from .validation import WEIGHT_DTYPES, names

# r, z, n: in this order torch.nn.GRU stacks the rows of its weights.
GATES = 3


class GRUDirection(nn.Module):
    """One direction of one layer."""

    def __init__(self, input: SparseLinear, recurrent: SparseLinear, reverse: bool = False):
        super().__init__()
        self.input = input
        self.recurrent = recurrent
        self.reverse = reverse

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, I] and the first state [B, H] to all states [T, B, H] and the last one."""
        gates_x = self.input(x)
        if self.reverse:
            gates_x = gates_x.flip(0)
        recurrent = self.recurrent
        states = gru_sequence(recurrent.W, gates_x, h, recurrent.bias, recurrent.backend)
        return (states.flip(0) if self.reverse else states), states[-1]


class SparseGRU(nn.Module):
    """torch.nn.GRU (reset gate after the recurrent product) with packed weights.

    The input's products of a whole sequence are one matmul, the recurrent ones one per step.
    Layers and steps hand on float32; what comes out has the dtype of what came in. No dropout, no
    gradient, nothing in the state dict; `.to(device)` moves the packed arrays, `.half()` and the
    like leave them as they were packed.
    """

    def __init__(self, layers: list[list[GRUDirection]], batch_first: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(directions) for directions in layers)
        self.batch_first = batch_first
        self.input_size = layers[0][0].input.W.shape[1]
        self.hidden_size = layers[0][0].recurrent.W.shape[1]

    @classmethod
    def from_dense(
        cls,
        gru: nn.GRU,
        block_shape: BlockShape | Callable[[Tensor, int], BlockShape] = (16, 1),
        dtype: torch.dtype = torch.float32,
        backend: str | None = None,
    ) -> SparseGRU:
        """Packs any torch.nn.GRU: layers, directions, batch_first, with and without bias.

        `block_shape` is one for all weights, or a function of a weight and its number of gates.
        TypeError for anything else than a GRU; errors as in BlockSparseMatrix.from_dense.
        """
        if not isinstance(gru, nn.GRU):
            raise TypeError(
                f"SparseGRU.from_dense: expected a torch.nn.GRU, got {type(gru).__name__}"
            )

        def pack(kind: str, suffix: str) -> SparseLinear:
            weight = getattr(gru, f"weight_{kind}_{suffix}")
            shape = block_shape(weight, GATES) if callable(block_shape) else block_shape
            matrix = BlockSparseMatrix.from_dense(weight, shape, dtype, GATES)
            return SparseLinear(matrix, getattr(gru, f"bias_{kind}_{suffix}", None), backend)

        directions = ("", "_reverse") if gru.bidirectional else ("",)
        layers = []
        for layer in range(gru.num_layers):
            suffixes = [f"l{layer}{direction}" for direction in directions]
            layers.append(
                [GRUDirection(pack("ih", s), pack("hh", s), "reverse" in s) for s in suffixes]
            )
        return cls(layers, gru.batch_first)

    def forward(self, x: Tensor, h_0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x [T, B, I] to the outputs [T, B, directions * H] of the last layer, and h_n.

        [B, T, ...] if batch_first; x may have no B. T is at least 1. The states before and after,
        h_0 (None: zeros) and h_n, are [layers * directions, B, H].
        """
        self._check_input(x)
        dtype, batched = x.dtype, x.dim() == 3
        x = x.float()
        if not batched:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        h_0 = self._first_states(x, h_0, batched)

        h_n = []
        for directions in self.layers:
            outputs = []
            for direction in directions:
                output, last = direction(x, h_0[len(h_n)])
                outputs.append(output)
                h_n.append(last)
            x = torch.cat(outputs, dim=2)
        out, last = x.to(dtype), torch.stack(h_n).to(dtype)
        if not batched:
            return out.squeeze(1), last.squeeze(1)
        return (out.transpose(0, 1) if self.batch_first else out), last

    def _check_input(self, x: Tensor) -> None:
        if isinstance(x, PackedSequence):
            raise TypeError(
                "SparseGRU: expected a padded tensor, got a PackedSequence; "
                "unpack it with torch.nn.utils.rnn.pad_packed_sequence"
            )
        if not isinstance(x, Tensor):
            raise TypeError(f"SparseGRU: expected x to be a tensor, got {type(x).__name__}")
        if x.dtype not in WEIGHT_DTYPES:
            raise ValueError(
                f"SparseGRU: expected x in {names(WEIGHT_DTYPES)}, got {x.dtype}; "
                "convert it with .float()"
            )
        if x.dim() not in (2, 3) or x.shape[-1] != self.input_size:
            layout = "B, T" if self.batch_first else "T, B"
            size = self.input_size
            raise ValueError(
                f"SparseGRU: expected x [{layout}, {size}] or [T, {size}], got {list(x.shape)}"
            )
        if x.shape[1 if x.dim() == 3 and self.batch_first else 0] == 0:
            raise ValueError(f"SparseGRU: expected at least one step, got x {list(x.shape)}")

    def _first_states(self, x: Tensor, h_0: Tensor | None, batched: bool) -> Tensor:
        """The states [layers * directions, B, H] before x [T, B, I]."""
        cells = sum(len(directions) for directions in self.layers)
        shape = (cells, x.shape[1], self.hidden_size)
        if h_0 is None:
            return x.new_zeros(shape)
        expected = shape if batched else (cells, self.hidden_size)
        if h_0.shape != expected:
            raise ValueError(f"SparseGRU: expected h_0 {list(expected)}, got {list(h_0.shape)}")
        return h_0.reshape(shape)
