"""Repairs of fairseq 0.12 on current numpy, torch and hydra.

Each repair is a small function that says what breaks and since when; it changes nothing where
nothing is broken, and may run any number of times.
"""

from __future__ import annotations

from .averaging import copy_counts_to_averages
from .data import (
    batch_as_in_the_first_epoch,
    keep_last_batch,
    refuse_empty_evaluation,
    restore_numpy_compat,
)
from .help import complete_help
from .loading import load_packed_files, trust_checkpoint_classes
from .messages import explain_bf16, explain_unknown_model
from .quiet import silence_hydra
from .requirement import require_fairseq
from .saving import copy_checkpoints_whole
from .text import check_sentencepiece_models, name_text_that_is_not_utf8
from .translation import answer_every_line, log_bleu_of_empty_text

__all__ = ["REPAIRS", "apply", "require_fairseq"]

REPAIRS = (
    silence_hydra,
    restore_numpy_compat,
    trust_checkpoint_classes,
    load_packed_files,
    copy_checkpoints_whole,
    keep_last_batch,
    batch_as_in_the_first_epoch,
    refuse_empty_evaluation,
    explain_bf16,
    explain_unknown_model,
    complete_help,
    answer_every_line,
    log_bleu_of_empty_text,
    name_text_that_is_not_utf8,
    check_sentencepiece_models,
    copy_counts_to_averages,
)


def apply() -> None:
    """Import fairseq and repair it; ImportError if there is no fairseq that imports."""
    require_fairseq()
    for repair in REPAIRS:
        repair()
