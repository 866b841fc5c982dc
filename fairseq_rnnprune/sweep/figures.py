"""The figures of a finished run: counted, from the training's log, and from the evaluations."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fairseq_rnnprune import experiment

from .grid import name_of
from .rows import number

Figures = dict[str, Any]


def run_figures(checkpoint: Path, log: Path) -> Figures:
    """Parameters and those kept, the training's seconds, and the final sparsity by type.

    Of a training that leaves no checkpoint or no JSON log, those that there are.
    """
    figures: Figures = experiment.count_parameters(checkpoint) if checkpoint.exists() else {}
    try:
        rows = experiment.training_rows(log)
    except ValueError:
        return figures
    if all("train_wall" in row for row in rows):
        figures["training_seconds"] = experiment.training_seconds(log)
    for name, value in rows[-1].items():
        if name == "sparsity" or name.startswith("sparsity_"):
            figures[f"final_{name}"] = float(value)
    return figures


def found_figures(
    patterns: Mapping[str, re.Pattern[str]], outputs: Sequence[tuple[str, str]]
) -> Figures:
    """Figures found in the outputs of the evaluations: of each its last match.

    `outputs` are (name, text). Those without a name count as one text; a figure in the output
    of an evaluation with a name is called NAME_FIGURE. ValueError for one that is in none.
    """
    texts: dict[str, str] = {}
    for name, text in outputs:
        texts[name] = texts.get(name, "") + text
    figures: Figures = {}
    for figure, pattern in patterns.items():
        matches = {name: pattern.findall(text) for name, text in texts.items()}
        found = {name: values[-1] for name, values in matches.items() if values}
        if not found:
            raise ValueError(
                f"figures: {figure}: expected {pattern.pattern!r} in the output of the "
                "evaluations, got none"
            )
        for name, value in found.items():
            as_number = number(value)
            figures[name_of(figure, name)] = value if as_number is None else as_number
    return figures


def lacks(figures: Figures, name: str, evaluations: Sequence[str]) -> bool:
    """Whether a row has none of the figures that a pattern gives of evaluations of these names."""
    return figures.keys().isdisjoint(name_of(name, e) for e in evaluations)


def silent_evaluations(
    patterns: Mapping[str, re.Pattern[str]], outputs: Sequence[tuple[str, str]]
) -> list[str]:
    """Names of the evaluations that gave no figure, as one that prepares others need not."""
    silent = (not any(p.search(text) for p in patterns.values()) for _, text in outputs)
    return [
        name for (name, _), is_silent in zip(outputs, silent, strict=True) if name and is_silent
    ]
