"""One page of HTML with everything that `rnnprune report` knows; it needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from fairseq_rnnprune.display.grid import Grid, count, percent, size

from .render import report_grid, report_notes
from .render_survivors import Section, survivor_sections
from .survivors import Pair, Survivors
from .svg import curves_svg, mask_svg, safe
from .table import CheckpointReport
from .trainlog import TrainLog

# Nothing may be loaded or run, whatever a file that is shown has put into its names.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_START = b"<!DOCTYPE html>"
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
  color: #1a1a1a; background: #fff; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 2px 10px; text-align: left; white-space: pre; }
th { border-bottom: 1px solid #888; }
th.group { text-align: center; }
.number { text-align: right; }
tr.gate td { color: #666; }
tr.section td { border-top: 1px solid #888; }
ul { color: #444; font-size: 13px; }
img { max-width: 100%; }
figure { display: inline-block; margin: 0 1rem 1rem 0; font-size: 12px; }
svg.mask, svg.curves { border: 1px solid #bbb; background: #fff; }
"""


def render_page(
    reports: Sequence[CheckpointReport],
    survivors: Sequence[Survivors],
    pairs: Sequence[Pair],
    logs: Mapping[str, TrainLog],
    plots: Iterable[Path] | None,
) -> str:
    """The page: summary, figures, a table per question.

    `plots` are PNG files to embed; None: there is no matplotlib, and SVG takes their place.
    """
    sections = [
        Section("Summary", _summary(reports, survivors), []),
        Section("Tensors and gates", report_grid(list(reports)), report_notes(list(reports))),
        *survivor_sections(survivors, pairs),
    ]
    figures = _drawn(survivors, logs) if plots is None else _embedded(plots)
    summary, *tables = map(_section, sections)
    body = "\n".join([summary, "<h2>Figures</h2>", *figures, *tables])
    return (
        f'{_START.decode()}\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>rnnprune report</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>rnnprune report</h1>\n{body}\n</body></html>\n"
    )


def check_page(path: Path) -> None:
    """ValueError if a page would take the place of something else, such as a checkpoint."""
    start = path.read_bytes()[: len(_START)] if path.is_file() else b""
    if path.exists() and start.lower() != _START.lower():
        raise ValueError(
            f"--html: expected a new file or a page of HTML to replace, got {path}, which is "
            "neither; name the page right behind --html and then the checkpoints"
        )


def write_page(page: str, path: Path) -> Path:
    """Writes a page to a file, whose folder is made; returns its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    return path


def _summary(reports: Sequence[CheckpointReport], survivors: Sequence[Survivors]) -> Grid:
    """A line per checkpoint: how far it was trained, what is left and how large that is."""
    header = ["checkpoint", "updates", "parameters", "kept", "sparsity", "dense", "packed"]
    rows = []
    for report, s in zip(reports, survivors, strict=True):
        model = report.totals[-1]
        units = sum(u.units for u in s.units)
        rows.append(
            [
                report.label,
                "" if report.updates is None else count(report.updates),
                *(count(model.elements), count(model.kept), percent(model.sparsity)),
                *(size(model.dense_bytes), size(model.stored_bytes)),
                f"{count(sum(u.dead for u in s.units))} of {count(units)}" if units else "-",
            ]
        )
    return Grid([*header, "dead units"], rows, numeric=1)


def _section(section: Section) -> str:
    notes = "".join(f"<li>{safe(note)}</li>" for note in section.notes)
    return f"<h2>{safe(section.title)}</h2>\n{_table(section.grid)}" + (
        f"\n<ul>{notes}</ul>" if notes else ""
    )


def _table(grid: Grid) -> str:
    head = ""
    if len(grid.groups) > 1:
        cells = (f'<th class="group" colspan="{n}">{safe(t)}</th>' for t, n in grid.groups)
        head = f'<tr><th colspan="{grid.numeric}"></th>{"".join(cells)}</tr>\n'
    lines = [head + _row("th", grid.header, grid.numeric, "")]
    for i, cells in enumerate(grid.rows):
        kind = "section" if i in grid.sections else "gate" if cells[0].startswith(" ") else ""
        lines.append(_row("td", cells, grid.numeric, kind))
    return "\n".join(['<div class="wide"><table>', *lines, "</table></div>"])


def _row(tag: str, cells: Sequence[str], numeric: int, kind: str) -> str:
    written = []
    for i, cell in enumerate(cells):
        align = ' class="number"' if i >= numeric else ""
        written.append(f"<{tag}{align}>{safe(cell)}</{tag}>")
    attribute = f' class="{kind}"' if kind else ""
    return f"<tr{attribute}>{''.join(written)}</tr>"


def _embedded(plots: Iterable[Path]) -> list[str]:
    figures = []
    for path in plots:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        figures.append(f'<p><img alt="{safe(path.stem)}" src="data:image/png;base64,{data}"></p>')
    return figures


def _drawn(survivors: Sequence[Survivors], logs: Mapping[str, TrainLog]) -> list[str]:
    figures = [
        curves_svg(log.by_type(quantity), f"{label}: {quantity}")
        for label, log in logs.items()
        for quantity in ("sparsity", "threshold")
    ]
    figures += [
        mask_svg(image, f"{s.label}: {u.layer}, {gate}")
        for s in survivors
        for u in s.units
        for gate, image in u.images.items()
    ]
    return figures
