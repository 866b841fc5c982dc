"""Units, inputs, symbols and overlaps of `rnnprune report` as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from .inputs import Inputs, Symbols, spread
from .render_survivors import SHOWN_SYMBOLS
from .survivors import Pair, Survivors
from .units import Units

_RANGE = ("lowest", "median", "highest")


def survivors_json(survivors: Survivors) -> dict[str, Any]:
    """The same figures of one checkpoint for machines, and of each input and symbol, in order.

    Fractions are in [0, 1].
    """
    return {
        "units": [_unit_json(u) for u in survivors.units],
        "inputs": [{"name": i.name, "source": i.source, **_kept_json(i)} for i in survivors.inputs],
        "symbols": [
            {"name": s.name, **_kept_json(s), **_ranked_json(s)} for s in survivors.symbols
        ],
    }


def overlap_json(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Overlaps of the first checkpoint with each of the others."""
    derived = ("jaccard", "chance", "times_chance", "contained")
    return [
        {
            "checkpoints": [p.first, p.second],
            "not_comparable": p.not_comparable,
            "tensors": [asdict(o) | {n: getattr(o, n) for n in derived} for o in p.overlaps],
        }
        for p in pairs
    ]


def _unit_json(u: Units) -> dict[str, Any]:
    fields = ("layer", "units", "no_input", "no_output", "dead", "constant")
    ranges = {g: dict(zip(_RANGE, v, strict=True)) for g, v in u.constant_values.items()}
    diagonals = {
        g: {
            "kept": d.kept,
            "share": d.share,
            "density": d.density,
            "times_density": d.times_density,
        }
        for g, d in u.diagonals.items()
    }
    return {name: getattr(u, name) for name in fields} | {
        "constant_values": ranges,
        "diagonals": diagonals,
        "weights": u.weights,
        **_range_json(u.kept),
    }


def _range_json(kept: Sequence[int]) -> dict[str, Any]:
    return {"kept": dict(zip(_RANGE, spread(kept), strict=True))}


def _kept_json(item: Inputs | Symbols) -> dict[str, Any]:
    rows = {"count": len(item.kept), "weights": item.weights, "pruned": item.pruned}
    return rows | _range_json(item.kept) | {"kept_by_each": item.kept}


def _ranked_json(s: Symbols) -> dict[str, Any]:
    if s.is_even:
        return {"most": [], "least": []}
    return {"most": s.ranked(SHOWN_SYMBOLS, True), "least": s.ranked(SHOWN_SYMBOLS, False)}
