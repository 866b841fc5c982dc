"""`--optimizer pruned`: a dense fairseq optimizer whose weights lose their smallest elements."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from fairseq.logging import metrics
from fairseq.optim import FairseqOptimizer
from omegaconf import DictConfig
from torch import Tensor, nn

from fairseq_rnnprune.pruning import FollowingDropout, Pruner, read_tag, shrink

from .inner import build_inner, inner_options
from .options import PruningOptions
from .reading import block_shapes, pruned_types, unread_options, worth
from .schedules import build_schedules
from .targets import warn_at_start, warn_of_other_zeros, warn_of_the_end, warn_on_resuming
from .updates import training_updates, without_epochs

logger = logging.getLogger(__name__)

# Where the pruning is in an optimizer's saved state.
STATE = "rnnprune"


@dataclass
class PrunedOptimizerConfig(PruningOptions, inner_options()):
    """Options of the pruning and of every dense optimizer that can be inside."""


class PrunedOptimizer(FairseqOptimizer):
    """Wraps a dense optimizer and keeps pruned weights at zero (arXiv 1704.05119, Algorithm 1).

    Once per update: gradients of pruned weights are zeroed before the clipping norm is taken,
    the inner optimizer steps, masks are recomputed if it is time, weights and moments are
    masked. Masks, thresholds and the update count are part of the optimizer's state. Only
    parameters that are tagged (`pruning.tag_prunable`) are pruned; fairseq's Trainer tags those of
    a model that has not done so itself (`trainer_hooks.py`).
    """

    def __init__(self, cfg: DictConfig, params: Iterable[Tensor]):
        super().__init__(cfg)
        params = list(params)
        if len(params) == 1 and params[0].dim() == 1:
            raise ValueError(
                "--optimizer pruned: expected one parameter per weight, got a flat one; "
                "give --fp16-no-flatten-grads"
            )
        if not cfg.prune_penalty_strength > 0:
            raise ValueError(
                "--prune-penalty-strength: expected more than 0, got "
                f"{cfg.prune_penalty_strength}; leave --prune-penalty out for none"
            )
        self._types = pruned_types(cfg)
        tagged = [(tag, p) for p in params if (tag := read_tag(p)) is not None]
        self._weights = [(tag, p) for tag, p in tagged if tag.type in self._types]
        missing = [t for t in self._types if t not in {tag.type for tag, _ in self._weights}]
        if not self._weights:
            present = sorted({tag.type for tag, _ in tagged})
            raise ValueError(
                f"--optimizer pruned: expected weights of type {','.join(self._types)} "
                f"(--prune-types), got a model with {','.join(present) or 'none that are prunable'}"
                "; prune other types, or another model"
            )
        self._others = [(tag, p) for tag, p in tagged if tag.type not in self._types]
        if missing:
            # The default asks for what most models have; who names a type means it.
            is_default = cfg.prune_types == PruningOptions().prune_types
            level = logging.INFO if is_default else logging.WARNING
            text = "no %s weights in this model: nothing of that type is pruned"
            logger.log(level, text, ",".join(missing))
        self._pruner: Pruner | None = None
        self._dropout: FollowingDropout | None = None
        # Whether the best loss that fairseq remembers is of a model that is pruned no further.
        self.best_has_final_masks = False
        self._epochs: dict[str, Any] = {}
        self._is_resumed = False
        self._inner = build_inner(cfg, params)
        self._optimizer = self._inner.optimizer

    def adjust_dropout(self, model: nn.Module) -> None:
        """Lets the dropout of this model follow its density, if --prune-dropout-power says so."""
        power = self.cfg.prune_dropout_power
        try:
            dropout = FollowingDropout(model, power)
        except ValueError as error:
            raise ValueError(f"--prune-dropout-power: {error}") from None
        if power and not dropout.rates:
            logger.warning("--prune-dropout-power %g: this model has no dropout", power)
        self._dropout = dropout if power else None

    def start(self, epoch_lengths: Sequence[int], epochs_before: int = 0) -> None:
        """Fixes the schedule; later calls do nothing.

        `epoch_lengths` are the numbers of updates in the first epochs, of which the last one holds
        for all others; none if they are unknown. `epochs_before` this one were trained with
        another optimizer: updates count from 0 without them, --max-epoch does not.
        """
        if self._pruner is not None:
            if self._is_resumed and epoch_lengths:
                self._is_resumed = False
                self._tell_of_other_epochs(epoch_lengths, epochs_before)
            return
        self._epochs = {"epoch_lengths": list(epoch_lengths), "epochs_before": epochs_before}
        cfg = without_epochs(self.cfg, epochs_before)
        schedules = build_schedules(cfg, self._types, epoch_lengths)
        shapes = block_shapes(cfg, self._types)
        types = [tag.type for tag, _ in self._weights]
        power, score, allocation = worth(
            cfg, [schedules[t] for t in types], [shapes[t] for t in types]
        )
        self._pruner = Pruner(
            self._weights,
            schedules,
            shapes,
            score,
            self.cfg.prune_max_sparsity,
            self.cfg.prune_min_sparsity,
            self.cfg.prune_keep_diagonal,
            allocation,
            power,
        )
        for type_ in self._pruner.types:
            names = ", ".join(w.name for w in self._pruner.of_type(type_))
            logger.info("pruning %s (%s) by %s", type_, names, self._pruner.schedules[type_])
        logger.info("fisher power %g, %s score, %s allocation", power, score, allocation)
        for choice, unread in unread_options(cfg).items():
            logger.warning("%s does not read %s", choice, ", ".join(unread))
        warn_at_start(self._pruner, training_updates(cfg, epoch_lengths))
        warn_of_other_zeros(self._others, "--prune-types leaves them out")
        if self._pruner.sparsity() > 0:
            logger.info("masks start from zeros: sparsity %.4f", self._pruner.sparsity())
        self._follow_density()

    def _tell_of_other_epochs(self, epoch_lengths: Sequence[int], epochs_before: int) -> None:
        """Other batches or more processes make shorter epochs, but the schedule stays as it was."""
        before = self._epochs["epochs_before"], self._epochs["epoch_lengths"], 0
        now = epochs_before, epoch_lengths, self._pruner.updates
        totals = [
            training_updates(without_epochs(self.cfg, epochs), lengths, made)
            for epochs, lengths, made in (before, now)
        ]
        if totals[0] != totals[1]:
            warn_of_the_end(self._pruner, totals[1])

    @property
    def pruner(self) -> Pruner:
        """The masks; the schedule is fixed on first use if `start` was not called."""
        self.start([])
        return self._pruner

    @property
    def optimizer_config(self) -> dict[str, Any]:
        return self._inner.optimizer_config

    @property
    def supports_flat_params(self) -> bool:
        # Blocks and types need the shape of each weight.
        return False

    @property
    def supports_memory_efficient_fp16(self) -> bool:
        # A weight that lives in half precision could underflow to zero and be taken for pruned.
        return False

    def clip_grad_norm(self, max_norm: float, aggregate_norm_fn: Any = None) -> Tensor:
        """Clips the gradients of the weights that are left; the others do not count."""
        self.pruner.mask_gradients()
        return self._inner.clip_grad_norm(max_norm, aggregate_norm_fn)

    def step(self, closure: Any = None, scale: float = 1.0, groups: Any = None) -> None:
        """Makes one update with the inner optimizer, then prunes."""
        self._inner.step(closure, scale, groups)
        self._shrink()
        if self.pruner.step(self._optimizer.state):
            self._follow_density()
        self._log()

    def average_params(self) -> None:
        self._inner.average_params()

    def state_dict(self) -> dict[str, Any]:
        own = {"inner": self.cfg.prune_inner, **self._epochs}
        return {**self._inner.state_dict(), STATE: {**self.pruner.state_dict(), **own}}

    def load_state_dict(
        self, state_dict: dict[str, Any], optimizer_overrides: dict[str, Any] | None = None
    ) -> None:
        state_dict = dict(state_dict)
        pruning = state_dict.pop(STATE, None)
        if pruning is None:
            raise ValueError(
                "--optimizer pruned: expected the checkpoint of a pruned training, got one of a "
                "dense optimizer; start from it with --finetune-from-model and another --save-dir"
            )
        inner = pruning.get("inner", self.cfg.prune_inner)
        if inner != self.cfg.prune_inner:
            raise ValueError(
                f"--prune-inner: expected {inner} as in the checkpoint, got "
                f"{self.cfg.prune_inner}; add --reset-optimizer, which keeps the masks"
            )
        self._inner.load_state_dict(state_dict, optimizer_overrides)
        # The lengths of epochs as the run began: a schedule in epochs must not move on resuming.
        self.start(pruning["epoch_lengths"], pruning.get("epochs_before", 0))
        self._pruner.load_state_dict(pruning)
        self._follow_density()
        self._is_resumed = True
        self.best_has_final_masks = self._pruner.is_final()
        warn_on_resuming(self._pruner)

    def _follow_density(self) -> None:
        if self._dropout is not None:
            self._dropout.follow(1 - self._pruner.sparsity())

    def _shrink(self) -> None:
        """Makes the proximal step of the penalty on weights whose masks are not final."""
        if self.cfg.prune_penalty == "none":
            return
        amount = self.get_lr() * self.cfg.prune_penalty_strength
        for w in self.pruner.weights:
            if not self.pruner.is_final(w.type):
                shrink(w, self.cfg.prune_penalty, amount)

    def _log(self) -> None:
        pruner = self._pruner
        # Weight 0 makes fairseq show the last value rather than a mean.
        metrics.log_scalar("sparsity", pruner.sparsity(), weight=0, priority=700, round=4)
        for i, type_ in enumerate(pruner.types):
            priority = 701 + 2 * i
            sparsity, threshold = pruner.sparsity(type_), pruner.thresholds[type_]
            metrics.log_scalar(f"sparsity_{type_}", sparsity, 0, priority, 4)
            metrics.log_scalar(f"threshold_{type_}", threshold, 0, priority + 1, 6)


def pruned_optimizer(optimizer: FairseqOptimizer) -> PrunedOptimizer | None:
    """The pruned optimizer that this is or, in half precision, holds; None for others."""
    optimizer = getattr(optimizer, "fp32_optimizer", optimizer)
    return optimizer if isinstance(optimizer, PrunedOptimizer) else None
