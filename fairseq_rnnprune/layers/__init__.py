"""Recurrent and linear layers that train dense and run packed at inference (torch only)."""

from fairseq_rnnprune.sparse import valid_frames

from .batch_norm import FrameBatchNorm
from .clipped_recurrence import CEILING
from .gru import GRU
from .linear import Linear, make_packable
from .lookahead import Lookahead
from .packable import release_dense
from .packing import PACKED_CHOICES, explain_packing, reason_without_packed_form
from .rnn import ClippedRNN

__all__ = [
    "CEILING",
    "GRU",
    "PACKED_CHOICES",
    "ClippedRNN",
    "FrameBatchNorm",
    "Linear",
    "Lookahead",
    "explain_packing",
    "make_packable",
    "reason_without_packed_form",
    "release_dense",
    "valid_frames",
]
