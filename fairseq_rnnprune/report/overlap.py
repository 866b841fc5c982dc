"""How far the masks of two checkpoints agree, and how far random ones would."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from fairseq_rnnprune.pruning import Prunable

from .table import gate_names


@dataclass(frozen=True)
class Overlap:
    """Elements of one tensor or gate that a mask keeps, another one keeps, and both keep."""

    name: str
    gate: str | None
    type: str
    elements: int
    kept: tuple[int, int]
    both: int

    @property
    def jaccard(self) -> float | None:
        """Kept by both / kept by either, in [0, 1]; None if nothing is kept."""
        return _jaccard(self.both, self.kept)

    @property
    def chance(self) -> float | None:
        """The Jaccard index of random masks of these densities.

        Of N elements, masks that keep a and b of them share a * b / N on average.
        """
        return _jaccard(self.kept[0] * self.kept[1] / self.elements, self.kept)

    @property
    def times_chance(self) -> float | None:
        """How often the Jaccard index is that of random masks; 1: the masks are unrelated."""
        if self.jaccard is None or not self.chance:
            return None
        return self.jaccard / self.chance

    @property
    def contained(self) -> float | None:
        """Kept by both / kept by the sparser mask: 1 if that one is a part of the other."""
        smaller = min(self.kept)
        return self.both / smaller if smaller else None


def keep_masks(
    model: Mapping[str, Tensor], prunables: Iterable[Prunable]
) -> dict[str, tuple[Prunable, Tensor]]:
    """The mask [M, K] of every matrix by its name, bool, True = kept."""
    return {p.name: (p, model[p.name] != 0) for p in prunables}


def compare_masks(
    first: Mapping[str, tuple[Prunable, Tensor]], second: Mapping[str, tuple[Prunable, Tensor]]
) -> list[Overlap]:
    """Overlaps of all matrices with the same name and shape in both, each before its gates."""
    overlaps = []
    without = not_comparable(first, second)
    for name, (p, mask) in first.items():
        if name in without:
            continue
        other = second[name][1]
        overlaps.append(_overlap(p, None, mask, other))
        if p.gates > 1 and len(mask) % p.gates == 0:
            chunks = mask.chunk(p.gates), other.chunk(p.gates)
            pieces = zip(gate_names(p.gates), *chunks, strict=True)
            overlaps += [_overlap(p, gate, a, b) for gate, a, b in pieces]
    return overlaps


def not_comparable(
    first: Mapping[str, tuple[Prunable, Tensor]], second: Mapping[str, tuple[Prunable, Tensor]]
) -> list[str]:
    """Names of the matrices that only one of the two has, or that differ in shape."""
    names = dict.fromkeys([*first, *second])
    both = first.keys() & second.keys()
    return [n for n in names if n not in both or first[n][1].shape != second[n][1].shape]


def _overlap(p: Prunable, gate: str | None, a: Tensor, b: Tensor) -> Overlap:
    kept = (int(a.sum()), int(b.sum()))
    return Overlap(p.name, gate, p.type, a.numel(), kept, int((a & b).sum()))


def _jaccard(both: float, kept: tuple[int, int]) -> float | None:
    either = sum(kept) - both
    return both / either if either else None
