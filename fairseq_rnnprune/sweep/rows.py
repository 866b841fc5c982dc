"""Rows of results: their columns, those that are asked for, and runs that differ in the seed only.

A row is a line of the results of `rnnprune sweep`, or a file of the results of a recipe.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Choices = dict[str, list[str]]

SEED = "seed"


def read_rows(paths: Iterable[Path]) -> list[Row]:
    """Reads NAME.jsonl of sweeps, and the JSON files of single runs or folders of them.

    ValueError for a line or file that is no row. A torn last line is passed over.
    """
    rows = []
    for path in paths:
        files = sorted(path.glob("*-s*.json")) if path.is_dir() else [path]
        for file in files:
            content = file.read_bytes()
            if file.suffix == ".jsonl":
                rows += parse_lines(content, file)[0]
            else:
                rows.append(_parse(content, str(file)))
    return rows


def parse_lines(content: bytes, path: Path) -> tuple[list[Row], int]:
    """The rows in the content of a file, and the number of bytes they take.

    That is less than all if the last line was torn when its writer was killed.
    """
    rows, end = [], 0
    for i, line in enumerate(content.splitlines(keepends=True), 1):
        if _is_torn(line):
            break
        if line.strip():
            rows.append(_parse(line, f"{path}, line {i}"))
        end += len(line)
    return rows, end


def _is_torn(line: bytes) -> bool:
    """True of the beginning of a row; what is anything else is not ours to drop."""
    return line.startswith(b"{") and not line.endswith(b"\n") and _json(line) is None


def _json(content: bytes) -> Any:
    with contextlib.suppress(ValueError):
        return json.loads(content)


def _parse(content: bytes, where: str) -> Row:
    row = _json(content)
    if not (
        isinstance(row, dict)
        and isinstance(row.get("figures"), dict)
        and isinstance(row.get("axes") or {}, dict)
    ):
        start = content.decode("utf-8", errors="replace").strip()
        raise ValueError(f"{where}: expected a JSON object with figures, got {start!r:.60}")
    return row


def columns(row: Row) -> dict[str, Any]:
    """What a row says, by name: its name and the like, its figures, its axes."""
    flat = {name: value for name, value in row.items() if isinstance(value, str | int | float)}
    return flat | row["figures"] | (row.get("axes") or {})


def number(value: Any) -> float | None:
    """A number, also if it is written as text; None for anything else."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def is_chosen(row: Mapping[str, Any], choices: Choices) -> bool:
    """True if every column that is named in the choices has one of the values there."""
    return all(
        name in row and any(is_value(row[name], part) for text in texts for part in parts(text))
        for name, texts in choices.items()
    )


def is_value(value: Any, text: str) -> bool:
    """True if a text is how a value is written, or the same number."""
    return str(value) == text or (number(text) is not None and number(value) == number(text))


def parts(text: str) -> list[str]:
    """What VALUE,VALUE may mean: one value with a comma in it, such as 4,4, or any of them."""
    return [text, *text.split(",")]


def parse_choices(option: str, texts: Iterable[str]) -> Choices:
    """Reads NAME=VALUE,VALUE of a repeatable option; the values are not taken apart (`parts`)."""
    choices: Choices = {}
    for text in texts:
        name, equals, values = text.partition("=")
        if not name or not equals:
            raise ValueError(f"{option}: expected NAME=VALUE,VALUE, got {text!r}")
        choices.setdefault(name, []).append(values)
    return choices


def group_by_seed(rows: Iterable[Row]) -> list[list[dict[str, Any]]]:
    """The columns of rows, those together that differ in their seed only; a row given twice once.

    ValueError if one run with one seed has different rows: they would be taken for two seeds.
    """
    groups: dict[str, dict[Any, dict[str, Any]]] = {}
    for row in rows:
        axes = row.get("axes") or {"name": row.get("name")}
        same = json.dumps({n: v for n, v in axes.items() if n != SEED}, sort_keys=True)
        flat = columns(row)
        known = groups.setdefault(same, {}).setdefault(flat.get(SEED), flat)
        if known != flat:
            raise ValueError(
                f"results: expected one row of each run and seed, got {row.get('name')} with two; "
                "leave out other results, or choose with --where, such as --where commit=COMMIT"
            )
    return [list(group.values()) for group in groups.values()]


@dataclass(frozen=True)
class Spread:
    """A figure over seeds; formatted it is its mean, and its range if there is one."""

    values: Sequence[float]

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)

    def __format__(self, spec: str) -> str:
        low, high = format(self.low, spec), format(self.high, spec)
        # Values that are written alike have no range to be shown.
        return low if low == high else f"{format(self.mean, spec)} ({low} to {high})"


def summarise(group: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of runs that differ in their seed: numbers as Spread, `runs` is how many there are.

    Texts that differ are listed. A column that not all of them have is left out.
    """
    summary: dict[str, Any] = {"runs": len(group)}
    for name, first in group[0].items():
        values = [row.get(name) for row in group]
        numeric = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numeric) == len(values):
            summary[name] = Spread(numeric)
        elif all(value == first for value in values):
            summary[name] = first
        elif all(isinstance(value, str) for value in values):
            summary[name] = ", ".join(dict.fromkeys(values))
    return summary
