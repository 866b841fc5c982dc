"""What `rnnprune report` reads, and the files that it writes."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from fairseq_rnnprune.checkpoint import read_checkpoint
from fairseq_rnnprune.display.labels import short_labels
from fairseq_rnnprune.pruning import TYPES, find_prunable

from .dictionary import find_dictionaries, read_dictionary
from .overlap import compare_masks, keep_masks, not_comparable
from .survivors import Pair, Survivors, find_survivors
from .table import BlockShape, CheckpointReport, report_checkpoint
from .trainlog import TrainLog, find_train_log, read_train_log

__all__ = ["TYPES", "Findings", "gather", "write_files"]


@dataclass(frozen=True)
class Findings:
    """All that is known of some checkpoints; `logs` are the paths found for them, by label."""

    reports: list[CheckpointReport]
    survivors: list[Survivors]
    pairs: list[Pair]
    logs: dict[str, Path]


def gather(
    paths: Sequence[Path],
    types: Sequence[str],
    block_shapes: Mapping[str, BlockShape],
    dictionaries: Sequence[Path] = (),
) -> Findings:
    """Reads checkpoints one after the other; of the first, its masks are kept for the overlaps.

    ValueError if one cannot be read or has diverged, or a dictionary fits none of their matrices.
    """
    given = [read_dictionary(path) for path in dictionaries]
    found = Findings([], [], [], {})
    first = None
    for path, label in zip(paths, short_labels(paths), strict=True):
        checkpoint = read_checkpoint(path)
        checkpoint.check_finite()
        found.reports.append(report_checkpoint(checkpoint, types, block_shapes, label))
        symbols = given or find_dictionaries(checkpoint)
        found.survivors.append(find_survivors(checkpoint, types, label, symbols))
        log = find_train_log(checkpoint)
        if log is not None:
            found.logs[label] = log
        prunables = [p for p in find_prunable(checkpoint.model) if p.type in types]
        masks = keep_masks(checkpoint.model, prunables) if len(paths) > 1 else {}
        if first is None:
            first = (label, masks)
        else:
            both = first[1], masks
            found.pairs.append(Pair(first[0], label, compare_masks(*both), not_comparable(*both)))
    _check_fit(dictionaries, given, found.reports)
    return found


def write_files(
    findings: Findings, plot: Path | None, page: Path | None, logs: Sequence[Path] = ()
) -> list[Path]:
    """Writes PNG files into the directory `plot` and one HTML file `page`, where they are given.

    `logs` are drawn instead of those found. Without matplotlib, plots are a ValueError and a page
    is drawn in SVG.
    """
    if plot is None and page is None:
        return []
    drawn = _read_logs(findings, logs)
    written: list[Path] = []
    with tempfile.TemporaryDirectory() as unnamed:
        plots = None
        if plot is not None or _has_matplotlib():
            plots = _plot(findings, drawn, plot or Path(unnamed))
            written += plots if plot is not None else []
        if page is not None:
            from .page import render_page, write_page

            parts = (findings.reports, findings.survivors, findings.pairs, drawn, plots)
            written.append(write_page(render_page(*parts), page))
    return written


def _check_fit(
    paths: Sequence[Path], given: Sequence[Sequence[str]], reports: list[CheckpointReport]
) -> None:
    sizes = {r.shape[0] for report in reports for r in report.tensors if r.shape and not r.gate}
    for path, symbols in zip(paths, given, strict=True):
        if len(symbols) not in sizes:
            raise ValueError(
                f"--dict: expected as many symbols as an embedding or output layer has rows, got "
                f"{len(symbols)} in {path}, four special ones included; name the dict.txt of the "
                "training's data"
            )


def _read_logs(findings: Findings, logs: Sequence[Path]) -> dict[str, TrainLog]:
    if logs:
        return dict(zip(short_labels(logs), map(read_train_log, logs), strict=True))
    read = {}
    for label, path in findings.logs.items():
        # A log that nobody asked for may well be that of a dense training.
        with contextlib.suppress(ValueError):
            read[label] = read_train_log(path)
    return read


def _has_matplotlib() -> bool:
    return find_spec("matplotlib") is not None


def _plot(findings: Findings, logs: dict[str, TrainLog], directory: Path) -> list[Path]:
    from .plot import plot_sparsity, plot_training
    from .plot_survivors import plot_survivors

    plots = [plot_sparsity(findings.reports, directory)]
    if logs:
        plots.append(plot_training(list(logs.values()), list(logs), directory))
    return plots + plot_survivors(findings.survivors, directory)
