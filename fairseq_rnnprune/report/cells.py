"""The recurrent layers in a state dict: each direction's matrices, what it reads, who reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from fairseq_rnnprune.pruning import find_prunable

from .table import gate_names

_RECURRENT = re.compile(r"(?P<module>.*?)\.?weight_hh(?P<place>(_l(?P<layer>\d+))?(_reverse)?)$")


@dataclass(frozen=True)
class Cell:
    """One layer and direction of a recurrent network of H units.

    W [G * H, I] multiplies the input, U [G * H, H] the state; `bias` [G * H] is what is added to
    both products, None if the layer has no biases. `gates` are r, z, n of a GRU, i, f, g, o of an
    LSTM, and h alone, the new state, of a network without gates.
    """

    module: str
    place: str
    layer: int
    input_name: str
    W: Tensor
    U: Tensor
    bias: Tensor | None
    gates: tuple[str, ...]

    @property
    def name(self) -> str:
        """The module and the place in it, such as decoder.gru.l0."""
        return ".".join(filter(None, [self.module, self.place.removeprefix("_")]))

    @property
    def hidden(self) -> int:
        """H, the number of units."""
        return self.U.shape[1]

    @property
    def is_reverse(self) -> bool:
        """True of the direction that reads sequences from their end."""
        return self.place.endswith("_reverse")


def find_cells(model: Mapping[str, Tensor]) -> list[Cell]:
    """Every direction of every recurrent layer, by torch's names, in the order of the model."""
    cells = []
    for name, U in model.items():
        match = _RECURRENT.match(name)
        if match is None or U.dim() != 2 or not U.numel() or U.shape[0] % U.shape[1]:
            continue
        start, place = name[: match.start("place") - len("weight_hh")], match["place"]
        W = model.get(f"{start}weight_ih{place}")
        if W is None or W.dim() != 2 or W.shape[0] != U.shape[0]:
            continue
        biases = [model.get(f"{start}bias_{kind}{place}") for kind in ("ih", "hh")]
        known = [b.float() for b in biases if b is not None and b.shape == U.shape[:1]]
        cells.append(
            Cell(
                *(match["module"], place, int(match["layer"] or 0), f"{start}weight_ih{place}"),
                *(W, U, sum(known[1:], known[0]) if known else None),
                gates=gate_names(U.shape[0] // U.shape[1]),
            )
        )
    return cells


def directions(cell: Cell, cells: list[Cell]) -> int:
    """How many directions the layer of a cell has; they are concatenated, the reverse one last."""
    return sum((c.module, c.layer) == (cell.module, cell.layer) for c in cells)


def readers(cell: Cell, cells: list[Cell], model: Mapping[str, Tensor]) -> list[Tensor] | None:
    """The columns [M, H] of every matrix that reads a cell's units, besides its own U.

    Those are W of the layer above. Above the top layer they are known if the model has one
    recurrent network only: every matrix of a linear layer that is as wide as the network's output.
    None: not known.
    """
    width = directions(cell, cells) * cell.hidden
    above = [c for c in cells if (c.module, c.layer) == (cell.module, cell.layer + 1)]
    matrices = [c.W for c in above]
    if not above:
        if any(c.module != cell.module for c in cells):
            return None
        matrices = [model[p.name] for p in find_prunable(model) if p.type == "linear"]
        matrices = [matrix for matrix in matrices if matrix.shape[1] == width]
    if not matrices or any(matrix.shape[1] != width for matrix in matrices):
        return None
    start = cell.hidden if cell.is_reverse else 0
    return [matrix[:, start : start + cell.hidden] for matrix in matrices]


def sources(cell: Cell, cells: list[Cell], model: Mapping[str, Tensor]) -> list[tuple[str, int]]:
    """What the columns of W are, from left to right: (name, number of columns).

    The units of the layer below, each direction's; the dimensions of an embedding beside the
    network, and what is fed beside it; what comes out of a convolution that lies before; or the
    features of the data themselves.
    """
    width = cell.W.shape[1]
    below = [c for c in cells if (c.module, c.layer) == (cell.module, cell.layer - 1)]
    if below and sum(c.hidden for c in below) == width:
        below.sort(key=lambda c: c.is_reverse)
        return [(f"units of {c.place.removeprefix('_')}", c.hidden) for c in below]
    parent = f"{cell.module.rpartition('.')[0]}." if "." in cell.module else ""
    before = list(model)[: list(model).index(cell.input_name)]
    for name in before:
        rest = name.removeprefix(parent)
        if name.startswith(parent) and "embed" in rest and model[name].dim() == 2:
            embedding = model[name].shape[1]
            if embedding == width:
                return [("embedding", width)]
            if embedding < width:
                return [("embedding", embedding), ("fed beside it", width - embedding)]
    convolutions = [model[name].dim() for name in before if model[name].dim() in (3, 4)]
    if convolutions:
        return [("channels" if convolutions[-1] == 3 else "channels x bands", width)]
    return [("features", width)]
