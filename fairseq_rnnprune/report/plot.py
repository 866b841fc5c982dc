"""PNG figures: sparsity by layer and gate, threshold and sparsity over the updates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_rnnprune.display.figure import (
    BLACK,
    COLOURS,
    GATE_TITLES,
    GREY,
    LINES,
    finish,
    new_figure,
    plain,
    save,
    short,
    tidy,
    without_common_start,
)
from fairseq_rnnprune.pruning import TYPES

from .table import CheckpointReport, Row
from .trainlog import TrainLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_sparsity(reports: list[CheckpointReport], directory: Path) -> Path:
    """Draws `sparsity.png`: a panel per checkpoint, in it a bar per gate of every tensor."""
    places, tensors = _places(reports)
    gates = list(dict.fromkeys(gate for _, gate in places if gate))
    colours = {gate: COLOURS[i % 4] for i, gate in enumerate(gates)}
    figure = new_figure(2.9 + 3.8 * len(reports), 1.9 + 0.24 * max(places.values()))
    panels = figure.subplots(1, len(reports), sharex=True, sharey=True, squeeze=False)[0]
    for panel, report in zip(panels, reports, strict=True):
        for row in _bars(report):
            y, sparsity = places[row.name, row.gate], 100 * row.sparsity
            panel.barh(y, sparsity, height=0.9, color=colours.get(row.gate, GREY))
            panel.text(sparsity + 1, y, f"{sparsity:.1f}", va="center", fontsize=8)
        model = report.totals[-1]
        panel.set_title(
            f"{plain(report.label)}: {short(model.kept)} of {short(model.elements)} kept"
        )
        panel.set_xlabel("zeros (% of elements)")
        panel.set_xlim(0, 112)
        panel.set_xticks(range(0, 101, 20))
        tidy(panel, "x")
        panel.tick_params(axis="y", length=0)
    panels[0].set_yticks(list(tensors.values()), without_common_start(list(tensors)))
    panels[0].invert_yaxis()
    legend = {GATE_TITLES.get(g, f"gate {g}"): colour for g, colour in colours.items()}
    if any(gate is None for _, gate in places):
        legend["no gates"] = GREY
    handles = [panels[0].barh(0, 0, color=colour) for colour in legend.values()]
    finish(figure, "Sparsity by layer and gate", dict(zip(legend, handles, strict=True)))
    return save(figure, directory / "sparsity.png")


def plot_training(logs: list[TrainLog], labels: list[str], directory: Path) -> Path:
    """Draws `training.png`: sparsity and threshold over the updates, a column per log."""
    figure = new_figure(1.6 + 4.4 * len(logs), 6.2)
    panels = figure.subplots(2, len(logs), sharex="col", sharey="row", squeeze=False)
    for above, below, log, label in zip(*panels, logs, labels, strict=True):
        above.set_title(plain(label))
        _draw(above, log.by_type("sparsity"), 100)
        total = log.curves.get("sparsity", {})
        above.plot(list(total), [100 * v for v in total.values()], color=BLACK, label="all types")
        _draw(below, log.by_type("threshold"), 1)
        below.set_xlabel("update")
        below.set_xlim(left=0)
        tidy(above, "both")
        tidy(below, "both")
    panels[0][0].set_ylabel("sparsity (% of prunable weights)")
    panels[0][0].set_ylim(0, 102)
    panels[1][0].set_ylabel("threshold (score of a block)")
    panels[1][0].set_ylim(bottom=0)
    legend = {line.get_label(): line for panel in panels[0] for line in panel.lines}
    finish(figure, "Pruning over the updates of the training", legend)
    return save(figure, directory / "training.png")


def _bars(report: CheckpointReport) -> list[Row]:
    """Rows that get a bar: every gate, and the tensors that have none."""
    split = {r.name for r in report.tensors if r.gate}
    return [r for r in report.tensors if r.gate or r.name not in split]


def _places(
    reports: list[CheckpointReport],
) -> tuple[dict[tuple[str, str | None], float], dict[str, float]]:
    """Where bars stand on the vertical axis, by (tensor, gate), and the middle of each tensor."""
    gates: dict[str, dict[str | None, None]] = {}
    for row in (row for report in reports for row in _bars(report)):
        gates.setdefault(row.name, {})[row.gate] = None
    places, tensors, y = {}, {}, 0.0
    for name, of_tensor in gates.items():
        tensors[name] = y + (len(of_tensor) - 1) / 2
        for gate in of_tensor:
            places[name, gate] = y
            y += 1
        y += 0.6
    return places, tensors


def _draw(panel: Axes, curves: dict[str, dict[int, float]], scale: float) -> None:
    for i, type in enumerate(TYPES):
        if type in curves:
            values = [scale * v for v in curves[type].values()]
            panel.plot(list(curves[type]), values, LINES[i], color=COLOURS[i], label=type)
