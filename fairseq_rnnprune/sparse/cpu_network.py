"""A whole recurrent network in one call of the native kernels.

At a batch of one, a step of a small network takes a few microseconds, and each call from Python
takes as long; so layers, directions and both products of each are one call.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .arguments import check_bias, check_matrix
from .cpu_library import CELLS, Layer, address, call, prepare, threads
from .direction import GATES, Direction
from .matrix import BlockSparseMatrix


class Network:
    """The prepared form of a network whose matrices all run on the backend cpu.

    `layers` holds the directions of each layer, which are kept alive and must not be replaced
    afterwards; the first one reads inputs of `width`, each has `hidden` units. ValueError or
    TypeError where matrices and biases do not fit one another.
    """

    def __init__(self, layers: Sequence[Sequence[Direction]], width: int, hidden: int):
        flat = [direction for layer in layers for direction in layer]
        self.cells, self.directions, self.hidden = len(flat), len(layers[0]), hidden
        self.kept = []
        self.zeros: Tensor | None = None
        widths = [width] * self.directions
        widths += [self.directions * hidden] * (len(flat) - self.directions)
        self.structs = (Layer * len(flat))(*map(self._struct, flat, widths))
        self.is_large = any(struct.is_large for struct in self.structs)

    def _struct(self, direction: Direction, width: int) -> Layer:
        input, recurrent, gates = direction.input, direction.recurrent, GATES[direction.cell]
        _check_matrix("input", input.W, gates, (gates * self.hidden, width))
        _check_matrix("recurrent", recurrent.W, gates, (gates * self.hidden, self.hidden))
        prepared = [prepare(part.W) for part in (input, recurrent)]
        biases = [check_bias("bias", part.bias, part.W) for part in (input, recurrent)]
        # Aliases, as in prepare.
        biases = [None if bias is None else bias.detach().contiguous() for bias in biases]
        self.kept.append((input.W, recurrent.W, prepared, biases))
        return Layer(
            *(matrix.pointer for matrix in prepared),
            *map(address, biases),
            CELLS[direction.cell],
            direction.ceiling,
            direction.reverse,
            any(matrix.is_large for matrix in prepared),
        )

    def __call__(self, x: Tensor, h_0: Tensor | None) -> tuple[Tensor, Tensor]:
        """x [T, B, I] and h_0 [n, B, H], float32, to out [T, B, directions * H] and h_n.

        Without h_0 it is zeros. ValueError for an x that only looks like a tensor.
        """
        x = x.contiguous()
        steps, batch, _ = x.shape
        # First, as zeros like such an x must not be kept.
        from_x = address(x)
        h_0 = self._zeros(x, batch) if h_0 is None else h_0.contiguous()
        # As x is: floats on the CPU, whatever torch's defaults are.
        out = x.new_empty(steps, batch, self.directions * self.hidden)
        h_n = x.new_empty(self.cells, batch, self.hidden)
        call(
            "network",
            self.structs,
            self.cells,
            self.directions,
            from_x,
            address(h_0),
            out.data_ptr(),
            h_n.data_ptr(),
            steps,
            batch,
            threads() if self.is_large else 1,
        )
        return out, h_n

    def _zeros(self, x: Tensor, batch: int) -> Tensor:
        # Kept, for nobody writes to them, and new ones take a tenth of a short call.
        shape = (self.cells, batch, self.hidden)
        # Read once: another thread may put its own there meanwhile.
        zeros = self.zeros
        if zeros is None or zeros.shape != shape:
            self.zeros = zeros = x.new_zeros(shape)
        return zeros


def _check_matrix(name: str, W: BlockSparseMatrix, gates: int, shape: tuple[int, int]) -> None:
    """The kernels trust sizes; who replaces a part of a network may have got them wrong."""
    check_matrix(name, W)
    if W.shape != shape or W.gates != gates:
        raise ValueError(
            f"{name}: expected W {list(shape)} packed with gates={gates}, which the network is "
            f"made for, got {list(W.shape)} with gates={W.gates}"
        )
