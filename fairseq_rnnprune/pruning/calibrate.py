"""From a dense model to the thresholds of a ramp: q by type, and the sparsity to expect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .mask import BlockShape, block_scores, block_sizes, check_block_shape, quantile
from .prunable import Prunable, find_prunable
from .ramp import default_start

# A padding row or a few dead inputs are normal; more zeros than this were pruned.
MAX_ZEROS = 0.1


@dataclass(frozen=True)
class ScoredWeight:
    """A prunable matrix with its block scores and the elements in each block."""

    prunable: Prunable
    scores: Tensor
    sizes: Tensor

    @property
    def elements(self) -> int:
        return int(self.sizes.sum())

    def pruned_below(self, threshold: float) -> int:
        """Elements in blocks that score below `threshold` (Algorithm 1 of arXiv 1704.05119)."""
        return int((self.sizes * (self.scores < threshold)).sum())


def score_weights(
    tensors: Mapping[str, Tensor],
    block_shapes: Mapping[str, BlockShape],
    score: str = "max",
) -> dict[str, list[ScoredWeight]]:
    """Scores the prunable matrices of a dense model by type, for each type in `block_shapes`.

    ValueError if a type has no matrix, if blocks do not fit, if weights are not finite, or if
    more than a tenth of a type is zero already.
    """
    prunables = find_prunable(tensors)
    present = list(dict.fromkeys(p.type for p in prunables))
    scored = {}
    for type, block_shape in block_shapes.items():
        of_type = [p for p in prunables if p.type == type]
        if not of_type:
            raise ValueError(
                f"score_weights: expected weights of type {type}, got a model with "
                f"{', '.join(present) or 'none that are prunable'}; choose among the types it has"
            )
        _check_dense(type, [tensors[p.name] for p in of_type])
        for p in of_type:
            check_block_shape(tuple(tensors[p.name].shape), block_shape, p.gates, p.name)
        scored[type] = [_score(p, tensors[p.name], block_shape, score) for p in of_type]
    return scored


def quantile_of(weights: Iterable[ScoredWeight], sparsity: float) -> float:
    """The threshold q that prunes the fraction `sparsity`, in (0, 1), of `weights` together.

    For 1 x 1 blocks it is the quantile of |w|: q of eq. 1, arXiv 1704.05119.
    """
    if not 0 < sparsity < 1:
        raise ValueError(f"quantile_of: expected a sparsity in (0, 1), got {sparsity}")
    weights = list(weights)
    scores = torch.cat([w.scores.flatten() for w in weights])
    return quantile(scores, torch.cat([w.sizes.flatten() for w in weights]), sparsity)


def sparsity_below(weights: Iterable[ScoredWeight], threshold: float) -> float:
    """Fraction of all elements of `weights` that `threshold` prunes, in [0, 1]."""
    weights = list(weights)
    return sum(w.pruned_below(threshold) for w in weights) / sum(w.elements for w in weights)


def default_window(updates: int, epochs: float) -> tuple[int, int, int]:
    """Chooses (start, ramp, end) for a run of so many updates (arXiv 1704.05119, Table 1).

    Pruning starts with the second epoch, its slope rises at 25 % of the run and masks are final
    from 50 % on; `default_start` says where a run of a few epochs starts.
    """
    if updates < 1 or epochs <= 0:
        raise ValueError(
            "default_window: expected a run of updates >= 1 and epochs > 0, "
            f"got {updates} updates in {epochs:g} epochs"
        )
    ramp, end = round(0.25 * updates), round(0.5 * updates)
    return default_start(round(updates / epochs), ramp), ramp, end


def default_freq(start: int, end: int) -> int:
    """Updates between masks: 100, or fewer where a short window holds less than ten such spans."""
    return min(100, max(1, (end - start) // 10))


def _check_dense(type: str, weights: list[Tensor]) -> None:
    if not all(w.isfinite().all() for w in weights):
        raise ValueError(
            f"score_weights: expected finite {type} weights, got inf or nan; "
            "take a checkpoint from before the training diverged"
        )
    zeros = 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights)
    if zeros > MAX_ZEROS:
        raise ValueError(
            f"score_weights: expected a dense model, got one whose {type} weights are "
            f"{zeros:.1%} zeros already; take the dense model of the same kind"
        )


def _score(p: Prunable, weight: Tensor, block_shape: BlockShape, score: str) -> ScoredWeight:
    scores = block_scores(weight.float(), block_shape, p.gates, score)
    return ScoredWeight(p, scores, block_sizes(tuple(weight.shape), block_shape, p.gates))
