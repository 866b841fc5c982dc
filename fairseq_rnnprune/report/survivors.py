"""What `rnnprune report` finds about units, inputs and symbols of a checkpoint, and overlaps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from fairseq_rnnprune.checkpoint import Checkpoint
from fairseq_rnnprune.pruning import TYPES, find_prunable

from .inputs import Inputs, Symbols, count_inputs, count_symbols
from .overlap import Overlap
from .units import Units, count_units


@dataclass(frozen=True)
class Survivors:
    """What the masks of one checkpoint leave; `units` is empty unless recurrent weights count."""

    label: str
    units: list[Units]
    inputs: list[Inputs]
    symbols: list[Symbols]


@dataclass(frozen=True)
class Pair:
    """The overlaps of the first checkpoint's masks with those of another one."""

    first: str
    second: str
    overlaps: list[Overlap]
    # Names of matrices of other shapes, or that only one of the two has.
    not_comparable: Sequence[str] = ()


def find_survivors(
    checkpoint: Checkpoint,
    types: Iterable[str] = TYPES,
    label: str = "",
    dictionaries: Sequence[Sequence[str]] = (),
) -> Survivors:
    """Counts what is left of units, inputs and symbols, in the tensors of the given types."""
    types = tuple(types)
    prunables = [p for p in find_prunable(checkpoint.model) if p.type in types]
    return Survivors(
        label,
        count_units(checkpoint.model) if "recurrent" in types else [],
        count_inputs(checkpoint.model, prunables),
        count_symbols(checkpoint.model, prunables, dictionaries),
    )
