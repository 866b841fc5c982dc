"""One weight with its mask: what a pruner keeps for every matrix."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

from . import mask
from .mask import (
    BlockShape,
    block_scores,
    block_sizes,
    check_block_shape,
    expand_mask,
    mask_from_zeros,
    select_lowest,
    whole_part,
)
from .prunable import Prunable

SCORES = (*mask.SCORES, "random")

# The share of zeros that random weights have, rounded to half precision or not, with much to spare.
CHANCE = 1e-3


class MaskedWeight:
    """One weight [M, K], its block mask (bool) and the same by element (in the weight's dtype).

    With `keep_diagonal` the main diagonal of every gate [K, K] stays whatever the blocks do (as
    in LPCNet, arXiv 1810.11846, "Sparse matrices"): it counts in no block, neither as size nor as
    score.
    """

    def __init__(
        self,
        prunable: Prunable,
        weight: Tensor,
        block_shape: BlockShape,
        keep_diagonal: bool = False,
    ):
        self.name, self.type, self.gates = prunable.name, prunable.type, prunable.gates
        self.weight, self.block_shape = weight, tuple(block_shape)
        shape = tuple(weight.shape)
        if weight.numel() and not weight.data_ptr():
            raise ValueError(
                f"MaskedWeight: expected {self.name} in memory, got a {type(weight).__name__} on "
                f"{weight.device} without; prune models that are materialised and not sharded"
            )
        block_shape = self.block_shape
        check_block_shape(shape, block_shape, self.gates, self.name)
        self.sizes = block_sizes(shape, block_shape, self.gates).to(weight.device)
        self.diagonal: Tensor | None = None
        if keep_diagonal:
            self.diagonal = _diagonal(shape, self.gates, self.name).to(weight.device)
            self.sizes = self.sizes - _count_in_blocks(self.diagonal, block_shape, self.gates)
        kept = mask_from_zeros(self._in_blocks(), block_shape, self.gates)
        is_new = prunable.padding is not None and _is_dense_beside(weight, prunable.padding)
        self.set_mask(torch.ones_like(kept) if is_new else kept)

    def set_mask(self, block_mask: Tensor) -> None:
        self.block_mask = block_mask
        shape = tuple(self.weight.shape)
        elements = expand_mask(block_mask, shape, self.block_shape, self.gates)
        if self.diagonal is not None:
            elements = elements | self.diagonal
        self.elements = elements.to(self.weight.dtype)
        self.kept = int(self.elements.count_nonzero())

    def scores(self, score: str, factor: Tensor | None = None) -> Tensor:
        """Block scores in which pruned blocks rank below every other, a zero block included.

        Every |w| counts times its `factor` [M, K] (`fisher.py`). `random` gives every block a
        number that depends on the weight's name alone, so that it is the same in every process and
        after a resume.
        """
        if score == "random":
            generator = torch.Generator().manual_seed(zlib.crc32(self.name.encode()))
            # On the CPU whatever the default device is, as the generator.
            scores = torch.rand(self.block_mask.shape, generator=generator, device="cpu")
            scores = scores.to(self.weight.device)
        else:
            scores = self.magnitudes(score, factor)
        return scores.masked_fill(~self.block_mask, -1.0)

    def magnitudes(self, score: str, factor: Tensor | None = None) -> Tensor:
        """The `max`, `mean` or `l2` (root mean square) of what every block has, pruned or not."""
        values = self._in_blocks() if factor is None else self._in_blocks() * factor
        found = block_scores(values, self.block_shape, self.gates, score)
        if self.diagonal is None or score == "max":
            return found
        # Means are over whole blocks, of which a diagonal is no part.
        whole = block_sizes(tuple(self.weight.shape), self.block_shape, self.gates)
        share = whole.to(self.sizes.device) / self.sizes.clamp(min=1)
        return found * (share if score == "mean" else share.sqrt())

    def check_target(self, sparsity: float | tuple[float, ...]) -> None:
        """ValueError for a target by gate that does not fit the number of gates."""
        if isinstance(sparsity, tuple) and len(sparsity) != self.gates:
            raise ValueError(
                f"MaskedWeight: expected {self.gates} sparsities, one per gate of {self.name}, got "
                f"{len(sparsity)}; give this type of weights ({self.type}) a single one"
            )

    def lowest(self, scores: Tensor, sparsity: float | tuple[float, ...]) -> Tensor:
        """The lowest blocks that hold this fraction of the elements, of all or of each gate."""
        if not isinstance(sparsity, tuple):
            count = whole_part(sparsity, self.weight.numel())
            return select_lowest(scores, self.sizes, count)
        size = self.weight.numel() // self.gates
        chosen = [
            select_lowest(s, n, whole_part(part, size))
            for s, n, part in zip(scores, self.sizes, sparsity, strict=True)
        ]
        return torch.stack(chosen)

    def dead_rows(self) -> int:
        """How many rows have lost every element: an output that the matrix can no longer move."""
        return int((self.elements.sum(dim=1) == 0).sum())

    def dead_gates(self) -> int:
        """How many gates have lost every element."""
        return int((self.elements.view(self.gates, -1).sum(dim=1) == 0).sum())

    def _in_blocks(self) -> Tensor:
        """The weight as its blocks see it: without the diagonal, if that is kept."""
        weight = self.weight.detach()
        return weight if self.diagonal is None else weight.masked_fill(self.diagonal, 0.0)


def sparsity_of(weights: Sequence[MaskedWeight]) -> float:
    """Fraction of pruned elements in all these weights, in [0, 1]."""
    return 1 - sum(w.kept for w in weights) / sum(w.weight.numel() for w in weights)


def _is_dense_beside(weight: Tensor, padding: int) -> bool:
    """Whether there are no more zeros beside the row of padding than chance leaves."""
    zeros = (weight.detach() == 0).sum(dim=1)
    return int(zeros.sum() - zeros[padding]) <= CHANCE * weight.numel()


def _diagonal(shape: tuple[int, int], gates: int, name: str) -> Tensor:
    """Bool [M, K]: the main diagonals of the gates."""
    if shape[0] != gates * shape[1]:
        raise ValueError(
            f"MaskedWeight: expected square gates in {name}, whose diagonal is to be kept, got "
            f"{shape[0]} x {shape[1]} in {gates} gates"
        )
    return torch.eye(shape[1], dtype=torch.bool).repeat(gates, 1)


def _count_in_blocks(elements: Tensor, block_shape: BlockShape, gates: int) -> Tensor:
    """How many of the bool `elements` [M, K] lie in each block, int64."""
    share = block_scores(elements.double(), block_shape, gates, "mean")
    sizes = block_sizes(tuple(elements.shape), block_shape, gates).to(elements.device)
    return (share * sizes).round().long()
