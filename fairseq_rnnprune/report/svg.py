"""Parts of `rnnprune report --html`: safe texts, and images of masks and curves as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping
from html import escape

from torch import Tensor

from fairseq_rnnprune.display.figure import BLACK, COLOURS
from fairseq_rnnprune.display.grid import printable

_COLOURS = (*COLOURS, BLACK)
_LEVELS = 16


def safe(text: str) -> str:
    """A text from anywhere, for an element or a quoted attribute."""
    return escape(printable(text), quote=True)


def mask_svg(image: Tensor, title: str, side: int = 160) -> str:
    """Densities [n, m] as squares; the darker, the more is kept; white is 0."""
    rows, columns = image.shape
    darkest = max(image.max().item(), 1e-9)
    squares: dict[int, list[str]] = {}
    for r, line in enumerate(image.tolist()):
        for c, density in enumerate(line):
            if density > 0:
                level = math.ceil(_LEVELS * density / darkest)
                squares.setdefault(level, []).append(f"M{c} {r}h1v1h-1z")
    # One path per shade: an element per square would make the page ten times as large.
    paths = (
        f'<path fill-opacity="{level / _LEVELS:.3f}" d="' + "".join(d) + '"/>'
        for level, d in sorted(squares.items())
    )
    return (
        f'<figure><svg width="{side}" height="{side}" viewBox="0 0 {columns} {rows}" '
        f'class="mask" shape-rendering="crispEdges" preserveAspectRatio="none">'
        f"{''.join(paths)}</svg><figcaption>{safe(title)}</figcaption></figure>"
    )


def curves_svg(curves: Mapping[str, Mapping[int, float]], title: str) -> str:
    """Values over updates, both axes from 0; the highest of each is written beside it."""
    last = max((x for curve in curves.values() for x in curve), default=0) or 1
    highest = max((y for curve in curves.values() for y in curve.values()), default=0.0) or 1.0
    lines, legend = [], []
    for i, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        places = ((300 * x / last, 150 - 140 * y / highest) for x, y in curve.items())
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        legend.append(f'<span style="color:{colour}">{safe(name)}</span>')
    return (
        '<figure><svg width="480" height="240" viewBox="0 0 300 150" class="curves">'
        f"{''.join(lines)}</svg><figcaption>{safe(title)}: {', '.join(legend)}; "
        f"to update {last}, highest value {highest:.4g}</figcaption></figure>"
    )
