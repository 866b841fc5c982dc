"""How pruned weights run: packed matrices, their backends, and recurrent layers (torch only)."""

from .dispatch import available_backends, choose_backend, explain, gru_sequence, matmul
from .linear import SparseLinear
from .matrix import BlockShape, BlockSparseMatrix
from .recurrent import SparseGRU
from .shapes import choose_block_shape, stored_values

__all__ = [
    "BlockShape",
    "BlockSparseMatrix",
    "SparseGRU",
    "SparseLinear",
    "available_backends",
    "choose_backend",
    "choose_block_shape",
    "explain",
    "gru_sequence",
    "matmul",
    "stored_values",
]
