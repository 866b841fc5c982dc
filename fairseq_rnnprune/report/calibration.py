"""`rnnprune calibrate`: a ramp for the next run, from a dense checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fairseq_rnnprune.checkpoint import Checkpoint
from fairseq_rnnprune.pruning import QuantileRamp, RampSchedule, find_prunable
from fairseq_rnnprune.pruning.calibrate import (
    ScoredWeight,
    default_freq,
    default_window,
    quantile_of,
    score_weights,
    sparsity_below,
)


@dataclass(frozen=True)
class Calibration:
    """Schedules by type, and the weights of the dense model that they were chosen for."""

    checkpoint: Checkpoint
    updates: int
    epochs: float
    target: float
    score: str
    ramp_factor: float
    block_shapes: dict[str, tuple[int, int]]
    weights: dict[str, list[ScoredWeight]]
    q: dict[str, float]
    schedules: dict[str, RampSchedule]

    @property
    def schedule(self) -> RampSchedule:
        """Any of the schedules: start, ramp, end and freq are common to all."""
        return next(iter(self.schedules.values()))

    def last_threshold(self, type: str) -> float:
        """The threshold in force when masks are final."""
        return self.schedules[type].threshold(self.schedule.end)

    def sparsity(self, type: str) -> float:
        """Fraction of the dense weights below the last threshold: what the ramp aims at."""
        return sparsity_below(self.weights[type], self.last_threshold(type))


def calibrate(
    checkpoint: Checkpoint,
    block_shapes: Mapping[str, tuple[int, int]],
    sparsity: float = 0.9,
    score: str = "max",
    updates: int | None = None,
    epochs: float | None = None,
    freq: int | None = None,
    ramp_factor: float = 1.5,
) -> Calibration:
    """Chooses q, theta and phi by eq. 1 and the window by Table 1 of arXiv 1704.05119.

    `block_shapes` has an entry for each type to prune. `updates` and `epochs` describe the run to
    come and default to those of the checkpoint; `freq` defaults to 100, less where the window is
    short. ValueError if neither tells the run's length.
    """
    updates, epochs = _run_length(checkpoint, updates, epochs)
    start, ramp, end = default_window(updates, epochs)
    if freq is None:
        freq = default_freq(start, end)
    weights = score_weights(checkpoint.model, block_shapes, score)
    q = {type: quantile_of(scored, sparsity) for type, scored in weights.items()}
    schedules = {
        type: RampSchedule.from_quantile(value, start, ramp, end, freq, ramp_factor)
        for type, value in q.items()
    }
    return Calibration(
        checkpoint,
        updates,
        epochs,
        sparsity,
        score,
        ramp_factor,
        dict(block_shapes),
        weights,
        q,
        schedules,
    )


def present_types(checkpoint: Checkpoint, types: list[str]) -> list[str]:
    """Those of `types` that the model has; ValueError if there are none."""
    present = {p.type for p in find_prunable(checkpoint.model)}
    chosen = [t for t in types if t in present]
    if not chosen:
        raise ValueError(
            f"present_types: expected weights of type {', '.join(types)}, got {checkpoint.path} "
            f"with {', '.join(sorted(present)) or 'none that are prunable'}"
        )
    return chosen


def options(c: Calibration) -> str:
    """The options of fairseq-train that prune the next run so.

    Its weights will not be those of the dense model: the bounds make it end at the target.
    """
    s = c.schedule
    q = ",".join(f"{t}={q:.6g}" for t, q in c.q.items())
    window = f"--prune-start {s.start} --prune-ramp {s.ramp} --prune-end {s.end}"
    bounds = f"--prune-min-sparsity {c.target!r} --prune-max-sparsity {c.target!r}"
    return _options(q, window, s.freq, c.ramp_factor, c.block_shapes, c.score, bounds)


def options_without_model(
    block_shapes: Mapping[str, tuple[int, int]],
    sparsity: float,
    score: str,
    updates: int,
    epochs: float | None,
    freq: int | None,
    ramp_factor: float,
) -> str:
    """The options of a ramp that reads q from the weights of its own run.

    `block_shapes` has an entry for each type to prune. Without `epochs`, the optimizer finds the
    end of the first epoch itself.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"calibrate: expected a sparsity in (0, 1), got {sparsity}")
    start, ramp, end = default_window(updates, epochs or 1)
    if freq is None:
        freq = default_freq(start, end)
    # Refuses what fairseq-train would refuse.
    QuantileRamp(start, ramp, end, freq, sparsity, ramp_factor)
    window = f"--prune-ramp {ramp} --prune-end {end}"
    if epochs:
        window = f"--prune-start {start} {window}"
    goal = f"--prune-sparsity {sparsity!r}"
    return _options("auto", window, freq, ramp_factor, block_shapes, score, goal)


def _options(
    q: str,
    window: str,
    freq: int,
    ramp_factor: float,
    block_shapes: Mapping[str, tuple[int, int]],
    score: str,
    goal: str,
) -> str:
    shapes = {t: f"{r},{k}" for t, (r, k) in block_shapes.items()}
    same = len(set(shapes.values())) == 1
    by_type = ",".join(f"{t}={shape}" for t, shape in shapes.items())
    parts = [
        "--optimizer pruned --prune-inner adam --prune-schedule ramp",
        f"--prune-types {','.join(shapes)} --prune-q {q} {goal} {window}",
        f"--prune-freq {freq} --prune-ramp-factor {ramp_factor:g}",
        f"--prune-block-shape {next(iter(shapes.values())) if same else by_type}",
    ]
    if score != "max":
        parts.append(f"--prune-score {score}")
    return " ".join(parts)


def _run_length(
    checkpoint: Checkpoint, updates: int | None, epochs: float | None
) -> tuple[int, float]:
    """Updates and epochs of the run to come; an epoch is as long as the checkpoint's were."""
    if updates is not None and epochs is not None:
        return updates, epochs
    known, known_epochs = checkpoint.updates, checkpoint.epochs
    if not known or not known_epochs:
        raise ValueError(
            "calibrate: expected a checkpoint that tells its updates and whole epochs, got "
            f"{known if known is not None else 'unknown'} updates and "
            f"{known_epochs if known_epochs is not None else 'unknown'} epochs; "
            "give --updates and --epochs of the run to come"
        )
    length = known / known_epochs
    if updates is not None:
        return updates, updates / length
    if epochs is not None:
        return round(epochs * length), epochs
    return known, known_epochs
