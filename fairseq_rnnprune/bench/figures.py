"""The figures of `rnnprune bench`: costs by variant, and times with all variants taking turns."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_rnnprune.checkpoint import Checkpoint
from fairseq_rnnprune.layers import explain_packing

from .layers import BenchLayer, find_layers
from .timing import measure, relative_error, summary
from .variants import DENSE, VALUES, Cost, Variant, dense_variants, packed_variants

AUTO = "auto"
# Seconds of one variant's turn in a round.
TURN = 0.02
# A recurrent layer's result is compared over so many steps, before rounding errors may grow.
CHECKED_STEPS = 8
# Largest error of packed fp32 / root mean square of the exact output.
FP32_LIMIT = 1e-3


@dataclass(frozen=True)
class Settings:
    """How to measure: batch, steps of a sequence, threads, packed values, rounds at most, and
    about how many seconds a layer's rounds may take."""

    batch: int = 1
    steps: int = 64
    threads: int = 1
    values: tuple[str, ...] = VALUES
    rounds: int = 15
    seconds: float = 4.0


@dataclass(frozen=True)
class Row:
    """One variant of a layer, or of all of them: costs and microseconds per time step.

    `us_20` and `us_80` are quantiles over the rounds, `error` is the largest error / the root mean
    square of the exact output; a total has none of these.
    """

    runs_on: str
    cost: Cost
    us: float
    us_20: float | None = None
    us_80: float | None = None
    error: float | None = None
    matrices: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Figures:
    """The rows of a layer by variant, among them "auto": a copy of what auto would choose.

    `nonzeros` is how many multiply-adds a time step has that are not with 0. `why` is what auto
    says; empty for a total.
    """

    name: str
    kind: str
    nonzeros: int
    rows: dict[str, Row]
    why: str = ""
    rounds: int = 0

    @property
    def best_dense(self) -> str:
        """The fastest of the dense variants that all layers have."""
        return min((name for name in DENSE if name in self.rows), key=lambda n: self.rows[n].us)


@dataclass(frozen=True)
class CheckpointBench:
    """The layers of one checkpoint, recurrent ones first; then totals over these and over all."""

    path: Path
    label: str
    updates: int | None
    training_seconds: float | None
    layers: list[Figures]
    totals: list[Figures]
    left_out: dict[str, str]


@dataclass(frozen=True)
class _Candidate:
    name: str
    call: Callable[[], Tensor]
    threads: int | None = None


def bench_checkpoint(
    checkpoint: Checkpoint, settings: Settings, label: str = ""
) -> CheckpointBench:
    """Measures every layer that has a packed form.

    ValueError if there is no recurrent one, or weights that cannot be packed: with NaN, for one.
    """
    layers, left_out = find_layers(checkpoint.model)
    recurrent = [layer for layer in layers if layer.is_recurrent]
    if not recurrent:
        names = "; ".join(f"{name} {why}" for name, why in left_out.items())
        why = f" ({names})" if names else ""
        raise ValueError(
            "bench_checkpoint: expected a model with a GRU or a clipped-ReLU RNN, got "
            f"{checkpoint.path}, which has none{why}; name a checkpoint of one"
        )
    figures = [bench_layer(layer, settings) for layer in layers]
    totals = [total("all recurrent", figures[: len(recurrent)])]
    if len(figures) > len(recurrent):
        totals.append(total("all layers", figures))
    return CheckpointBench(
        checkpoint.path,
        label,
        checkpoint.updates,
        checkpoint.training_seconds,
        figures,
        totals,
        left_out,
    )


@torch.no_grad()
def bench_layer(layer: BenchLayer, settings: Settings) -> Figures:
    """Measures one layer: dense, packed with each of the values, and what auto makes of it."""
    module = layer.module
    packs, why = explain_packing(module.weights(), module.gates, module.is_recurrent)
    # Where auto packs, it packs fp32.
    chosen = "fp32" if packs else "dense"
    values = [v for v in VALUES if v in settings.values or v == chosen]
    with warnings.catch_warnings():
        # torch's quantised layers are deprecated, but still its fastest on CPUs.
        warnings.simplefilter("ignore")
        variants = [*dense_variants(layer), *packed_variants(layer, values)]
        errors = _errors(layer, variants, settings)
        x = _input(layer, settings, settings.steps)
        candidates = [_Candidate(v.name, partial(v.run, x.to(v.dtype))) for v in variants]
        samples = measure(candidates, settings.rounds, settings.seconds, TURN)
    per = settings.steps if layer.is_recurrent else 1
    timed = summary(samples, errors, per, DENSE)
    rows = {
        v.name: Row(
            v.runs_on,
            v.cost,
            *(timed[v.name][key] for key in ("us", "us_20", "us_80", "error")),
            matrices=tuple(v.matrices),
        )
        for v in variants
    }
    rows[AUTO] = rows[chosen]
    if chosen not in (*DENSE, *settings.values):
        del rows[chosen]
    nonzeros = sum(int(weight.count_nonzero()) for weight in module.weights())
    return Figures(layer.name, layer.kind, nonzeros, rows, why, len(samples["dense"]))


def total(name: str, layers: Sequence[Figures]) -> Figures:
    """Sums over layers, of the variants that all of them have: one time step of each."""
    rows = {}
    for variant in layers[0].rows:
        parts = [layer.rows[variant] for layer in layers if variant in layer.rows]
        if len(parts) == len(layers):
            backends = dict.fromkeys(b for part in parts for b in part.runs_on.split(", "))
            cost = sum((part.cost for part in parts), Cost(0, 0, 0))
            rows[variant] = Row(", ".join(backends), cost, sum(part.us for part in parts))
    return Figures(name, "", sum(layer.nonzeros for layer in layers), rows)


def _errors(layer: BenchLayer, variants: Iterable[Variant], settings: Settings) -> dict[str, float]:
    """By variant, its error against float64; ValueError if packed fp32 computes something else."""
    x = _input(layer, settings, min(settings.steps, CHECKED_STEPS))
    exact = copy.deepcopy(layer.module).double()(x.double())
    exact = exact[0] if layer.is_recurrent else exact
    errors = {v.name: relative_error(v.run(x.to(v.dtype)), exact) for v in variants}
    if not errors.get("fp32", 0.0) <= FP32_LIMIT:
        raise ValueError(
            f"bench_layer: expected {layer.name} packed as fp32 to agree with the dense layer to "
            f"{FP32_LIMIT:g}, got an error of {errors['fp32']:.1e}; its time would mean nothing"
        )
    return errors


def _input(layer: BenchLayer, settings: Settings, steps: int) -> Tensor:
    """Normal random x, the same in every run: [B, T, I] or, of a linear layer, [B, I]."""
    shape = [settings.batch, *([steps] if layer.is_recurrent else []), layer.input_size]
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
