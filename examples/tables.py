"""Writes the tables of the READMEs from the result files; `--check` only compares.

A table stands between `<!-- table: FOLDER -->` and `<!-- end -->`. FOLDER holds one JSON file per
finished run and table.json: the columns, as pairs of a title and a format string over the run,
and the order of the runs by name. `<!-- table: FOLDER NAME -->` takes NAME.json instead, which may
say with "is_selection" that it leaves out other runs.

`<!-- table: FOLDER/FILE.jsonl NAME -->` is a table of the results of `rnnprune sweep` in the layout
FOLDER/NAME.json. The format strings are over the columns of a row: axes, figures, name, commit.
"where" maps columns to a value or a list of values that rows must have; "order" maps columns to
their values in order, the first column first, or to [] for rising ones; "merge_seeds": true makes
one row of runs that differ in their seed: `{test_cer:.2f}` is then the mean, with the lowest and
highest if they differ, also to be had as `{test_cer.mean:.2f}`, `.low` and `.high`; `{runs}` is the
number of seeds. "rename" maps columns to other names of their values. "across" lays rows that agree
in "columns" side by side: "title" is the format of the further columns' titles, "cell" of what they
hold.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fairseq_rnnprune.sweep.rows import (
    Spread,
    columns,
    group_by_seed,
    is_chosen,
    number,
    read_rows,
    summarise,
)

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"(<!-- table: (\S+)(?: (\w+))? -->\n).*?(<!-- end -->)", re.S)


def main() -> None:
    stale = []
    for path in [ROOT / "README.md", *sorted(ROOT.glob("*/**/README.md"))]:
        if any(part.startswith(".") for part in path.relative_to(ROOT).parts):
            continue
        text = path.read_text(encoding="utf-8")
        fresh = BLOCK.sub(lambda m: m[1] + table(ROOT / m[2], m[3] or "table") + m[4], text)
        if fresh != text:
            stale.append(str(path.relative_to(ROOT)))
            if "--check" not in sys.argv:
                path.write_text(fresh, encoding="utf-8")
    if stale and "--check" in sys.argv:
        raise SystemExit(f"tables: {', '.join(stale)} differ from the results; run `make tables`")
    print("tables:", ", ".join(stale) or "nothing to change")


def table(folder: Path, name: str = "table") -> str:
    """The Markdown table of one folder or .jsonl file of results, in the layout of that name."""
    if folder.suffix == ".jsonl":
        return sweep_table(folder, folder.parent / f"{name}.json")
    layout = json.loads((folder / f"{name}.json").read_text())
    rank = {name: i for i, name in enumerate(layout["order"])}
    results = [json.loads(p.read_text()) for p in sorted(folder.glob("*-s*.json"))]
    if layout.get("is_selection"):
        results = [r for r in results if r["name"] in rank]
    if not results:
        raise SystemExit(f"tables: expected results in {folder}, got none")
    unknown = {r["name"] for r in results} - rank.keys()
    if unknown:
        raise SystemExit(f"tables: {folder / 'table.json'} has no place for {sorted(unknown)}")
    results.sort(key=lambda r: (rank[r["name"]], r["seed"]))
    return markdown(layout, results)


def sweep_table(results: Path, layout_file: Path) -> str:
    """The Markdown table of the results of a sweep; SystemExit if the layout does not fit them."""
    layout = json.loads(layout_file.read_text())
    where = {
        column: [str(value) for value in (values if isinstance(values, list) else [values])]
        for column, values in layout.get("where", {}).items()
    }
    rows = [row for row in read_rows([results]) if is_chosen(columns(row), where)]
    if not rows:
        raise SystemExit(f"tables: expected rows of {results} as {layout_file} asks, got none")
    if layout.get("merge_seeds"):
        flat = [summarise(group) for group in group_by_seed(rows)]
    else:
        flat = [columns(row) for row in rows]
    for column, names in layout.get("rename", {}).items():
        flat = [row | {column: names.get(row[column], row[column])} for row in flat]
    # Python's sort is stable: the first column is sorted by at last.
    for column, order in reversed(layout.get("order", {}).items()):
        flat.sort(key=lambda row: rank(row, column, order, layout_file))
    try:
        return markdown(layout, flat)
    except KeyError as error:
        raise SystemExit(f"tables: {layout_file}: no column {error} in {results}") from None


def rank(row: Mapping[str, Any], column: str, order: list[Any], layout_file: Path) -> Any:
    """Where a row stands in the order of one column."""
    value = row.get(column)
    if isinstance(value, Spread):
        value = value.mean
    if not order:
        as_number = number(value)
        return as_number is None, as_number or 0.0, str(value)
    if value not in order:
        raise SystemExit(f"tables: {layout_file} has no place for {column} {value!r}")
    return order.index(value)


def markdown(layout: Mapping[str, Any], results: Iterable[Mapping[str, Any]]) -> str:
    """A table with the columns of a layout."""
    titles, formats = zip(*layout["columns"], strict=True)
    rows = [([f.format_map(result) for f in formats], result) for result in results]
    if "across" in layout:
        further, lines = side_by_side(layout["across"], rows)
    else:
        further, lines = [], [line for line, _ in rows]
    table = [[*titles, *further], ["---"] * (len(titles) + len(further)), *lines]
    return "".join("| " + " | ".join(line) + " |\n" for line in table)


def side_by_side(
    across: Mapping[str, str], rows: Iterable[tuple[list[str], Mapping[str, Any]]]
) -> tuple[list[str], list[list[str]]]:
    """Titles of the further columns, and one line of all rows that begin alike."""
    titles: dict[str, None] = {}
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for start, result in rows:
        title = across["title"].format_map(result)
        titles[title] = None
        line = lines.setdefault(tuple(start), {})
        if title in line:
            raise SystemExit(f"tables: expected one row of {start} and {title}, got two")
        line[title] = across["cell"].format_map(result)
    return list(titles), [
        [*start, *(line.get(t, "") for t in titles)] for start, line in lines.items()
    ]


if __name__ == "__main__":
    main()
