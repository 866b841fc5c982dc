"""Draws the character error rate over the parameters that are kept, from the result files.

python examples/speech/plot.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402

FOLDER = Path(__file__).resolve().parent
# The start of a run's name, its label and colour (Okabe and Ito); the first that fits counts.
KINDS = (
    ("relu-blocks", "clipped-ReLU RNN in blocks of 4 x 4", "#E69F00"),
    ("relu", "clipped-ReLU RNN", "#D55E00"),
    ("streaming", "streaming GRU", "#009E73"),
    ("blocks", "GRU in blocks of 4 x 4", "#CC79A7"),
    ("", "GRU", "#0072B2"),
)
# In points: of labels one above the other, how near points are whose names might touch, and how
# near those are whose names stand in one column, lest a name covers a point.
LINE, NEAR, COLUMN = 9, 125, 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=FOLDER / "results")
    parser.add_argument("--out", type=Path, default=FOLDER / "cer.png")
    args = parser.parse_args()
    results = [json.loads(path.read_text()) for path in sorted(args.results.glob("*-s*.json"))]
    if not results:
        raise SystemExit(f"plot: expected results in {args.results}, got none")
    figure, axes = plt.subplots(figsize=(14, 8))
    drawn = set()
    for result in results:
        figures = result["figures"]
        kind = next(kind for kind in KINDS if result["name"].startswith(kind[0]))
        is_dense = figures["kept_parameters"] == figures["parameters"]
        axes.plot(
            figures["kept_parameters"],
            figures["test_cer"],
            marker="o" if is_dense else "^",
            color=kind[2],
            linestyle="none",
            label=None if kind in drawn else kind[1],
        )
        drawn.add(kind)
    axes.set_xscale("log")
    axes.margins(x=0.12, y=0.1)
    # Labels of every power and half power would lie on one another.
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M")
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_xlabel("parameters kept (circle: dense, triangle: pruned)")
    axes.set_ylabel("test CER, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    label(axes, results)
    figure.savefig(args.out, dpi=110, bbox_inches="tight", metadata={"Software": None})
    print(args.out)


def label(axes, results: list[dict]) -> None:
    """Names each run right of its first point, or higher where a lower one has its name there.

    Left of it where the name would cover another's point.
    """
    pixels_per_point = axes.figure.dpi / 72
    first: dict[str, tuple[float, float]] = {}
    for result in sorted(results, key=lambda result: result["figures"]["test_cer"]):
        figures = result["figures"]
        first.setdefault(result["name"], (figures["kept_parameters"], figures["test_cer"]))
    points = {name: axes.transData.transform(at) / pixels_per_point for name, at in first.items()}
    placed: dict[str, list[tuple[float, float]]] = {"left": [], "right": []}
    for name, (x, y) in points.items():
        column = max(other for other, _ in points.values() if other - x < COLUMN)
        covered = any(0 < a - column < NEAR and abs(b - y) < LINE for a, b in points.values())
        side, start = ("right", x - 8) if covered else ("left", column + 8)
        below = [height for other, height in placed[side] if abs(column - other) < NEAR]
        height = max([y - 3, *(other + LINE for other in below)])
        placed[side].append((column, height))
        axes.annotate(
            *(name, first[name], (start - x, height - y)),
            textcoords="offset points",
            horizontalalignment=side,
            fontsize=7,
            arrowprops={"arrowstyle": "-", "lw": 0.4, "color": "grey", "shrinkA": 0},
        )


if __name__ == "__main__":
    main()
