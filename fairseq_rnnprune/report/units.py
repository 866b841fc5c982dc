"""What a mask leaves of the units of recurrent layers: dead ones, constant gates, diagonals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .cells import Cell, find_cells, readers

# Gates that are sigmoids: a constant one has a value that the checkpoint tells.
_SIGMOIDS = ("r", "z", "i", "f", "o")
IMAGE_CELLS = 64


@dataclass(frozen=True)
class Diagonal:
    """The weights [H] of one gate by which each unit reads itself, against all of its U [H, H]."""

    kept: int
    units: int
    density: float

    @property
    def share(self) -> float:
        """Kept fraction of the diagonal, in [0, 1]; a random mask's would be `density`."""
        return self.kept / self.units

    @property
    def times_density(self) -> float | None:
        """How often the share is that of a random mask; None if nothing is kept."""
        return self.share / self.density if self.density else None


@dataclass(frozen=True)
class Units:
    """Counts of the H units of one direction of a recurrent layer.

    `no_input`: no weight is kept, in any gate, by which an input or another unit reaches the unit.
    `no_output`: none by which it reaches another unit, the layer above or what is over the top
    layer; None where the checkpoint does not tell who reads it. `dead`: one of both, so that
    nothing passes through. A unit's own diagonal counts for neither, and a chain of units that
    leads nowhere is not followed.

    `constant` has by gate the units of which all weights of that gate are pruned, in W and U: it
    is then a constant of the biases. In a network without gates, h itself is. `constant_values`
    are the lowest, median and highest of a sigmoid's constants. `kept` counts by unit the weights
    that lead into it. `images` [n, n] is the density of U in each of n x n cells, by gate.
    """

    layer: str
    units: int
    no_input: int
    no_output: int | None
    dead: int
    constant: dict[str, int]
    constant_values: dict[str, tuple[float, float, float]]
    diagonals: dict[str, Diagonal]
    weights: int
    kept: list[int] = field(repr=False)
    images: dict[str, Tensor] = field(repr=False)


def count_units(model: Mapping[str, Tensor]) -> list[Units]:
    """Counts of every direction of every recurrent layer, from the zeros of its weights."""
    cells = find_cells(model)
    return [_count(cell, readers(cell, cells, model)) for cell in cells]


def density_image(mask: Tensor, cells: int = IMAGE_CELLS) -> Tensor:
    """The density of a mask [M, K] in at most cells x cells rectangles of nearly equal size."""
    edges = []
    for length in mask.shape:
        count = min(length, cells)
        edges.append(torch.arange(count + 1) * length // count)
    below = torch.zeros(mask.shape[0] + 1, mask.shape[1] + 1, dtype=torch.int64)
    below[1:, 1:] = mask.long().cumsum(0).cumsum(1)
    corners = below[edges[0]][:, edges[1]]
    kept = corners.diff(dim=0).diff(dim=1)
    return kept / (edges[0].diff()[:, None] * edges[1].diff())


def _count(cell: Cell, read_by: list[Tensor] | None) -> Units:
    shape = (len(cell.gates), cell.hidden, -1)
    inputs, states = (cell.W != 0).view(shape), (cell.U != 0).view(shape)
    others = states & ~torch.eye(cell.hidden, dtype=torch.bool)
    no_input = ~(inputs.any(2) | others.any(2)).any(0)
    no_output = None
    if read_by is not None:
        no_output = ~others.any(1).any(0)
        for columns in read_by:
            no_output &= ~(columns != 0).any(0)
    dead = no_input if no_output is None else no_input | no_output
    constant = ~(inputs.any(2) | states.any(2))
    by_gate = dict(zip(cell.gates, states, strict=True))
    return Units(
        layer=cell.name,
        units=cell.hidden,
        no_input=int(no_input.sum()),
        no_output=None if no_output is None else int(no_output.sum()),
        dead=int(dead.sum()),
        constant=dict(zip(cell.gates, constant.sum(1).tolist(), strict=True)),
        constant_values=_constant_values(cell, constant),
        diagonals={
            gate: Diagonal(int(mask.diagonal().sum()), cell.hidden, _density(mask))
            for gate, mask in by_gate.items()
        },
        weights=len(cell.gates) * (cell.W.shape[1] + cell.hidden),
        kept=(inputs.sum((0, 2)) + states.sum((0, 2))).tolist(),
        images={gate: density_image(mask) for gate, mask in by_gate.items()},
    )


def _constant_values(cell: Cell, constant: Tensor) -> dict[str, tuple[float, float, float]]:
    bias = torch.zeros(len(cell.U)) if cell.bias is None else cell.bias
    values = {}
    for gate, of_gate, units in zip(cell.gates, bias.chunk(len(cell.gates)), constant, strict=True):
        if gate in _SIGMOIDS and units.any():
            chosen = of_gate[units].double().sigmoid()
            values[gate] = (chosen.min().item(), chosen.quantile(0.5).item(), chosen.max().item())
    return values


def _density(mask: Tensor) -> float:
    return int(mask.sum()) / mask.numel()
