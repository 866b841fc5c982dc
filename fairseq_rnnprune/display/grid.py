"""Prints tables, with rich on a terminal and as plain text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

K, V = TypeVar("K"), TypeVar("V")


@dataclass(frozen=True)
class Grid:
    """Cells of text under a header. Columns from `numeric` on are aligned to the right.

    `groups` are (title, columns) pairs that cover the header from `numeric` on. A row starts a
    new section if its index is in `sections`.
    """

    header: list[str]
    rows: list[list[str]]
    numeric: int
    groups: list[tuple[str, int]] = field(default_factory=list)
    sections: list[int] = field(default_factory=list)


def side_by_side(columns: Sequence[Mapping[K, V]]) -> list[list[V | None]]:
    """What the columns have under each key, in the order of first appearance; None for nothing."""
    keys = dict.fromkeys(key for column in columns for key in column)
    return [[column.get(key) for column in columns] for key in keys]


def print_grid(grid: Grid) -> None:
    """Prints a table to the standard output."""
    if sys.stdout.isatty():
        _print_rich(grid)
    else:
        print_lines(_plain_lines(grid))


def print_lines(lines: Iterable[str]) -> None:
    """Prints texts with names from files to the standard output."""
    for line in lines:
        print(printable(line))


def printable(text: str) -> str:
    """A text from a file without what would move a terminal's cursor or change its colours."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def count(number: int) -> str:
    """A count with thousands apart."""
    return f"{number:,}"


def percent(fraction: float | None) -> str:
    """A fraction in [0, 1] as per cent; an empty cell for None."""
    return "" if fraction is None else f"{100 * fraction:.2f} %"


def size(number: int) -> str:
    """Bytes in the unit that suits them."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number} B"


def _plain_lines(grid: Grid) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(grid.header, *grid.rows, strict=True)]
    at = grid.numeric
    for title, columns in grid.groups:
        # The last column of a group grows until its title fits.
        room = sum(widths[at : at + columns]) + 2 * (columns - 1)
        widths[at + columns - 1] += max(0, len(title) - room)
        at += columns
    if len(grid.groups) > 1:
        yield _group_line(grid, widths)
    yield _line(grid.header, widths, grid.numeric)
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    yield rule
    for i, row in enumerate(grid.rows):
        if i in grid.sections:
            yield rule
        yield _line(row, widths, grid.numeric)


def _group_line(grid: Grid, widths: list[int]) -> str:
    cells, at = [" " * (sum(widths[: grid.numeric]) + 2 * (grid.numeric - 1))], grid.numeric
    for title, columns in grid.groups:
        room = sum(widths[at : at + columns]) + 2 * (columns - 1)
        cells.append(f" {title} ".center(room, "-") if len(title) + 2 <= room else title)
        at += columns
    return "  ".join(cells).rstrip()


def _line(cells: list[str], widths: list[int], numeric: int) -> str:
    padded = (
        cell.ljust(width) if i < numeric else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def _print_rich(grid: Grid) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    # A title above the first column of its group.
    titles = dict.fromkeys(range(len(grid.header)), "")
    at = grid.numeric
    for title, columns in grid.groups if len(grid.groups) > 1 else []:
        titles[at] = f"{printable(title)}\n"
        at += columns
    table = Table(box=SIMPLE_HEAD)
    for i, name in enumerate(grid.header):
        justify = "left" if i < grid.numeric else "right"
        table.add_column(titles[i] + name, justify=justify, no_wrap=True, vertical="bottom")
    for i, row in enumerate(grid.rows):
        style = "dim" if row[0].startswith(" ") else ""
        table.add_row(*map(printable, row), style=style, end_section=i + 1 in grid.sections)
    console = Console(markup=False, highlight=False)
    # A terminal that is too narrow wraps lines; rich alone would cut numbers short.
    needed = console.measure(table, options=console.options.update_width(10_000)).maximum
    console.width = max(console.width, needed)
    console.print(table)
