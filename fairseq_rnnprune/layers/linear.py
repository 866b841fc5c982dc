"""Linear: torch.nn.Linear that can run packed at inference."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fairseq_rnnprune.sparse import SparseLinear, choose_block_shape

from .packable import Packable
from .packing import check_choice


class Linear(Packable, nn.Linear):
    """torch.nn.Linear: its arguments, parameters, initialisation and forward, until packed.

    The weight may be tied to an embedding, which stays dense. `packed` is one of PACKED_CHOICES,
    obeyed by `pack`.
    """

    def __init__(self, *args: Any, packed: str = "auto", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.packed = check_choice(packed, "the option packed")
        self.sparse = None

    def forward(self, input: Tensor) -> Tensor:
        """As torch.nn.Linear's."""
        return super().forward(input) if self.sparse is None else self.sparse(input)

    def _packed_copy(self, dtype: torch.dtype) -> SparseLinear:
        shape = choose_block_shape(self.weight, 1, dtype)
        return SparseLinear.from_dense(self, shape, dtype)


def make_packable(module: nn.Module, packed: str = "auto") -> None:
    """Puts a Linear with the same parameters in the place of every torch.nn.Linear in a module.

    In torch's TransformerEncoderLayer the packed copy would not run in evaluation: it reads the
    weights of its linear layers itself.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                # On no device: drawing weights would change what is drawn after it.
                linear = Linear(child.in_features, child.out_features, packed=packed, device="meta")
                linear.weight, linear.bias = child.weight, child.bias
                linear.train(child.training)
                setattr(parent, name, linear)
