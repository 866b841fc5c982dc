"""Which inputs a mask leaves: kept weights per column of a matrix and per row of an embedding."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from fairseq_rnnprune.pruning import Prunable

from .cells import find_cells, sources
from .dictionary import fitting


@dataclass(frozen=True)
class Inputs:
    """Kept weights of each of some columns of a matrix, each of which has `weights`.

    `source` says what the columns are: see `cells.sources`, or "inputs" of a linear layer.
    """

    name: str
    source: str
    weights: int
    kept: list[int] = field(repr=False)

    @property
    def pruned(self) -> int:
        """How many columns are wholly pruned: inputs that the layer does not see."""
        return self.kept.count(0)


@dataclass(frozen=True)
class Symbols:
    """Kept weights of each row of an embedding or output layer, each of which has `weights`.

    `symbols` are the rows' names, by the dictionary; None: there is none of that size.
    """

    name: str
    weights: int
    kept: list[int] = field(repr=False)
    symbols: Sequence[str] | None = field(default=None, repr=False)

    @property
    def pruned(self) -> int:
        """How many rows are wholly pruned. That of padding is zero from the beginning."""
        return self.kept.count(0)

    @property
    def is_even(self) -> bool:
        """True if all rows keep as many weights, but for rows that keep none."""
        return len({k for k in self.kept if k}) < 2

    def ranked(self, count: int, most: bool) -> list[tuple[str, int]]:
        """The `count` rows that keep the most or the fewest weights: (symbol or index, kept)."""
        rows = sorted(enumerate(self.kept), key=lambda row: -row[1] if most else row[1])
        names = self.symbols or [f"row {i}" for i in range(len(self.kept))]
        return [(names[i], kept) for i, kept in rows[:count]]


def spread(kept: Sequence[int]) -> tuple[int, float, int]:
    """Lowest, median and highest of the kept weights."""
    return min(kept), statistics.median(kept), max(kept)


def count_inputs(model: Mapping[str, Tensor], prunables: Iterable[Prunable]) -> list[Inputs]:
    """The columns of every matrix of type input or linear, by where they come from."""
    cells = find_cells(model)
    of_cells = {c.input_name: c for c in cells}
    found = []
    for p in prunables:
        if p.type not in ("input", "linear"):
            continue
        weight, cell = model[p.name], of_cells.get(p.name)
        parts = [("inputs", weight.shape[1])] if cell is None else sources(cell, cells, model)
        kept, start = weight.count_nonzero(dim=0).tolist(), 0
        for source, columns in parts:
            found.append(Inputs(p.name, source, len(weight), kept[start : start + columns]))
            start += columns
    return found


def count_symbols(
    model: Mapping[str, Tensor],
    prunables: Iterable[Prunable],
    dictionaries: Sequence[Sequence[str]] = (),
) -> list[Symbols]:
    """The rows of every embedding, and of output layers with a row per symbol of a dictionary."""
    found = []
    for p in prunables:
        weight = model[p.name]
        symbols = fitting(dictionaries, len(weight), p.name)
        # An embedding that is tied to an output layer is of type linear.
        is_embedding = "embed" in p.name.rpartition(".")[0].rpartition(".")[2]
        if is_embedding or (p.type == "linear" and "output" in p.name and symbols is not None):
            kept = weight.count_nonzero(dim=1).tolist()
            found.append(Symbols(p.name, weight.shape[1], kept, symbols))
    return found
