"""The pruner: tagged weights + schedules -> masks. The only object of this room with a state."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .mask import (
    BlockShape,
    block_scores,
    block_sizes,
    check_block_shape,
    expand_mask,
    mask_from_zeros,
    select_lowest,
)
from .prunable import Prunable
from .schedule import Schedule

logger = logging.getLogger(__name__)


class MaskedWeight:
    """One weight [M, K], its block mask (bool) and the same by element (in the weight's dtype)."""

    def __init__(self, prunable: Prunable, weight: Tensor, block_shape: BlockShape):
        self.name, self.type, self.gates = prunable.name, prunable.type, prunable.gates
        self.weight, self.block_shape = weight, block_shape
        shape = tuple(weight.shape)
        check_block_shape(shape, block_shape, self.gates, self.name)
        self.sizes = block_sizes(shape, block_shape, self.gates).to(weight.device)
        self.set_mask(mask_from_zeros(weight, block_shape, self.gates))

    def set_mask(self, block_mask: Tensor) -> None:
        self.block_mask = block_mask
        shape = tuple(self.weight.shape)
        elements = expand_mask(block_mask, shape, self.block_shape, self.gates)
        self.elements = elements.to(self.weight.dtype)
        self.kept = int(self.elements.count_nonzero())

    def scores(self, score: str) -> Tensor:
        """Block scores in which pruned blocks rank below every other, a zero block included."""
        scores = block_scores(self.weight, self.block_shape, self.gates, score)
        return scores.masked_fill(~self.block_mask, -1.0)

    def dead_rows(self) -> int:
        """How many rows have lost every element: an output that the matrix can no longer move."""
        return int((self.elements.sum(dim=1) == 0).sum())

    def dead_gates(self) -> int:
        """How many gates have lost every block."""
        return int((~self.block_mask.flatten(1).any(dim=1)).sum())


class Pruner:
    """Keeps the masks of a model and shrinks them as the schedules say.

    `weights` are (Prunable, tensor) pairs; every type among them needs a schedule and a block
    shape. Masks start from the zeros that the weights already have, and only shrink. A schedule
    with thresholds shares one threshold among all tensors of a type and stops raising it when the
    type's sparsity reaches `max_sparsity`; one with targets prunes each tensor to its target.
    """

    def __init__(
        self,
        weights: Iterable[tuple[Prunable, Tensor]],
        schedules: Mapping[str, Schedule],
        block_shapes: Mapping[str, BlockShape],
        score: str = "max",
        max_sparsity: float = 0.95,
    ):
        if not 0 < max_sparsity < 1:
            raise ValueError(f"Pruner: expected max_sparsity in (0, 1), got {max_sparsity}")
        self.schedules, self.score, self.max_sparsity = dict(schedules), score, max_sparsity
        self.weights = [MaskedWeight(p, w, block_shapes[p.type]) for p, w in weights]
        if not self.weights:
            raise ValueError("Pruner: expected at least one weight to prune, got none")
        self.thresholds = dict.fromkeys(self.types, 0.0)
        self.updates = 0
        self._capped: set[str] = set()
        self._dead: dict[str, tuple[int, int]] = {}

    @property
    def types(self) -> list[str]:
        """The types present, in order of first appearance."""
        return list(dict.fromkeys(w.type for w in self.weights))

    def of_type(self, type: str) -> list[MaskedWeight]:
        """The weights of one type."""
        return [w for w in self.weights if w.type == type]

    def sparsity(self, type: str | None = None) -> float:
        """Fraction of pruned elements, in one type or in all weights, in [0, 1]."""
        weights = self.weights if type is None else self.of_type(type)
        return 1 - sum(w.kept for w in weights) / sum(w.weight.numel() for w in weights)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zeroes the gradients of pruned elements (their weights cannot move)."""
        for w in self.weights:
            if w.weight.grad is not None:
                w.weight.grad.mul_(w.elements)

    @torch.no_grad()
    def step(self, optimizer_state: Mapping[Tensor, Mapping[str, Any]] | None = None) -> bool:
        """Follows one optimizer step: updates the masks if it is time, then applies them.

        `optimizer_state` maps weights to their moments, as torch.optim.Optimizer.state does; a
        moment in the shape of its weight is masked as the weight is. Returns whether masks were
        recomputed.
        """
        changed = [t for t in self.types if self.schedules[t].is_mask_update(self.updates)]
        for type in changed:
            self._update_masks(type)
        for w in self.weights:
            w.weight.mul_(w.elements)
            for moment in (optimizer_state or {}).get(w.weight, {}).values():
                if torch.is_tensor(moment) and moment.shape == w.weight.shape:
                    moment.mul_(w.elements)
        self.updates += 1
        if changed:
            self._warn_of_dead()
        return bool(changed)

    def _update_masks(self, type: str) -> None:
        schedule, weights = self.schedules[type], self.of_type(type)
        if hasattr(schedule, "threshold"):
            if type not in self._capped:
                self._prune_below(type, weights, schedule.threshold(self.updates))
        else:
            target = schedule.sparsity(self.updates)
            self.thresholds[type] = max(self._prune_to(w, target) for w in weights)

    def _prune_below(self, type: str, weights: list[MaskedWeight], threshold: float) -> None:
        scores = [w.scores(self.score) for w in weights]
        total = sum(w.weight.numel() for w in weights)
        pruned = sum(
            int((w.sizes * (s < threshold)).sum()) for w, s in zip(weights, scores, strict=True)
        )
        if pruned <= self.max_sparsity * total:
            self.thresholds[type] = threshold
            for w, s in zip(weights, scores, strict=True):
                w.set_mask(w.block_mask & (s >= threshold))
            return
        # Algorithm 1 has no brake: a slope that is too steep would prune everything.
        self._capped.add(type)
        flat = torch.cat([s.flatten() for s in scores])
        sizes = torch.cat([w.sizes.flatten() for w in weights])
        lowest = select_lowest(flat, sizes, int(self.max_sparsity * total))
        drop = lowest.split([s.numel() for s in scores])
        self.thresholds[type] = max(self.thresholds[type], float(flat[~lowest].min()))
        for w, d in zip(weights, drop, strict=True):
            w.set_mask(w.block_mask & ~d.view_as(w.block_mask))
        logger.warning(
            "update %d: the threshold of %s weights stops at %.3g, where their sparsity reaches "
            "max_sparsity = %g; the schedule asked for %.3g",
            *(self.updates, type, self.thresholds[type], self.max_sparsity, threshold),
        )

    def _prune_to(self, w: MaskedWeight, target: float) -> float:
        """Prunes one weight to a target sparsity and returns the threshold that this implies."""
        scores = w.scores(self.score)
        drop = select_lowest(scores, w.sizes, int(target * w.weight.numel() + 1e-6))
        w.set_mask(w.block_mask & ~drop)
        return max(0.0, float(scores[drop].max())) if drop.any() else 0.0

    def _warn_of_dead(self) -> None:
        for w in self.weights:
            rows, gates = w.dead_rows(), w.dead_gates()
            known_rows, known_gates = self._dead.get(w.name, (0, 0))
            if gates > known_gates:
                logger.warning("%s: %d of %d gates are wholly pruned", w.name, gates, w.gates)
            elif rows > known_rows:
                logger.warning("%s: %d of %d rows are wholly pruned", w.name, rows, len(w.weight))
            self._dead[w.name] = (rows, gates)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs: tensors, numbers and strings only."""
        return {
            "updates": self.updates,
            "thresholds": dict(self.thresholds),
            "capped": sorted(self._capped),
            "block_shape": {w.type: list(w.block_shape) for w in self.weights},
            "masks": {w.name: w.block_mask for w in self.weights},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`; ValueError if it belongs to other weights or block shapes."""
        ours = {w.name for w in self.weights}
        if ours != set(state["masks"]):
            raise ValueError(
                "Pruner.load_state_dict: expected the masks of the same weights, got differences "
                f"in {sorted(ours ^ set(state['masks']))}; keep --prune-types, or give "
                "--reset-optimizer to rebuild the masks from the zeros"
            )
        for w in self.weights:
            saved = tuple(state["block_shape"][w.type])
            if saved != w.block_shape:
                raise ValueError(
                    f"Pruner.load_state_dict: expected block shape {saved} for {w.type} weights "
                    f"as in the checkpoint, got {w.block_shape}; keep --prune-block-shape, or give "
                    "--reset-optimizer to rebuild the masks from the zeros"
                )
        self.updates = state["updates"]
        self.thresholds = {t: state["thresholds"][t] for t in self.types}
        self._capped = set(state["capped"])
        for w in self.weights:
            w.set_mask(state["masks"][w.name].to(w.weight.device))
        self._dead = {w.name: (w.dead_rows(), w.dead_gates()) for w in self.weights}
