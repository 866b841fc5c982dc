"""Repairs of fairseq's translation task: lines that are typed, and BLEU of empty text."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from .wrap import wrap_once

logger = logging.getLogger(__name__)

# Text in the pieces of the training data has almost none, that of another model mostly.
MAX_UNKNOWN = 0.2


def answer_every_line() -> None:
    """Let no line that is longer than --max-source-positions get lost.

    --truncate-source cuts it, which fairseq 0.12 does in data sets only; without that option it is
    an error, where --skip-invalid-size-inputs-valid-test takes the line out of the answers of
    fairseq-interactive and of a model's translate(). Lines of many unknown tokens get a warning.
    """
    from fairseq.tasks.translation import TranslationTask

    def build_dataset_for_inference(
        original: Callable, self: Any, src_tokens: list, src_lengths: Any, *args: Any, **kwargs: Any
    ) -> Any:
        limit = self.cfg.max_source_positions
        longest = max(src_tokens, key=len, default=())
        if len(longest) > limit:
            count = sum(len(tokens) > limit for tokens in src_tokens)
            start = self.source_dictionary.string(longest[:8])
            found = (
                f"{count} of {len(src_tokens)} longer, the longest of {len(longest)}: {start} ..."
            )
            if not self.cfg.truncate_source:
                raise ValueError(
                    f"translation: expected lines of at most {limit} tokens, got {found}; cut "
                    "them with --truncate-source or set --max-source-positions"
                )
            logger.warning("lines cut to %d tokens: %s", limit, found)
            src_tokens = [_cut(tokens, limit) for tokens in src_tokens]
            src_lengths = torch.tensor([len(tokens) for tokens in src_tokens])
        _warn_of_unknown(src_tokens, self.source_dictionary)
        return original(self, src_tokens, src_lengths, *args, **kwargs)

    wrap_once(TranslationTask, "build_dataset_for_inference", build_dataset_for_inference)


def log_bleu_of_empty_text() -> None:
    """Let --best-checkpoint-metric bleu find its metric where a model still says nothing.

    With --eval-bleu, fairseq 0.12 logs no bleu if all translations of a validation are empty:
    KeyError: 'bleu'.
    """
    from fairseq.logging import metrics
    from fairseq.tasks.translation import TranslationTask

    def reduce_metrics(
        original: Callable, self: Any, logging_outputs: list, criterion: Any
    ) -> None:
        original(self, logging_outputs, criterion)
        # Training logs no lengths. fairseq's own bleu stays where it has logged it.
        if any("_bleu_sys_len" in log for log in logging_outputs):
            metrics.log_derived("bleu", _bleu)

    wrap_once(TranslationTask, "reduce_metrics", reduce_metrics)


def _bleu(meters: Any) -> float:
    """BLEU of the batches so far, as fairseq computes it: later ones may have text."""
    if "_bleu_counts" not in meters:
        return 0.0
    from sacrebleu.metrics import BLEU

    score = BLEU.compute_bleu(
        correct=meters["_bleu_counts"].sum,
        total=meters["_bleu_totals"].sum,
        sys_len=int(meters["_bleu_sys_len"].sum),
        ref_len=int(meters["_bleu_ref_len"].sum),
        smooth_method="exp",
    )
    return round(score.score, 2)


def _warn_of_unknown(lines: list[torch.Tensor], dictionary: Any) -> None:
    # The end of a sentence is always known.
    total = sum(int((tokens != dictionary.eos()).sum()) for tokens in lines)
    unknown = sum(int((tokens == dictionary.unk()).sum()) for tokens in lines)
    if unknown > MAX_UNKNOWN * total:
        logger.warning(
            "%d of %d source tokens are unknown: is this the sentencepiece model of the training "
            "data?",
            unknown,
            total,
        )


def _cut(tokens: torch.Tensor, limit: int) -> torch.Tensor:
    """The first tokens and the last one, which ends the sentence."""
    return tokens if len(tokens) <= limit else torch.cat([tokens[: limit - 1], tokens[-1:]])
