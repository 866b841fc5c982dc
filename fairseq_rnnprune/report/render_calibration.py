"""The figures of `rnnprune calibrate` as a table, as notes under it, and as JSON."""

from __future__ import annotations

from typing import Any

from fairseq_rnnprune.display.grid import Grid, count, percent
from fairseq_rnnprune.pruning.calibrate import sparsity_below

from .calibration import Calibration, options


def calibration_grid(c: Calibration) -> Grid:
    """One row per type, with its tensors under it."""
    rows = []
    for type, weights in c.weights.items():
        schedule, threshold = c.schedules[type], c.last_threshold(type)
        figures = [c.q[type], schedule.start_slope, schedule.ramp_slope, threshold]
        elements = sum(w.elements for w in weights)
        rows.append(
            [type, count(elements), *(f"{f:.4g}" for f in figures), percent(c.sparsity(type))]
        )
        for w in weights:
            sparsity = percent(sparsity_below([w], threshold))
            rows.append([f"  {w.prunable.name}", count(w.elements), *[""] * 4, sparsity])
    header = ["weights", "parameters", "q", "theta", "phi", "last threshold", "sparsity"]
    return Grid(header, rows, numeric=1)


def calibration_notes(c: Calibration) -> list[str]:
    """What a reader must know about the table: the run that is meant, what the figures are."""
    s = c.schedule
    return [
        f"for a run of {c.updates} updates in {c.epochs:.4g} epochs: pruning starts at update "
        f"{s.start}, is faster from {s.ramp} on and over at {s.end}, every {s.freq} updates",
        "q: prunes this model to the sparsity asked for; theta, phi: what the threshold rises by "
        "at each change of masks",
        "sparsity: of this model under the last threshold; training moves weights, and the bounds "
        "in the options make the pruned run end at the one asked for all the same",
    ]


def calibration_json(c: Calibration) -> dict[str, Any]:
    """The same figures for machines; slopes per mask update, sparsities in [0, 1]."""
    s = c.schedule
    return {
        "path": str(c.checkpoint.path),
        "updates": c.updates,
        "epochs": c.epochs,
        "target_sparsity": c.target,
        "score": c.score,
        "schedule": {"start": s.start, "ramp": s.ramp, "end": s.end, "freq": s.freq},
        "ramp_factor": c.ramp_factor,
        "types": {
            type: {
                "block_shape": list(c.block_shapes[type]),
                "q": c.q[type],
                "start_slope": c.schedules[type].start_slope,
                "ramp_slope": c.schedules[type].ramp_slope,
                "last_threshold": c.last_threshold(type),
                "sparsity": c.sparsity(type),
                "tensors": {
                    w.prunable.name: sparsity_below([w], c.last_threshold(type)) for w in weights
                },
            }
            for type, weights in c.weights.items()
        },
        "options": options(c),
    }
