"""Writes the tables of the READMEs from the result files; `--check` only compares.

A table stands between `<!-- table: FOLDER -->` and `<!-- end -->`. FOLDER holds one JSON file per
finished run and table.json: the columns, as pairs of a title and a format string over the run,
and the order of the runs by name. `<!-- table: FOLDER NAME -->` takes NAME.json instead, which may
say with "is_selection" that it leaves out other runs.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

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
    """The Markdown table of one folder of results, in the layout of that name."""
    layout = json.loads((folder / f"{name}.json").read_text())
    rank = {name: i for i, name in enumerate(layout["order"])}
    results = [json.loads(p.read_text()) for p in sorted(folder.glob("*-s*.json"))]
    if layout.get("is_selection"):
        results = [r for r in results if r["name"] in rank]
    unknown = {r["name"] for r in results} - rank.keys()
    if unknown:
        raise SystemExit(f"tables: {folder / 'table.json'} has no place for {sorted(unknown)}")
    results.sort(key=lambda r: (rank[r["name"]], r["seed"]))
    titles, formats = zip(*layout["columns"], strict=True)
    rows = [titles, ["---"] * len(titles)]
    rows += [[f.format_map(result) for f in formats] for result in results]
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


if __name__ == "__main__":
    main()
