"""Reads trained models: checkpoints of fairseq, and files of `rnnprune export`."""

from .contents import Checkpoint, checkpoint_of, read_checkpoint
from .file import checkpoint_globals, load_state
from .packed_file import is_exported, is_packed_file, read_packed_file, write_packed_file

__all__ = [
    "Checkpoint",
    "checkpoint_globals",
    "checkpoint_of",
    "is_exported",
    "is_packed_file",
    "load_state",
    "read_checkpoint",
    "read_packed_file",
    "write_packed_file",
]
