"""PNG figures: kept weights per input and per unit, and where recurrent matrices keep theirs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fairseq_rnnprune.display.figure import (
    COLOURS,
    GATE_TITLES,
    LINES,
    finish,
    new_figure,
    plain,
    save,
    tidy,
)

from .survivors import Survivors

# Kept weights of some columns or units by checkpoint, and how many each could keep.
_Panel = dict[str, tuple[list[int], int]]
_BINS = 25


def plot_survivors(survivors: Sequence[Survivors], directory: Path) -> list[Path]:
    """Draws `inputs.png`, `units.png` and `masks.png`, as far as there is something to show."""
    inputs: dict[str, _Panel] = {}
    units: dict[str, _Panel] = {}
    for s in survivors:
        for i in s.inputs:
            title = f"{i.name.removesuffix('.weight')}\n{i.source}"
            inputs.setdefault(title, {})[s.label] = (i.kept, i.weights)
        for u in s.units:
            units.setdefault(u.layer, {})[s.label] = (u.kept, u.weights)
    paths = []
    if inputs:
        paths.append(_histograms(inputs, "input", "of a column", directory / "inputs.png"))
    if units:
        paths.append(_histograms(units, "unit", "of a unit's gates", directory / "units.png"))
        paths.append(_masks(survivors, directory / "masks.png"))
    return paths


def _histograms(panels: dict[str, _Panel], what: str, whose: str, path: Path) -> Path:
    """A panel per tensor or layer, a line per checkpoint: how many keep how many weights."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = new_figure(max(4.8, 3.4 * columns), 1.4 + 2.2 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    labels = list(dict.fromkeys(label for panel in panels.values() for label in panel))
    legend = {}
    for axis, (title, by_label) in zip(axes, panels.items(), strict=False):
        highest = max(100 * max(kept) / weights for kept, weights in by_label.values()) or 1.0
        for label, (kept, weights) in by_label.items():
            i = labels.index(label)
            shares = [100 * k / weights for k in kept]
            line = axis.hist(
                shares,
                bins=_BINS,
                range=(0, highest),
                histtype="step",
                color=COLOURS[i % 4],
                linestyle=LINES[i // 4 % 4],
            )[2][0]
            legend[plain(label)] = line
        axis.set_title(plain(title), fontsize=9)
        axis.set_xlim(0, highest)
        axis.set_xlabel(f"kept (%) {whose}", fontsize=8)
        axis.set_ylabel(f"{what}s", fontsize=8)
        tidy(axis, "both")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    finish(figure, f"Kept weights per {what}", legend)
    return save(figure, path)


def _masks(survivors: Sequence[Survivors], path: Path) -> Path:
    """A row per layer, a column per gate and checkpoint; white: nothing kept, black: the most.

    In an image, the rows are units, and the columns the units that they read.
    """
    layers = list(dict.fromkeys(u.layer for s in survivors for u in s.units))
    gates = [
        (s, gate)
        for s in survivors
        for gate in dict.fromkeys(gate for u in s.units for gate in u.images)
    ]
    figure = new_figure(max(4.8, 1.2 + 1.9 * len(gates)), 1.3 + 2.0 * len(layers))
    axes = figure.subplots(len(layers), len(gates), squeeze=False)
    for column, (s, gate) in enumerate(gates):
        of_layer = {u.layer: u for u in s.units}
        for row, layer in enumerate(layers):
            axis = axes[row][column]
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(plain(layer), fontsize=8)
            if row == 0:
                title = GATE_TITLES.get(gate, "state" if gate == "h" else f"gate {gate}")
                axis.set_title(f"{plain(s.label)}\n{title}", fontsize=8)
            image = of_layer[layer].images.get(gate) if layer in of_layer else None
            if image is None:
                axis.set_axis_off()
                continue
            axis.imshow(image.numpy(), cmap="Greys", vmin=0.0, vmax=_darkest(s), aspect="equal")
            axis.set_xlabel(f"density {of_layer[layer].diagonals[gate].density:.3f}", fontsize=7)
    finish(figure, "Kept recurrent weights: who reads whom", {})
    return save(figure, path)


def _darkest(survivors: Survivors) -> float:
    """The density that is drawn black, common to the images of a checkpoint."""
    return max(max(i.max().item() for u in survivors.units for i in u.images.values()), 1e-9)
