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
    ("relu", "clipped-ReLU RNN", "#D55E00"),
    ("streaming", "streaming GRU", "#009E73"),
    ("blocks", "GRU in blocks of 4 x 4", "#CC79A7"),
    ("", "GRU", "#0072B2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=FOLDER / "results")
    parser.add_argument("--out", type=Path, default=FOLDER / "cer.png")
    args = parser.parse_args()
    results = [json.loads(path.read_text()) for path in sorted(args.results.glob("*-s*.json"))]
    if not results:
        raise SystemExit(f"plot: expected results in {args.results}, got none")
    figure, axes = plt.subplots(figsize=(7, 4.5))
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
        at = (figures["kept_parameters"], figures["test_cer"])
        axes.annotate(result["name"], at, (6, 4), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.margins(x=0.2, y=0.1)
    # Labels of every power and half power would lie on one another.
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e6:g} M")
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.set_xlabel("parameters kept (circle: dense, triangle: pruned)")
    axes.set_ylabel("test CER, %")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(args.out, dpi=110, bbox_inches="tight", metadata={"Software": None})
    print(args.out)


if __name__ == "__main__":
    main()
