"""The PNG figure of `rnnprune plot`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fairseq_rnnprune.display.figure import (
    BLACK,
    COLOURS,
    GREY,
    LINES,
    new_figure,
    plain,
    save,
    short,
    tidy,
)

from .series import Picture, Point

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# The rest of Okabe and Ito's palette that shows on white.
PALETTE = (*COLOURS, "#D55E00", "#56B4E9", GREY, BLACK)
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
# Multiples of powers of ten that get a tick, by how far apart the ends of the axis are.
TICKS = (
    (4, (1, 2, 3, 4, 5, 6, 7, 8, 9)),
    (10, (1, 2, 3, 5, 7)),
    (100, (1, 2, 5)),
    (float("inf"), (1,)),
)
REFERENCES = ((0, (6, 3)), (0, (2, 2)), (0, (8, 2, 2, 2)))


def draw(
    picture: Picture, labels: tuple[str, str], title: str | None, log_x: bool, path: Path
) -> Path:
    """Draws series and references; `labels` are those of x and y. Returns the path.

    ValueError if there are more values than can be told apart, or without matplotlib.
    """
    figure = new_figure(7.0, 4.8)
    panel = figure.subplots()
    colours = _assign("--by", PALETTE, [by for by, _ in picture.series])
    looks = _assign("--style", tuple(range(len(MARKERS))), [s for _, s in picture.series])
    has_styles = len(looks) > 1
    legend = {}
    for (by, style), points in picture.series.items():
        # Without a second quantity, the markers tell apart what the colours do.
        marker = MARKERS[looks[style] if has_styles else list(colours).index(by)]
        line = _draw_series(panel, points, colours[by], marker, LINES[looks[style] % len(LINES)])
        name = ", ".join(str(value) for value in (by, style) if value is not None)
        if name:
            legend[plain(name)] = line
    for i, (name, y) in enumerate(picture.references.items()):
        dashes = REFERENCES[i % len(REFERENCES)]
        legend[plain(name)] = panel.axhline(y, color=BLACK, linestyle=dashes, linewidth=1)
    panel.set_xlabel(plain(labels[0]))
    panel.set_ylabel(plain(labels[1]))
    _scale_x(panel, log_x)
    tidy(panel, "both")
    panel.margins(x=0.05, y=0.1)
    if title:
        figure.suptitle(plain(title), x=0.01, ha="left", fontweight="bold")
    if legend:
        _draw_legend(figure, legend)
    return save(figure, path)


def _assign(option: str, looks: tuple[Any, ...], values: list[Any]) -> dict[Any, Any]:
    different = list(dict.fromkeys(values))
    if len(different) > len(looks):
        raise ValueError(
            f"{option}: expected at most {len(looks)} values, which can be told apart, got "
            f"{len(different)}; choose some with --where"
        )
    return dict(zip(different, looks, strict=False))


def _draw_series(panel: Axes, points: list[Point], colour: str, marker: str, dashes: str) -> Any:
    """Means joined by a line, and the single seeds where there are several; returns the line."""
    seeds = [seed for point in points if len(point.seeds) > 1 for seed in point.seeds]
    if seeds:
        panel.plot(*zip(*seeds, strict=True), ".", color=colour, markersize=4, alpha=0.6)
    (line,) = panel.plot(
        *zip(*(point.mean for point in points), strict=True),
        color=colour,
        marker=marker,
        linestyle=dashes,
        markersize=7,
    )
    return line


def _draw_legend(figure: Figure, legend: dict[str, Any]) -> None:
    """Below the axes, in as many columns as the longest label allows."""
    # Inches: the line before a label, then about 0.078 for a letter.
    column = 0.75 + 0.078 * max(map(len, legend))
    columns = max(1, min(len(legend), int(figure.get_figwidth() / column)))
    figure.legend(legend.values(), legend, loc="outside lower center", ncols=columns, frameon=False)


def _scale_x(panel: Axes, log_x: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    if log_x:
        low, high = panel.dataLim.intervalx
        if low <= 0:
            raise ValueError(
                f"--log-x: expected x > 0, got {low:g}; choose rows with --where, or leave it out"
            )
        panel.set_xscale("log")
        subs = next(subs for ratio, subs in TICKS if high <= ratio * low)
        panel.xaxis.set_major_locator(LogLocator(subs=subs))
        panel.xaxis.set_minor_locator(NullLocator())
    else:
        panel.xaxis.set_major_locator(MaxNLocator(7))
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
