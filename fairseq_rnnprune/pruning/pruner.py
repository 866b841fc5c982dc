"""The pruner: tagged weights + schedules -> masks."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .allocation import check_allocation, lowest_blocks
from .bounds import Bounds
from .dead import DeadWatch
from .fisher import check_power, fisher_factors
from .mask import BlockShape, quantile, select_lowest, whole_part
from .masked_weight import MaskedWeight, sparsity_of
from .prunable import Prunable
from .ramp import RAMPS, QuantileRamp
from .saved import check_saved, warn_of_other_choice
from .schedule import Schedule
from .target import check_reachable, meets_target, target_of

logger = logging.getLogger(__name__)


class Pruner:
    """Keeps the masks of a model and shrinks them as the schedules say.

    `weights` are (Prunable, tensor) pairs; every type among them needs a schedule and a block
    shape. Masks start from the zeros that the weights already have, and only shrink. A ramp shares
    one threshold among all tensors of a type, whose sparsity a RampSchedule leaves at or below
    `max_sparsity` and ends at or above `min_sparsity`; a schedule with targets prunes each tensor
    to its target, or, where `allocation` is not uniform, all of them together to the one target
    of their types (`allocation.py`). `keep_diagonal` spares the diagonals of recurrent weights.
    With a `fisher_power` a weight counts by its gradients, too (`fisher.py`).
    """

    def __init__(
        self,
        weights: Iterable[tuple[Prunable, Tensor]],
        schedules: Mapping[str, Schedule],
        block_shapes: Mapping[str, BlockShape],
        score: str = "max",
        max_sparsity: float = 0.95,
        min_sparsity: float = 0.0,
        keep_diagonal: bool = False,
        allocation: str = "uniform",
        fisher_power: float = 0.0,
    ):
        self.schedules, self.score, self.allocation = dict(schedules), score, allocation
        self.fisher_power = fisher_power
        self.bounds = Bounds(max_sparsity, min_sparsity)
        weights = list(weights)
        for type in dict.fromkeys(p.type for p, _ in weights):
            if type not in schedules or type not in block_shapes:
                raise ValueError(
                    f"Pruner: expected a schedule and a block shape for {type} weights, got "
                    f"schedules of {', '.join(schedules)} and block shapes of "
                    f"{', '.join(block_shapes)}; leave these weights out, or add theirs"
                )
        self.weights = [
            MaskedWeight(p, w, block_shapes[p.type], keep_diagonal and p.type == "recurrent")
            for p, w in weights
        ]
        if keep_diagonal and not self.of_type("recurrent"):
            raise ValueError(
                "Pruner: expected recurrent weights, whose diagonals keep_diagonal spares, got "
                f"{', '.join(self.types)} only; add that type, or leave keep_diagonal out"
            )
        if not self.weights:
            raise ValueError("Pruner: expected at least one weight to prune, got none")
        has_ramp = any(isinstance(self.schedules[t], RAMPS) for t in self.types)
        if score == "random" and has_ramp:
            raise ValueError(
                "Pruner: expected scores in the weights' own units for a ramp, got random; take "
                "max, mean or l2, or a schedule with targets such as cubic"
            )
        check_power(fisher_power, score, has_ramp)
        check_allocation(allocation, [self.schedules[t] for t in self.types])
        for w in self.weights:
            w.check_target(target_of(self.schedules[w.type]) or 0.0)
        check_reachable(self)
        self.thresholds = dict.fromkeys(self.types, 0.0)
        self.updates = 0
        # Types that had their target when a training that now goes on for longer ended.
        self._reached: set[str] = set()
        self._dead = DeadWatch()
        self._is_told = False

    @property
    def types(self) -> list[str]:
        """The types present, in order of first appearance."""
        return list(dict.fromkeys(w.type for w in self.weights))

    def of_type(self, type: str) -> list[MaskedWeight]:
        """The weights of one type."""
        return [w for w in self.weights if w.type == type]

    @property
    def choice(self) -> dict[str, str | float]:
        """By what the blocks that go are chosen."""
        return {
            "score": self.score,
            "allocation": self.allocation,
            "fisher_power": self.fisher_power,
        }

    @property
    def _keeps_diagonal(self) -> bool:
        return any(w.diagonal is not None for w in self.weights)

    def sparsity(self, type: str | None = None) -> float:
        """Fraction of pruned elements, in one type or in all weights, in [0, 1]."""
        return sparsity_of(self.weights if type is None else self.of_type(type))

    def is_final(self, type: str | None = None) -> bool:
        """Tells whether the masks of a type, or of all, will not change any more."""
        types = self.types if type is None else (type,)
        return all(t in self._reached or self.updates >= self.schedules[t].end for t in types)

    @torch.no_grad()
    def mask_gradients(self) -> None:
        """Zeroes the gradients of pruned elements (their weights cannot move)."""
        for w in self.weights:
            if w.weight.grad is not None:
                w.weight.grad.mul_(w.elements)

    @torch.no_grad()
    def step(self, optimizer_state: Mapping[Tensor, Mapping[str, Any]] | None = None) -> bool:
        """Follows one optimizer step: updates the masks if it is time, then applies them.

        `optimizer_state` maps weights to their moments, as torch.optim.Optimizer.state does (of
        several optimizers, one mapping with all of them); a tensor in the shape of its weight is
        taken for a moment and masked as the weight is. Returns whether masks were recomputed.
        TypeError for an optimizer in the place of its state.
        """
        state = optimizer_state or {}
        if not isinstance(state, Mapping):
            raise TypeError(
                "Pruner.step: expected the state of an optimizer, which is a mapping, got "
                f"{state.__class__.__name__}; give its .state"
            )
        changed = [t for t in self.types if self.schedules[t].is_mask_update(self.updates)]
        factors: Mapping[str, Tensor] = {}
        # The first update finds an optimizer that does not fit, long before masks change.
        # A gradient scaler may have left it out.
        if self.fisher_power and (changed or (state and not self.updates)):
            factors = fisher_factors(self.weights, state, self.fisher_power)
        if changed:
            self._warn_of_strange(state)
        if changed and self.allocation != "uniform":
            self._update_masks(self.types, factors)
        else:
            for type in changed:
                self._update_masks([type], factors)
        for w in self.weights:
            w.weight.mul_(w.elements)
            for moment in state.get(w.weight, {}).values():
                if torch.is_tensor(moment) and moment.shape == w.weight.shape:
                    moment.mul_(w.elements)
        self.updates += 1
        if changed:
            self._dead.warn(self.weights)
        return bool(changed)

    def _warn_of_strange(self, state: Mapping[Tensor, Any]) -> None:
        """An optimizer that has moments, but of none of these weights, may train other tensors."""
        if state and not self._is_told and not any(w.weight in state for w in self.weights):
            self._is_told = True
            logger.warning(
                "the optimizer has no state of any weight that is pruned: they are frozen, or are "
                "not the model's any more; make the Pruner anew after its tensors were replaced, "
                "and give the optimizer's own .state"
            )

    def _update_masks(self, types: list[str], factors: Mapping[str, Tensor]) -> None:
        """Prunes the weights of these types, which have one schedule."""
        schedule = self.schedules[types[0]]
        weights = [w for w in self.weights if w.type in types]
        scores = [w.scores(self.score, factors.get(w.name)) for w in weights]
        if isinstance(schedule, RAMPS):
            chosen = self._below_threshold(types[0], weights, scores)
            for w, s, blocks in zip(weights, scores, chosen, strict=True):
                _drop(w, s, blocks.view(s.shape))
            return
        target = schedule.sparsity(self.updates)
        chosen = lowest_blocks(weights, scores, target, self.allocation)
        # A change of masks that prunes nothing more implies no other threshold.
        reached = {t: self.thresholds[t] for t in types}
        for w, s, blocks in zip(weights, scores, chosen, strict=True):
            reached[w.type] = max(reached[w.type], _drop(w, s, blocks))
        self.thresholds.update(reached)

    def _below_threshold(
        self, type: str, weights: list[MaskedWeight], scores: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Raises the threshold of a type as its ramp asks; returns what is below, flat."""
        schedule = self.schedules[type]
        flat = torch.cat([s.flatten() for s in scores])
        sizes = torch.cat([w.sizes.flatten() for w in weights])
        # Of these, a kept diagonal is in no block.
        total = sum(w.weight.numel() for w in weights)
        if isinstance(schedule, QuantileRamp):
            limit = schedule.final
            most = quantile(flat, sizes, limit, total)
            threshold = schedule.fraction(self.updates) * most
        else:
            limit = self.bounds.max_sparsity
            most = self.bounds.threshold(schedule, self.updates, type, flat, sizes, total)
            threshold = most
        # A threshold only rises. The quantile may fall, a penalty sees to that: then it is the cut,
        # for beyond it more would go than was asked for.
        self.thresholds[type] = max(self.thresholds[type], threshold)
        cut = min(self.thresholds[type], most)
        below = flat < cut
        if cut <= 0:
            # A penalty has made more zeros than may go: those that do are told by position.
            below = (flat <= 0) & select_lowest(flat, sizes, whole_part(limit, total))
        return below.split([s.numel() for s in scores])

    def state_dict(self) -> dict[str, Any]:
        """Everything that a resumed run needs: tensors, numbers and strings only."""
        return {
            "updates": self.updates,
            "thresholds": dict(self.thresholds),
            "block_shape": {w.type: list(w.block_shape) for w in self.weights},
            "keep_diagonal": self._keeps_diagonal,
            "choice": self.choice,
            "reached": self._reached_targets(),
            "masks": {w.name: w.block_mask for w in self.weights},
        }

    def _reached_targets(self) -> dict[str, float | tuple[float, ...]]:
        """The targets that final masks have met, by type."""
        reached = [t for t in self.types if self.is_final(t) and meets_target(self, t)]
        return {t: target_of(self.schedules[t]) for t in reached}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores `state_dict()`; ValueError if it belongs to other weights or block shapes."""
        check_saved(state, self.weights, self._keeps_diagonal)
        self.updates = state["updates"]
        if state.get("choice") == self.choice:
            # A later end of the same schedule asks for nothing more.
            reached = state.get("reached", {}).items()
            self._reached = {t for t, s in reached if s == target_of(self.schedules[t])}
        if not self.is_final():
            warn_of_other_choice(state, self.choice)
        self.thresholds = {t: state["thresholds"][t] for t in self.types}
        for w in self.weights:
            w.set_mask(state["masks"][w.name].to(w.weight.device))
        self._dead.note(self.weights)


def _drop(w: MaskedWeight, scores: Tensor, blocks: Tensor) -> float:
    """Prunes these blocks (bool) of a weight; returns the threshold that this implies."""
    w.set_mask(w.block_mask & ~blocks)
    return max(0.0, float(scores[blocks].max())) if blocks.any() else 0.0
