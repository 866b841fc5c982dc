"""Draws speed-ups over torch's fp32 GRU from the result files: by sparsity and by batch.

python benchmarks/plot.py
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402
from PIL import Image  # noqa: E402

FOLDER = Path(__file__).resolve().parent
# Candidate, label and style, in colours that colour-blind readers can tell apart (Okabe and Ito).
# Dense baselines are grey.
LINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("int8-16x4", "int8 16x4", {"color": "#CC79A7", "marker": "s"}),
    ("bf16-16x1", "bf16 16x1", {"color": "#E69F00", "marker": "^"}),
    ("fp32-16x1", "fp32 16x1", {"color": "#0072B2", "marker": "o"}),
    ("fp32-4x4", "fp32 4x4", {"color": "#56B4E9", "marker": "v"}),
    ("csr-int32", "CSR int32, unstructured", {"color": "#009E73", "marker": "x"}),
    ("dense-int8", "dense int8", {"color": "0.35", "linestyle": "--"}),
    ("dense-bf16", "dense bf16", {"color": "0.6", "linestyle": "-."}),
    ("dense", "dense fp32", {"color": "0.6", "linestyle": ":"}),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=FOLDER / "results")
    parser.add_argument("--out", type=Path, default=FOLDER / "plots", help="folder of the PNGs")
    arguments = parser.parse_args()
    results = [
        json.loads(path.read_text())
        for folder in ("gru", "gru_sparsity")
        for path in sorted((arguments.results / folder).glob("*-s*.json"))
    ]
    arguments.out.mkdir(parents=True, exist_ok=True)
    by_sparsity = [r for r in results if r["batch"] == 1]
    by_batch = [r for r in results if r["sparsity"] == 0.9]
    drawn = [
        # The density falls from left to right, each step as wide as its ratio.
        draw(
            by_sparsity,
            lambda r: 1 - r["sparsity"],
            "sparsity (batch 1)",
            lambda density: f"{100 * (1 - density):g} %",
            arguments.out / "speedup_by_sparsity.png",
            invert=True,
        ),
        draw(
            by_batch,
            lambda r: r["batch"],
            "batch (90 % of the weights pruned)",
            lambda batch: f"{batch:g}",
            arguments.out / "speedup_by_batch.png",
        ),
    ]
    if not any(drawn):
        raise SystemExit(f"plot: expected results in {arguments.results}, got too few to draw")


def draw(
    results: Sequence[dict[str, Any]],
    position: Callable[[dict[str, Any]], float],
    title: str,
    label: Callable[[float], str],
    path: Path,
    invert: bool = False,
) -> bool:
    """A panel for each size with two points or more; False, and no file, if there is none."""
    sizes: dict[int, list[dict[str, Any]]] = {}
    for result in sorted(results, key=position):
        sizes.setdefault(result["hidden"], []).append(result)
    sizes = {hidden: runs for hidden, runs in sorted(sizes.items()) if len(runs) > 1}
    if not sizes:
        return False
    # At most four panels side by side.
    columns = min(4, len(sizes))
    rows = -(-len(sizes) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(1 + 3.4 * columns, 0.8 + 3 * rows), sharey=True, squeeze=False
    )
    panels = list(grid.flat)
    for panel in panels[len(sizes) :]:
        panel.set_visible(False)
    for panel, (hidden, runs) in zip(panels, sizes.items(), strict=False):
        positions = [position(run) for run in runs]
        for name, text, style in LINES:
            values = [run["figures"][name]["speedup"] for run in runs]
            panel.plot(positions, values, label=text, markersize=4, linewidth=1.4, **style)
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.set_xticks(positions, [label(p) for p in positions])
        panel.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
        panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
        panel.yaxis.set_tick_params(labelleft=True)
        panel.grid(True, which="major", color="0.9")
        panel.set_title(f"H = {hidden}", fontsize=10)
        panel.set_xlabel(title)
        if invert:
            panel.invert_xaxis()
    for row in grid:
        row[0].set_ylabel("speed-up over nn.GRU fp32")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.1 / rows, 1, 1))
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=8, frameon=False)
    # 256 colours are plenty, and a third of the bytes.
    figure.savefig(path, dpi=100)
    with Image.open(path) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)
    plt.close(figure)
    print(f"written to {path}")
    return True


if __name__ == "__main__":
    main()
