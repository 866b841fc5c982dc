"""Recurrent and linear layers that train dense and run packed at inference (torch only)."""

from .gru import GRU
from .linear import Linear
from .packing import PACKED_CHOICES, choose_block_shape, explain_packing

__all__ = ["GRU", "PACKED_CHOICES", "Linear", "choose_block_shape", "explain_packing"]
