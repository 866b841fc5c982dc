"""A whole recurrent network in one call of the native kernels.

At a batch of one, a step of a small network takes a few microseconds, and each call from Python
takes as long; so layers, directions and both products of each are one call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .cpu_library import CELLS, Layer, address, call, prepare, threads

if TYPE_CHECKING:
    from .direction import Direction


class Network:
    """The prepared form of a network whose matrices all run on the backend cpu.

    `layers` holds the directions of each layer. Matrices and biases are kept alive; they must not
    be replaced afterwards.
    """

    def __init__(self, layers: Sequence[Sequence[Direction]]):
        flat = [direction for layer in layers for direction in layer]
        self.directions, self.hidden = len(layers[0]), flat[0].recurrent.W.shape[1]
        self.kept = []
        self.structs = (Layer * len(flat))(*(self._struct(direction) for direction in flat))
        self.is_large = any(struct.is_large for struct in self.structs)

    def _struct(self, direction: Direction) -> Layer:
        input, recurrent = direction.input, direction.recurrent
        prepared = [prepare(part.W) for part in (input, recurrent)]
        biases = [None if p.bias is None else p.bias.contiguous() for p in (input, recurrent)]
        self.kept.append((prepared, biases))
        return Layer(
            *(matrix.pointer for matrix in prepared),
            *map(address, biases),
            CELLS[direction.cell],
            direction.ceiling,
            direction.reverse,
            any(matrix.is_large for matrix in prepared),
        )

    def __call__(self, x: Tensor, h_0: Tensor) -> tuple[Tensor, Tensor]:
        """x [T, B, I] and h_0 [n, B, H], float32, to out [T, B, directions * H] and h_n."""
        x, h_0 = x.contiguous(), h_0.contiguous()
        steps, batch, _ = x.shape
        floats = {"dtype": torch.float32, "device": "cpu"}
        out = torch.empty(steps, batch, self.directions * self.hidden, **floats)
        h_n = torch.empty(len(self.structs), batch, self.hidden, **floats)
        call(
            "network",
            self.structs,
            len(self.structs),
            self.directions,
            x.data_ptr(),
            h_0.data_ptr(),
            out.data_ptr(),
            h_n.data_ptr(),
            steps,
            batch,
            threads() if self.is_large else 1,
        )
        return out, h_n
