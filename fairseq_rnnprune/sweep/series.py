"""What `rnnprune plot` draws: rows of results made into series of points, and references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from .rows import Choices, Row, columns, group_by_seed, is_chosen, number


@dataclass(frozen=True)
class Point:
    """Runs that differ in their seed: (x, y) of each."""

    seeds: list[tuple[float, float]]

    @property
    def mean(self) -> tuple[float, float]:
        x, y = zip(*self.seeds, strict=True)
        return fmean(x), fmean(y)


@dataclass(frozen=True)
class Picture:
    """Points by (value of --by, value of --style), from left to right; references by label.

    A value is None if its option was not given. `left_out` rows have no numbers to draw.
    """

    series: dict[tuple[Any, Any], list[Point]] = field(default_factory=dict)
    references: dict[str, float] = field(default_factory=dict)
    left_out: int = 0


def make_picture(
    rows: Sequence[Row],
    x: str,
    y: str,
    by: str | None = None,
    style: str | None = None,
    where: Choices | None = None,
    reference: Choices | None = None,
) -> Picture:
    """Sorts rows into series; ValueError for a column that no row has, or if no row is left.

    Rows of `reference` are in no series, and `where` does not choose among them.
    """
    flat = [columns(row) for row in rows]
    if not flat:
        raise ValueError("plot: expected rows in the results, got none")
    named = {"--x": [x], "--y": [y], "--by": [by], "--style": [style]}
    named |= {"--where": list(where or {}), "--reference": list(reference or {})}
    for option, names in named.items():
        for name in filter(None, names):
            _check_column(option, name, flat)

    def is_reference(row: Row) -> bool:
        return bool(reference) and is_chosen(columns(row), reference)

    dense = [row for row in rows if is_reference(row)]
    chosen = [row for row in rows if not is_reference(row) and is_chosen(columns(row), where or {})]
    drawable = [row for row in chosen if _point(columns(row), x, y) is not None]
    if not drawable:
        raise ValueError(
            f"plot: expected rows with numbers in {x} and {y}, got none among {len(chosen)} that "
            f"--where and --reference leave of {len(rows)}"
        )
    parts: dict[tuple[Any, Any], list[Row]] = {}
    for row in drawable:
        key = tuple(_scalar(columns(row).get(name)) if name else None for name in (by, style))
        parts.setdefault(key, []).append(row)
    series = {
        key: sorted(
            (Point([_point(row, x, y) for row in group]) for group in group_by_seed(part)),
            key=lambda point: point.mean,
        )
        for key, part in parts.items()
    }
    first, second = zip(*series, strict=True)
    return Picture(
        {
            (a, b): series[a, b]
            for a in _ordered(first)
            for b in _ordered(second)
            if (a, b) in series
        },
        _references(dense, y, reference or {}),
        len(chosen) - len(drawable) + sum(_finite(columns(row).get(y)) is None for row in dense),
    )


def _check_column(option: str, name: str, flat: list[dict[str, Any]]) -> None:
    if not any(name in row for row in flat):
        present = sorted({column for row in flat for column in row})
        raise ValueError(f"{option}: expected a column among {', '.join(present)}, got {name}")


def _scalar(value: Any) -> Any:
    """A value as it is, or the text of a list or mapping."""
    return str(value) if isinstance(value, list | dict) else value


def _point(row: dict[str, Any], x: str, y: str) -> tuple[float, float] | None:
    numbers = _finite(row.get(x)), _finite(row.get(y))
    return None if None in numbers else numbers


def _finite(value: Any) -> float | None:
    found = number(value)
    return found if found is not None and math.isfinite(found) else None


def _references(rows: list[Row], y: str, reference: Choices) -> dict[str, float]:
    """The mean of each group, called by what is asked for, and by its name if there are more."""
    groups = [
        (group[0], [v for v in (_finite(row.get(y)) for row in group) if v is not None])
        for group in group_by_seed(rows)
    ]
    groups = [(first, values) for first, values in groups if values]
    if reference and not groups:
        asked = ", ".join(f"{n}={','.join(texts)}" for n, texts in reference.items())
        raise ValueError(f"--reference: expected rows of {asked} with a number in {y}, got none")
    labels = [" ".join(str(first[name]) for name in reference) for first, _ in groups]
    return {
        label if labels.count(label) == 1 else str(first.get("name", label)): fmean(values)
        for label, (first, values) in zip(labels, groups, strict=True)
    }


def _ordered(values: Sequence[Any]) -> list[Any]:
    """Numbers by size, text as it first comes in the results; each once."""
    different = list(dict.fromkeys(values))
    if all(number(value) is not None for value in different):
        different.sort(key=number)
    return different
