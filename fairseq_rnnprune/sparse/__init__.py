"""How pruned weights run: packed matrices, their backends, and recurrent layers (torch only)."""

from .dispatch import (
    available_backends,
    choose_backend,
    explain,
    gru_sequence,
    matmul,
    rnn_sequence,
)
from .lengths import check_lengths, last_valid, reverse_valid, valid_frames, zero_padding
from .linear import SparseLinear
from .matrix import BlockShape, BlockSparseMatrix
from .recurrent import SparseGRU, SparseRNN
from .shapes import choose_block_shape, keeps_diagonal, stored_values

__all__ = [
    "BlockShape",
    "BlockSparseMatrix",
    "SparseGRU",
    "SparseLinear",
    "SparseRNN",
    "available_backends",
    "check_lengths",
    "choose_backend",
    "choose_block_shape",
    "explain",
    "gru_sequence",
    "keeps_diagonal",
    "last_valid",
    "matmul",
    "reverse_valid",
    "rnn_sequence",
    "stored_values",
    "valid_frames",
    "zero_padding",
]
