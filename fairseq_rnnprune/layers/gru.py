"""GRU: torch.nn.GRU that can run packed at inference."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_rnnprune.sparse import SparseGRU, choose_block_shape

from .packing import Packable, check_choice


class GRU(Packable, nn.GRU):
    """torch.nn.GRU: its arguments, parameters, initialisation and fused forward, until packed.

    Once packed, `forward` runs a SparseGRU at every batch size: as long as `auto` chose to pack,
    that is faster from batch 1 to 512 on CPUs; on GPUs it was not measured. `packed` is one of
    PACKED_CHOICES, obeyed by `pack`.
    """

    _gates = 3

    def __init__(self, *args: Any, packed: str = "auto", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.packed = check_choice(packed, "the option packed")
        self.sparse = None

    def forward(self, input: Tensor, hx: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As torch.nn.GRU's."""
        if self.sparse is None:
            return super().forward(input, hx)
        return self.sparse(input, hx)

    def _weights(self) -> list[Tensor]:
        return [weight.detach() for name, weight in self.named_parameters() if "weight" in name]

    def _packed_copy(self, dtype: torch.dtype) -> SparseGRU:
        return SparseGRU.from_dense(self, partial(choose_block_shape, dtype=dtype), dtype)
