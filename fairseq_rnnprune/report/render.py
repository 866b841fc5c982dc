"""The figures of `rnnprune report` as a table, as notes under it, and as JSON."""

from __future__ import annotations

from typing import Any

from fairseq_rnnprune.checkpoint import is_exported
from fairseq_rnnprune.display.grid import Grid, count, percent, side_by_side, size

from .table import PACKED_DTYPE, CheckpointReport, Row


def report_grid(reports: list[CheckpointReport]) -> Grid:
    """One row per tensor, gate and total; one group of columns per checkpoint."""
    blocks = any(shape != (1, 1) for r in reports for shape in r.block_shapes.values())
    columns = ["sparsity", *(["blocks"] if blocks else []), "kept", "dense", "packed"]
    tensors = side_by_side([{(r.name, r.gate): r for r in report.tensors} for report in reports])
    totals = side_by_side([{(r.name, r.gate): r for r in report.totals} for report in reports])
    return Grid(
        header=["tensor", "type", "shape", *columns * len(reports)],
        rows=[_cells(rows, blocks) for rows in [*tensors, *totals]],
        numeric=3,
        groups=[(report.label, len(columns)) for report in reports],
        sections=[len(tensors)],
    )


def report_notes(reports: list[CheckpointReport]) -> list[str]:
    """What a reader must know about the table: origin of each checkpoint, assumptions."""
    notes = []
    for report in reports:
        shapes = ", ".join(f"{t} {r} x {c}" for t, (r, c) in report.block_shapes.items())
        training = f", {report.updates} updates" if report.updates is not None else ""
        notes.append(f"{report.label}: {report.path}{training}; blocks: {shapes}")
        if is_exported(report.path):
            size_on_disk = f"{report.path.stat().st_size:,} bytes"
            notes.append(
                f"{report.label}: a file of rnnprune export, {size_on_disk}; the table counts its "
                "values in float32, whatever they are"
            )
    dtype = str(PACKED_DTYPE).removeprefix("torch.")
    notes.append(f"packed: {dtype} values in those blocks; dense where that is smaller")
    for report in reports:
        is_own = (report.model_name or "rnnprune_").startswith("rnnprune_")
        run = "run" if is_own else "would run in a rnnprune_ model"
        notes.append(f"{report.label}: how its layers {run} on this machine (packed=auto):")
        notes += [f"  {layer}: {text}" for layer, text in report.inference.items()]
    return notes


def report_json(reports: list[CheckpointReport]) -> dict[str, Any]:
    """The same figures for machines; sparsities in [0, 1], sizes in bytes."""
    return {
        "packed_dtype": str(PACKED_DTYPE).removeprefix("torch."),
        "checkpoints": [
            {
                "path": str(report.path),
                "label": report.label,
                "updates": report.updates,
                "epochs": report.epochs,
                "block_shape": {t: list(s) for t, s in report.block_shapes.items()},
                "tensors": [_json_row(r) for r in report.tensors],
                "totals": [_json_row(r) for r in report.totals],
                "inference": report.inference,
            }
            for report in reports
        ],
    }


def _cells(rows: list[Row | None], blocks: bool) -> list[str]:
    """One line of the table: what all checkpoints share, then each one's figures."""
    first = next(r for r in rows if r is not None)
    shapes = dict.fromkeys("x".join(map(str, r.shape)) for r in rows if r and r.shape)
    name = f"  gate {first.gate}" if first.gate else first.name
    cells = [name, "" if first.gate else first.type or "", " / ".join(shapes)]
    for row in rows:
        if row is None:
            cells += ["-"] * (5 if blocks else 4)
            continue
        cells.append(percent(row.sparsity))
        if blocks:
            cells.append(percent(row.block_sparsity))
        cells += [count(row.kept), size(row.dense_bytes), size(row.stored_bytes)]
    return cells


def _json_row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "type": row.type,
        "gate": row.gate,
        "shape": list(row.shape) if row.shape else None,
        "elements": row.elements,
        "kept": row.kept,
        "sparsity": row.sparsity,
        "blocks": row.blocks,
        "kept_blocks": row.kept_blocks,
        "block_sparsity": row.block_sparsity,
        "dense_bytes": row.dense_bytes,
        "stored_bytes": row.stored_bytes,
        "packed": row.packed,
    }
