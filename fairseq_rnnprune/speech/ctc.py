"""Decoding of CTC outputs by their best path, and what decoders share.

Log-probabilities are natural logarithms [T, C], a numpy array or a tensor on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

NEVER = -math.inf


class Hypothesis(NamedTuple):
    """A labelling; `frames` holds, by token, the frame in which its best path first emits it."""

    tokens: tuple[int, ...]
    score: float
    frames: tuple[int, ...]


class GreedySearch:
    """The labelling of the best path (arXiv 1408.2873, section 3); its score is that path's.

    `forbidden` tokens are never emitted; a frame that allows nothing else counts as blank.
    """

    def __init__(self, blank: int = 0, forbidden: Sequence[int] = ()):
        self._blank, self._forbidden = blank, list(forbidden)
        self._tokens: list[int] = []
        self._frames: list[int] = []
        self._score, self._last, self._time = 0.0, blank, 0

    def push(self, log_probs: Any) -> None:
        """Takes further frames [t, C]; ValueError if they hold no log-probabilities."""
        rows = checked("GreedySearch", log_probs, self._blank, self._forbidden)
        if not len(rows):
            return
        best = rows.argmax(axis=1)
        before = np.concatenate([[self._last], best[:-1]])
        starts = np.flatnonzero((best != self._blank) & (best != before))
        self._tokens += best[starts].tolist()
        self._frames += (self._time + starts).tolist()
        self._score += float(rows.max(axis=1).sum())
        self._last, self._time = int(best[-1]), self._time + len(rows)

    def results(self, nbest: int = 1, final: bool = True) -> list[Hypothesis]:
        """The one labelling there is so far."""
        return [Hypothesis(tuple(self._tokens), self._score, tuple(self._frames))]


def greedy(log_probs: Any, blank: int = 0, forbidden: Sequence[int] = ()) -> Hypothesis:
    """The labelling of the best path of log_probs [T, C]; see GreedySearch."""
    search = GreedySearch(blank, forbidden)
    search.push(log_probs)
    return search.results()[0]


def checked(name: str, log_probs: Any, blank: int, forbidden: list[int]) -> np.ndarray:
    """A copy in float64 in which forbidden tokens have no probability.

    ValueError for what is no log-probabilities of one utterance.
    """
    rows = np.array(log_probs, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] <= blank:
        raise ValueError(
            f"{name}: expected log-probabilities [T, C] with C > {blank}, the blank, got the shape "
            f"{list(rows.shape)}; give one utterance"
        )
    if rows.size and not rows.max() < 1e-3:
        raise ValueError(
            f"{name}: expected log-probabilities <= 0, got {rows.max()}; apply log_softmax to "
            "finite logits"
        )
    rows[:, forbidden] = NEVER
    rows[rows.max(axis=1, initial=NEVER) == NEVER, blank] = 0.0
    return rows
