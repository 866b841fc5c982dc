"""SparseLinear: drop-in for torch.nn.Linear at inference."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .arguments import check_bias, check_matrix, not_compiled
from .dispatch import matmul
from .matrix import BlockShape, BlockSparseMatrix


class SparseLinear(nn.Module):
    """A packed weight [M, K] and bias [M]: x [..., K] to [..., M], in x's dtype.

    Its state dict holds the packed arrays and the bias, for a layer of the same size, however that
    is packed; PyTorch calls it an extra state. `.to(device)` moves the arrays; their dtype was
    chosen at packing, and `.half()` and the like leave it. For inference: no gradient.
    """

    def __init__(
        self, W: BlockSparseMatrix, bias: Tensor | None = None, backend: str | None = None
    ):
        super().__init__()
        check_matrix("SparseLinear", W)
        self.W = W
        # A copy, as W is one: who trains the dense layer on would change a part of this one.
        self.bias = None if bias is None else bias.detach().to(torch.float32, copy=True)
        self.backend = backend

    @classmethod
    def from_dense(
        cls,
        linear: nn.Linear,
        block_shape: BlockShape = (16, 1),
        dtype: torch.dtype = torch.float32,
        backend: str | None = None,
    ) -> SparseLinear:
        """Packs any torch.nn.Linear; errors as in BlockSparseMatrix.from_dense."""
        if not isinstance(linear, nn.Linear):
            raise TypeError(
                f"SparseLinear.from_dense: expected a torch.nn.Linear, got {type(linear).__name__}"
            )
        return cls(
            BlockSparseMatrix.from_dense(linear.weight, block_shape, dtype), linear.bias, backend
        )

    @not_compiled
    def forward(self, x: Tensor) -> Tensor:
        """x [..., K] to [..., M]; errors as in `matmul`."""
        # At a batch of one a view or a conversion that changes nothing takes as long as a product.
        # What is no matrix and cannot become one is refused there.
        is_matrix = not isinstance(x, Tensor) or x.dim() in (0, 2)
        rows = x if is_matrix else x.reshape(-1, x.shape[-1])
        y = matmul(self.W, rows, self.bias, self.backend)
        if not is_matrix:
            y = y.view(*x.shape[:-1], y.shape[1])
        return y if x.dtype is y.dtype else y.to(x.dtype)

    def get_extra_state(self) -> dict[str, Any]:
        """What torch's state_dict keeps of this layer."""
        return {"weight": self.W.state(), "bias": self.bias}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Copies the arrays of another layer; ValueError if they are of another size or broken."""
        if not (isinstance(state, dict) and state.keys() == {"weight", "bias"}):
            raise ValueError("SparseLinear: expected the state of a SparseLinear, got another one")
        W, bias = BlockSparseMatrix.from_state(copy.deepcopy(state["weight"])), state["bias"]
        here, there = ((m.shape, m.gates) for m in (self.W, W))
        if here != there or (bias is None) != (self.bias is None):
            raise ValueError(
                f"SparseLinear: expected a state of {self._described(self.W, self.bias)}, got one "
                f"of {self._described(W, bias)}"
            )
        if bias is not None:
            check_bias("SparseLinear", bias, W)
            self.bias = bias.to(self.W.device, torch.float32, copy=True)
        self.W = W.to(self.W.device)

    @staticmethod
    def _described(W: BlockSparseMatrix, bias: Tensor | None) -> str:
        return f"{list(W.shape)} in {W.gates} gates with{'out' if bias is None else ''} bias"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SparseLinear:
        # fn is what .to(), .half() or .cuda() do to a tensor; only its device concerns us.
        device = fn(torch.empty(0, device=self.W.device)).device
        if device != self.W.device:
            self.W = self.W.to(device)
            self.bias = None if self.bias is None else self.bias.to(device)
        return super()._apply(fn, recurse)

    def extra_repr(self) -> str:
        return f"{self.W!r}, bias={self.bias is not None}"
