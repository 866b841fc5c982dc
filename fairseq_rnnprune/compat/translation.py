"""Repairs of fairseq's translation of lines that are typed or come from Python."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from .wrap import wrap_once

logger = logging.getLogger(__name__)


def answer_every_line() -> None:
    """Let no line that is longer than --max-source-positions get lost.

    --truncate-source cuts it, which fairseq 0.12 does in data sets only; without that option it is
    an error, where --skip-invalid-size-inputs-valid-test takes the line out of the answers of
    fairseq-interactive and of a model's translate().
    """
    from fairseq.tasks.translation import TranslationTask

    def make(original: Callable) -> Callable:
        def build_dataset_for_inference(
            self: Any, src_tokens: list, src_lengths: Any, *args: Any, **kwargs: Any
        ) -> Any:
            limit = self.cfg.max_source_positions
            longest = max(map(len, src_tokens), default=0)
            if longest > limit:
                count = sum(len(tokens) > limit for tokens in src_tokens)
                found = f"{count} of {len(src_tokens)} longer, the longest of {longest}"
                if not self.cfg.truncate_source:
                    raise ValueError(
                        f"translation: expected lines of at most {limit} tokens, got {found}; cut "
                        "them with --truncate-source or set --max-source-positions"
                    )
                logger.warning("lines cut to %d tokens: %s", limit, found)
                src_tokens = [_cut(tokens, limit) for tokens in src_tokens]
                src_lengths = torch.tensor([len(tokens) for tokens in src_tokens])
            return original(self, src_tokens, src_lengths, *args, **kwargs)

        return build_dataset_for_inference

    wrap_once(TranslationTask, "build_dataset_for_inference", make)


def _cut(tokens: torch.Tensor, limit: int) -> torch.Tensor:
    """The first tokens and the last one, which ends the sentence."""
    return tokens if len(tokens) <= limit else torch.cat([tokens[: limit - 1], tokens[-1:]])
