"""The figures of `rnnprune bench` as a table, as notes under it, and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fairseq_rnnprune.display.grid import Grid, count, side_by_side, size
from fairseq_rnnprune.provenance import environment
from fairseq_rnnprune.sparse.cpu_library import instruction_sets

from .figures import AUTO, CheckpointBench, Figures, Row, Settings
from .timing import load_average
from .variants import DENSE, VALUES

COLUMNS = ("runs on", "multiply-adds", "stored", "read", "us")
VARIANTS = ("nonzero", *DENSE, *VALUES, AUTO)


def bench_grid(benches: list[CheckpointBench]) -> Grid:
    """One section per layer and total, one row per variant, one group of columns per checkpoint."""
    layers = side_by_side([{f.name: f for f in bench.layers} for bench in benches])
    totals = side_by_side([{f.name: f for f in bench.totals} for bench in benches])
    rows: list[list[str]] = []
    sections = []
    for members in [*layers, *totals]:
        sections.append(len(rows))
        rows += _layer_rows(members)
    return Grid(
        header=["layer", "values", *COLUMNS * len(benches)],
        rows=rows,
        numeric=2,
        groups=[(bench.label, len(COLUMNS)) for bench in benches],
        sections=sections[1:],
    )


def bench_notes(benches: list[CheckpointBench], settings: Settings) -> list[str]:
    """What a reader must know about the table: origins, what is counted, how it was timed."""
    notes = []
    for bench in benches:
        updates = f", {bench.updates} updates" if bench.updates is not None else ""
        seconds = bench.training_seconds
        training = f", trained for {seconds:,.0f} s" if seconds is not None else ""
        notes.append(f"{bench.label}: {bench.path}{updates}{training}")
        whole = bench.totals[-1]
        best = whole.best_dense
        notes.append(
            f"  {whole.name}: {best} is the fastest dense variant, auto takes "
            f"{whole.rows[AUTO].us / whole.rows[best].us:.2f} of its time"
        )
        notes += [f"  {figures.name}, auto: {figures.why}" for figures in bench.layers]
        notes += [f"  {name}: left out, it {why}" for name, why in bench.left_out.items()]
    return [
        *notes,
        "all figures: per time step, of weights only; in parentheses, dense / this",
        "nonzero: what pruning leaves; other multiply-adds: what is computed, of one sequence",
        "stored, read: bytes of values and indices; read: in one step that runs alone",
        f"us: microseconds, batch {settings.batch}, {settings.threads} thread(s), "
        f"{settings.steps} steps in one call of a recurrent layer, one in that of a linear one",
        "totals: one step of every layer, whether or not a model runs all of them equally often",
    ]


def busy_warning(threads: int) -> str | None:
    """A line that says so if other processes are likely to disturb the timing."""
    load = load_average()
    if load is None or load <= threads:
        return None
    return f"the machine is busy (load average {load:.1f}, {threads} used): times are unreliable"


def bench_json(
    benches: list[CheckpointBench], settings: Settings, warning: str | None
) -> dict[str, Any]:
    """The same figures for machines, with where and how they were measured."""
    where = environment()
    where["machine"] |= {
        "threads": settings.threads,
        "instruction_set": (instruction_sets() or ["none"])[0],
    }
    return {
        **where,
        "warning": warning,
        "settings": asdict(settings),
        "checkpoints": [
            {
                "path": str(bench.path),
                "label": bench.label,
                "updates": bench.updates,
                "training_seconds": bench.training_seconds,
                "layers": [_json_figures(figures) for figures in bench.layers],
                "totals": [_json_figures(figures) for figures in bench.totals],
                "left_out": bench.left_out,
            }
            for bench in benches
        ],
    }


def _layer_rows(members: list[Figures | None]) -> list[list[str]]:
    """The rows of one layer; the first two say what it is."""
    present = [figures for figures in members if figures]
    kinds = dict.fromkeys(figures.kind for figures in present)
    titles = [present[0].name, " / ".join(kinds)]
    rows = []
    for variant in VARIANTS:
        if variant == "nonzero" or any(variant in figures.rows for figures in present):
            cells = [cell for figures in members for cell in _cells(figures, variant)]
            rows.append([titles.pop(0) if titles else "", variant, *cells])
    return rows


def _cells(figures: Figures | None, variant: str) -> list[str]:
    if figures is not None and variant == "nonzero":
        dense = figures.rows["dense"].cost.multiply_adds
        return ["", _with_ratio(count(figures.nonzeros), dense, figures.nonzeros), "", "", ""]
    if figures is None or variant not in figures.rows:
        return ["-"] * len(COLUMNS)
    row, dense = figures.rows[variant], figures.rows["dense"]
    cells = [row.runs_on]
    for text, over, own in (
        (count(row.cost.multiply_adds), dense.cost.multiply_adds, row.cost.multiply_adds),
        (size(row.cost.stored_bytes), dense.cost.stored_bytes, row.cost.stored_bytes),
        (size(row.cost.read_bytes), dense.cost.read_bytes, row.cost.read_bytes),
        (f"{row.us:.1f}", dense.us, row.us),
    ):
        cells.append(text if variant == "dense" else _with_ratio(text, over, own))
    return cells


def _with_ratio(text: str, dense: float, own: float) -> str:
    return f"{text} ({dense / own:.1f}x)" if own else text


def _json_figures(figures: Figures) -> dict[str, Any]:
    return {
        "name": figures.name,
        "kind": figures.kind,
        "nonzeros": figures.nonzeros,
        "rounds": figures.rounds,
        "auto": figures.why,
        "best_dense": figures.best_dense,
        "variants": {name: _json_row(row, figures) for name, row in figures.rows.items()},
    }


def _json_row(row: Row, figures: Figures) -> dict[str, Any]:
    """`speedup` is over dense fp32, `over_best` over the fastest dense variant."""
    found = {"runs_on": row.runs_on, **asdict(row.cost), "us": row.us}
    found["speedup"] = figures.rows["dense"].us / row.us
    found["over_best"] = figures.rows[figures.best_dense].us / row.us
    if row.error is not None:
        found |= {"us_20": row.us_20, "us_80": row.us_80, "error": row.error}
        found["matrices"] = list(row.matrices)
    return found
