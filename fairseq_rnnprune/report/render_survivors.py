"""Units, inputs, symbols and overlaps of `rnnprune report` as tables with legends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fairseq_rnnprune.display.grid import Grid, count, percent, side_by_side

from .inputs import Inputs, Symbols, spread
from .legends import (
    DIAGONAL_LEGEND,
    INPUTS_LEGEND,
    OVERLAP_LEGEND,
    SYMBOLS_LEGEND,
    units_legend,
)
from .overlap import Overlap
from .survivors import Pair, Survivors
from .units import Units

# A row of a table: what stands before the figures, and those of one checkpoint.
_Lines = dict[Any, tuple[list[str], list[str]]]
SHOWN_SYMBOLS = 5


@dataclass(frozen=True)
class Section:
    """A table under a title, with what must be known to read it."""

    title: str
    grid: Grid
    notes: list[str]


def survivor_sections(survivors: Sequence[Survivors], pairs: Sequence[Pair]) -> list[Section]:
    """The tables that have rows; one group of columns per checkpoint or pair of checkpoints."""
    labels = [s.label for s in survivors]
    gates = list(dict.fromkeys(g for s in survivors for u in s.units for g in u.constant))
    constants = [f"constant {g}" for g in gates]
    kept = ["pruned", "lowest", "median", "highest"]
    unit_columns = ["no input", "no output", "dead", *constants]
    unit_lines = [{u.layer: _unit_line(u, gates) for u in s.units} for s in survivors]
    constant_notes = [
        f"{s.label}: {u.layer}: constant {gate} from {low:.3f} to {high:.3f}, median {middle:.3f}"
        for s in survivors
        for u in s.units
        for gate, (low, middle, high) in u.constant_values.items()
    ]
    sections = [
        Section(
            "Units",
            _grid(["layer", "units"], unit_columns, labels, unit_lines),
            [*units_legend(gates), *constant_notes],
        ),
        Section(
            "Recurrent diagonals",
            _grid(
                ["layer", "gate", "units"],
                ["kept", "share", "density", "x density"],
                labels,
                [_diagonal_lines(s) for s in survivors],
            ),
            DIAGONAL_LEGEND,
        ),
        Section(
            "Kept weights per input",
            _grid(
                ["tensor", "columns", "inputs", "weights"],
                kept,
                labels,
                [{(i.name, i.source): _input_line(i) for i in s.inputs} for s in survivors],
            ),
            INPUTS_LEGEND,
        ),
        Section(
            "Kept weights per symbol",
            _grid(
                ["tensor", "rows", "weights"],
                kept,
                labels,
                [{i.name: _symbol_line(i) for i in s.symbols} for s in survivors],
            ),
            [*SYMBOLS_LEGEND, *(note for s in survivors for note in _symbol_notes(s))],
        ),
        Section(
            "Overlap of masks",
            _grid(
                ["tensor", "type"],
                ["kept by 1", "kept by 2", "Jaccard", "chance", "x chance", "contained"],
                [f"1: {p.first}, 2: {p.second}" for p in pairs],
                [{(o.name, o.gate): _overlap_line(o) for o in p.overlaps} for p in pairs],
            ),
            [
                *OVERLAP_LEGEND,
                *(f"1: {p.first}, 2: {p.second}" for p in pairs if len(pairs) == 1),
                *(
                    f"not in both of {p.first} and {p.second}, or of other shapes: "
                    f"{', '.join(p.not_comparable)}"
                    for p in pairs
                    if p.not_comparable
                ),
            ],
        ),
    ]
    # Of masks that cannot be compared the last one says so.
    return [s for s in sections[:-1] if s.grid.rows] + (sections[-1:] if pairs else [])


def _grid(leading: list[str], columns: list[str], labels: list[str], lines: list[_Lines]) -> Grid:
    """Lines with equal keys side by side, in the order of first appearance."""
    rows = []
    for found in side_by_side(lines):
        first = next(line for line in found if line is not None)
        rows.append([*first[0]])
        for line in found:
            rows[-1] += line[1] if line is not None else ["-"] * len(columns)
    groups = [(label, len(columns)) for label in labels]
    return Grid([*leading, *columns * len(labels)], rows, len(leading), groups)


def _unit_line(u: Units, gates: list[str]) -> tuple[list[str], list[str]]:
    figures = [u.no_input, u.no_output, u.dead, *(u.constant.get(g) for g in gates)]
    return [u.layer, count(u.units)], ["-" if f is None else count(f) for f in figures]


def _diagonal_lines(survivors: Survivors) -> _Lines:
    return {
        (u.layer, gate): (
            [u.layer, gate, count(d.units)],
            [count(d.kept), percent(d.share), percent(d.density), _times(d.times_density)],
        )
        for u in survivors.units
        for gate, d in u.diagonals.items()
    }


def _input_line(i: Inputs) -> tuple[list[str], list[str]]:
    return [i.name, i.source, count(len(i.kept)), count(i.weights)], _spread_cells(i)


def _symbol_line(s: Symbols) -> tuple[list[str], list[str]]:
    return [s.name, count(len(s.kept)), count(s.weights)], _spread_cells(s)


def _spread_cells(item: Inputs | Symbols) -> list[str]:
    low, middle, high = spread(item.kept)
    return [count(item.pruned), count(low), f"{middle:,.10g}", count(high)]


def _symbol_notes(survivors: Survivors) -> list[str]:
    notes = []
    for s in survivors.symbols:
        for most in (True, False) if not s.is_even else ():
            rows = ", ".join(f"{n} {kept}" for n, kept in s.ranked(SHOWN_SYMBOLS, most))
            which = "most" if most else "least"
            notes.append(f"{survivors.label}: {s.name}: {which} kept: {rows}")
    return notes


def _overlap_line(o: Overlap) -> tuple[list[str], list[str]]:
    cells = [*map(count, o.kept), percent(o.jaccard), percent(o.chance)]
    leading = [f"  gate {o.gate}", ""] if o.gate else [o.name, o.type]
    return leading, [*cells, _times(o.times_chance), percent(o.contained)]


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
