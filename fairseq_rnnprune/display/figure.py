"""What PNG figures share: colours, labels, layout, saving."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from .grid import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which does not rely on telling red from green.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
BLACK, GREY = "#000000", "#8C8C8C"
LINES = ("-", "--", "-.", ":")

GATE_TITLES = {
    "r": "reset gate r",
    "z": "update gate z",
    "n": "new state n",
    "i": "input gate i",
    "f": "forget gate f",
    "g": "cell g",
    "o": "output gate o",
}


def plain(text: str) -> str:
    """A text from anywhere, in which matplotlib would take what is between two $ for a formula."""
    return printable(text).replace("$", r"\$")


def without_common_start(names: list[str]) -> list[str]:
    """Drops the modules that all names begin with, and the end that says nothing."""
    parts = [name.removesuffix(".weight").split(".") for name in names]
    common = len(os.path.commonprefix([p[:-1] for p in parts]))
    return [plain(".".join(p[common:])) for p in parts]


def short(number: float) -> str:
    """A number in the unit that suits it."""
    for unit, scale in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(number) >= scale:
            return f"{number / scale:.4g} {unit}"
    return f"{number:.4g}"


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches; ValueError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ValueError(
            "plot: expected matplotlib, got none installed; pip install matplotlib"
        ) from None
    # A figure made without pyplot draws with Agg: no display, no global state.
    return Figure(figsize=(width, height), layout="constrained", dpi=150)


def tidy(panel: Axes, grid: Literal["x", "both"]) -> None:
    """Draws grid lines behind the data and leaves the frame out."""
    panel.set_axisbelow(True)
    panel.grid(axis=grid, color="0.9")
    panel.spines[["top", "right"]].set_visible(False)


def finish(figure: Figure, title: str, legend: dict[str, Any]) -> None:
    """Adds a title and a legend under the panels, in as many columns as the width allows."""
    figure.suptitle(title, x=0.01, ha="left", fontweight="bold")
    if not legend:
        return
    columns = max(1, int(figure.get_figwidth() / 1.5))
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=columns, frameon=False)


def save(figure: Figure, path: Path) -> Path:
    """Writes the figure to a path, by default of a .png; makes its folder; returns the path."""
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
