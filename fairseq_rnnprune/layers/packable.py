"""What prunable layers share: packing for inference, and what must not happen afterwards."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_rnnprune.sparse import SparseLinear

from .packing import DTYPES, check_choice, describe, reason_before_packing, resolve_choice

logger = logging.getLogger(__name__)


class Packable(nn.Module, ABC):
    """What prunable layers share: dense parameters and, once packed, a copy of them that runs.

    Parameters and state dict are the same before and after packing. The copy does not follow a
    change of them, so training mode and loading a state dict drop it. `release_dense` is for who
    only runs the copy: it drops the parameters instead.
    """

    packed: str
    sparse: nn.Module | None
    is_released = False
    # The choice, the name and the device of the last packing.
    _packed_as: tuple[str, str, torch.device]
    # Row groups that no block may straddle.
    gates = 1
    is_recurrent = False

    def weights(self) -> list[Tensor]:
        """Every weight [M, K] that the packed copy holds, detached."""
        return [p.detach() for p in self._weight_parameters()]

    def _weight_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters(recurse=False) if "weight" in name]

    @abstractmethod
    def _packed_copy(self, dtype: torch.dtype) -> nn.Module:
        """The layer with its weights packed as `dtype`."""

    def pack(self, choice: str | None = None, name: str = "") -> None:
        """Packs the layer for inference or leaves it dense, and logs which of both and why.

        choice: one of PACKED_CHOICES; None asks the option `packed`, then the environment. fp32,
        bf16, int16 and int8 always pack; auto packs fp32 where that is faster, on GPUs where it is
        thought to be. ValueError for another choice and for weights with NaN or inf.
        """
        choice = resolve_choice(self.packed) if choice is None else check_choice(choice, "choice")
        self._check_has_dense("pack")
        self.sparse, outcome = self._pack_as(choice)
        self._packed_as = (choice, name, self.weights()[0].device)
        logger.info("%s (packed=%s): %s", name or type(self).__name__, choice, outcome)

    def _pack_as(self, choice: str) -> tuple[nn.Module | None, str]:
        """The packed copy, or None to stay dense, and a line that describes or explains it."""
        if reason := reason_before_packing(choice, self.weights(), self.gates, self.is_recurrent):
            return None, reason
        sparse = self._packed_copy(DTYPES[choice])
        matrices = [part.W for part in sparse.modules() if isinstance(part, SparseLinear)]
        is_packed, outcome = describe(matrices, choice)
        return sparse if is_packed else None, outcome

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Packable:
        """As in torch; a layer that moves is packed anew, for shapes of blocks fit one device."""
        super()._apply(fn, recurse)
        if self.sparse is None:
            return self
        choice, name, device = self._packed_as
        here = self.weights()[0].device
        if here != device and not self.is_released:
            self.pack(choice, name)
        elif here != device:
            logger.warning(
                "%s: packed on %s, where its dense weights were released, and moved to %s, where "
                "its blocks may have no fast kernel; move it before release_dense",
                *(name or type(self).__name__, device, here),
            )
            self._packed_as = (choice, name, here)
        return self

    def make_generation_fast_(
        self, name: str = "", retain_dropout: bool = False, **kwargs: Any
    ) -> None:
        """fairseq's hook, called when a loaded model is about to generate: packs the layer."""
        if retain_dropout and getattr(self, "dropout", 0.0):
            logger.warning(
                "%s: --retain-dropout keeps the dropout around recurrent layers, not that between "
                "them",
                name or type(self).__name__,
            )
        self.pack(name=name)

    def train(self, mode: bool = True) -> Packable:
        """As in torch; training drops the packed copy."""
        if mode:
            self._check_has_dense("train")
            self.sparse = None
        return super().train(mode)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._check_has_dense("load_state_dict")
        self.sparse = None
        super()._load_from_state_dict(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """As in torch, without the packed copy: a checkpoint is a dense one."""
        found = super().state_dict(*args, **kwargs)
        copy = kwargs.get("prefix", "") + "sparse."
        for name in [name for name in found if name.startswith(copy)]:
            del found[name]
        return found

    def _save_to_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._check_has_dense("state_dict")
        super()._save_to_state_dict(*args, **kwargs)

    def _check_has_dense(self, action: str) -> None:
        if self.is_released:
            raise ValueError(
                f"{action}: expected a layer with its dense weights, got one of which "
                "release_dense has left the packed ones; load the model anew"
            )


def release_dense(model: nn.Module) -> int:
    """Frees the dense weights of packed layers that only they use; returns the bytes freed.

    For a process that does nothing but run the model: its packed layers can no longer be packed
    anew, trained, saved or loaded into (ValueError). Biases stay, and so do tied weights.
    """
    uses = Counter(id(p) for m in model.modules() for p in m._parameters.values())
    freed = 0
    for layer in model.modules():
        if not isinstance(layer, Packable) or layer.sparse is None or layer.is_released:
            continue
        own = [p for p in layer._weight_parameters() if uses[id(p)] == 1]
        for parameter in own:
            freed += parameter.nbytes
            parameter.data = parameter.data.new_empty(0)
        layer.is_released = bool(own)
    return freed
