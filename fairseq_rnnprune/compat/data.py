"""Repairs of fairseq's data sets and batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .wrap import wrap_once


def restore_numpy_compat() -> None:
    """Give numpy back `np.compat.long`, which numpy 2 removed.

    TokenBlockDataset and LanguagePairDataset use it as a dtype.
    """
    if not hasattr(np, "compat"):
        np.compat = SimpleNamespace(long=int)


def keep_last_batch() -> None:
    """Keep the last batch when its size is no multiple of --required-batch-size-multiple.

    fairseq 0.12 drops it without a word, so that with the default of 8 fairseq-generate
    translates 144 of 150 sentences; it also fails on an empty list of indices.
    """
    from fairseq.data import data_utils

    def batch_by_size(
        original: Callable, indices: Iterable[int], *args: Any, **kwargs: Any
    ) -> list:
        if not isinstance(indices, np.ndarray):
            indices = np.fromiter(indices, dtype=np.int64)
        if len(indices) == 0:
            return []
        batches = original(indices, *args, **kwargs)
        # Batches of fixed shapes (for TPUs) are cut by other rules.
        if kwargs.get("fixed_shapes") is not None:
            return batches
        rest = indices[sum(map(len, batches)) :]
        return [*batches, rest] if len(rest) else batches

    wrap_once(data_utils, "batch_by_size", batch_by_size)


def batch_as_in_the_first_epoch() -> None:
    """Give a resumed training the batches of the one that was stopped.

    fairseq 0.12 makes batches once and keeps them for all epochs, but draws them with the epoch in
    which the process begins: resumed in the second epoch or later, a training saw some samples
    twice in that epoch and others never.
    """
    from fairseq.tasks import FairseqTask

    def get_batch_iterator(
        original: Callable, self: Any, dataset: Any, *args: Any, **kwargs: Any
    ) -> Any:
        options = ("disable_iterator_cache", "update_epoch_batch_itr")
        # fairseq's tasks for wav2vec 2 make batches anew, too.
        rebuilds = getattr(getattr(self, "cfg", None), "rebuild_batches", False)
        made_anew = rebuilds or any(kwargs.get(option) for option in options)
        if not made_anew and self.can_reuse_epoch_itr(dataset):
            # A resumed iterator then takes its epoch from the checkpoint.
            kwargs["epoch"] = 1
        return original(self, dataset, *args, **kwargs)

    wrap_once(FairseqTask, "get_batch_iterator", get_batch_iterator)


def refuse_empty_evaluation() -> None:
    """Refuse to evaluate a language model when every sample is longer than the model allows.

    fairseq 0.12 skips such samples, here all of them, and prints perplexity 1.00 over 0 tokens.
    """
    from fairseq.tasks.language_modeling import LanguageModelingTask

    def eval_lm_dataloader(
        original: Callable, self: Any, dataset: Any, *args: Any, **kwargs: Any
    ) -> Any:
        batches = original(self, dataset, *args, **kwargs)
        if len(batches) == 0:
            limit = kwargs.get("max_positions")
            raise ValueError(
                f"eval_lm: expected samples of at most {limit} tokens, the model's "
                f"max_positions, got 0 among {len(dataset)} samples; "
                f"set --tokens-per-sample to {limit} or less, or choose another --gen-subset"
            )
        return batches

    wrap_once(LanguageModelingTask, "eval_lm_dataloader", eval_lm_dataloader)
