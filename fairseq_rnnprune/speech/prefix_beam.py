"""Prefix beam search over CTC outputs, whole or frame by frame, alone or with a language model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import numpy as np

from .ctc import NEVER, Hypothesis, checked

if TYPE_CHECKING:
    from .fusion import LanguageModel

# Emission below exp(-10) = 0.00005 is not tried: it takes a frame's work from 32 tokens to a few.
TOKEN_THRESHOLD = -10.0


class _Prefix:
    """A labelling as a node of a tree; the same labelling is the same node while it is in use."""

    __slots__ = ("__weakref__", "_children", "parent", "token")

    def __init__(self, parent: _Prefix | None, token: int):
        self.parent, self.token = parent, token
        self._children: WeakValueDictionary[int, _Prefix] | None = None

    def child(self, token: int) -> _Prefix:
        if self._children is None:
            self._children = WeakValueDictionary()
        found = self._children.get(token)
        if found is None:
            found = self._children[token] = _Prefix(self, token)
        return found

    def tokens(self) -> tuple[int, ...]:
        tokens, node = [], self
        while node.parent is not None:
            tokens.append(node.token)
            node = node.parent
        return tuple(reversed(tokens))


class PrefixBeamSearch:
    """Prefix beam search (arXiv 1408.2873, algorithm 1), in logarithms, frame by frame.

    The score of a labelling is the log of the summed probability of its paths within the beam,
    plus `lm_weight` times its log-probability in the language model, end of sentence included,
    plus `length_bonus` per token. Tokens below `token_threshold` (log-probability) do not extend
    a prefix in that frame; -inf tries them all. `forbidden` tokens are never emitted.
    """

    def __init__(
        self,
        beam: int,
        blank: int = 0,
        forbidden: Sequence[int] = (),
        language_model: LanguageModel | None = None,
        lm_weight: float = 0.0,
        length_bonus: float = 0.0,
        token_threshold: float = TOKEN_THRESHOLD,
    ):
        _check_options(beam, lm_weight, length_bonus, token_threshold)
        self._beam, self._blank, self._forbidden = beam, blank, list(forbidden)
        # A weight of 0 times a log-probability of -inf would not be 0.
        self._lm = language_model if lm_weight else None
        self._lm_weight, self._bonus, self._threshold = lm_weight, length_bonus, token_threshold
        self._time = 0
        # A column or an entry of a list per prefix in the beam. Rows: log-probability of all paths
        # that end in blank, of all others, and of the best one of either kind.
        self._prefixes = [_Prefix(None, blank)]
        self._paths = np.array([[0.0], [NEVER], [0.0], [NEVER]])
        # When the best path of either kind emitted its tokens: (earlier times, time) or None.
        self._times: list[tuple[Any, Any]] = [(None, None)]
        self._text = np.zeros(1)
        self._states = [] if self._lm is None else [self._lm.start()]
        self._lm_scores = None if self._lm is None else self._lm.score(self._states)

    def push(self, log_probs: Any) -> None:
        """Takes further frames [t, C]; ValueError if they hold no log-probabilities."""
        rows = checked("PrefixBeamSearch", log_probs, self._blank, self._forbidden)
        for row in rows:
            emitted = row >= max(self._threshold, -1e300)
            emitted[self._blank] = False
            self._step(row, np.flatnonzero(emitted))
            self._time += 1

    def results(self, nbest: int = 1, final: bool = True) -> list[Hypothesis]:
        """Up to `nbest` labellings, best first; `final`: the sentence ends here."""
        scores = np.logaddexp(self._paths[0], self._paths[1]) + self._text
        if final and self._lm is not None:
            scores = scores + self._lm_weight * self._lm_scores[:, self._lm.end]
        found = []
        for slot in np.argsort(-scores, kind="stable")[:nbest].tolist():
            times, frames = self._best_times(slot), []
            while times is not None:
                times, frame = times
                frames.append(frame)
            tokens = self._prefixes[slot].tokens()
            found.append(Hypothesis(tokens, float(scores[slot]), tuple(reversed(frames))))
        return found

    def _step(self, row: np.ndarray, kept: np.ndarray) -> None:
        """One frame: every prefix stays as it is or is extended by one of the `kept` tokens."""
        blank, other, best_blank, best_other = self._paths
        total, best = np.logaddexp(blank, other), np.maximum(best_blank, best_other)
        last = np.array([prefix.token for prefix in self._prefixes])
        repeated = row[last]
        stay = np.stack([total + row[self._blank], other + repeated, best, best_other + repeated])
        stay[2] += row[self._blank]
        grown = np.full((4, len(last), len(kept)), NEVER)
        grown[1], grown[3] = total[:, None] + row[kept], best[:, None] + row[kept]
        # The same token again is a second one only after a blank.
        column = np.full(len(row), -1)
        column[kept] = np.arange(len(kept))
        column = column[last]
        slots = np.flatnonzero(column >= 0)
        grown[1, slots, column[slots]] = (blank + repeated)[slots]
        grown[3, slots, column[slots]] = (best_blank + repeated)[slots]
        origins = self._merge(stay, grown, column)

        text = np.repeat((self._text + self._bonus)[:, None], len(kept), axis=1)
        if self._lm is not None:
            text += self._lm_weight * self._lm_scores[:, kept]
        text = np.concatenate([self._text, text.ravel()])
        paths = np.concatenate([stay, grown.reshape(4, -1)], axis=1)
        scores = np.logaddexp(paths[0], paths[1]) + text
        chosen = np.argsort(-scores, kind="stable")[: self._beam]
        chosen = chosen[scores[chosen] > NEVER]
        # A frame that allows nothing, by rules of the language model say, is passed over.
        if len(chosen):
            self._follow(chosen.tolist(), kept.tolist(), origins)
            self._paths, self._text = paths[:, chosen], text[chosen]

    def _merge(self, stay: np.ndarray, grown: np.ndarray, column: np.ndarray) -> dict[int, int]:
        """Adds the paths that grow into a prefix of the beam to that prefix.

        Returns slot -> slot of the shorter prefix, where the best path comes from there.
        """
        slot_of = {prefix: slot for slot, prefix in enumerate(self._prefixes)}
        origins = {}
        for slot, prefix in enumerate(self._prefixes):
            origin = slot_of.get(prefix.parent)
            if origin is None or column[slot] < 0:
                continue
            paths = grown[:, origin, column[slot]]
            stay[1, slot] = np.logaddexp(stay[1, slot], paths[1])
            if paths[3] > stay[3, slot]:
                stay[3, slot] = paths[3]
                origins[slot] = origin
            paths[:] = NEVER
        return origins

    def _follow(self, chosen: list[int], kept: list[int], origins: dict[int, int]) -> None:
        """Makes the chosen candidates, at first those that stay, then those that grow, the beam."""
        count = len(self._prefixes)
        prefixes, times, olds, fresh = [], [], [], []
        for candidate in chosen:
            if candidate < count:
                old, prefix = candidate, self._prefixes[candidate]
                others = self._times[old][1]
                if old in origins:
                    others = self._emission(origins[old], prefix.token)
                times.append((self._best_times(old), others))
            else:
                old, which = divmod(candidate - count, len(kept))
                prefix = self._prefixes[old].child(kept[which])
                times.append((None, self._emission(old, prefix.token)))
                fresh.append(len(prefixes))
            prefixes.append(prefix)
            olds.append(old)
        self._prefixes, self._times = prefixes, times
        if self._lm is None:
            return
        self._states = [self._states[old] for old in olds]
        self._lm_scores = self._lm_scores[olds]
        if fresh:
            states = [self._states[slot] for slot in fresh]
            states = self._lm.advance(states, [prefixes[slot].token for slot in fresh])
            self._lm_scores[fresh] = self._lm.score(states)
            for slot, state in zip(fresh, states, strict=True):
                self._states[slot] = state

    def _best_times(self, slot: int) -> Any:
        """The times of emission on the best path of a prefix."""
        return self._times[slot][int(self._paths[3, slot] > self._paths[2, slot])]

    def _emission(self, slot: int, token: int) -> Any:
        """The times of a prefix, and now; after the same token only those that end in a blank."""
        same = token == self._prefixes[slot].token
        return self._times[slot][0] if same else self._best_times(slot), self._time


def prefix_beam_search(
    log_probs: Any, beam: int, blank: int = 0, *, nbest: int = 1, **options: Any
) -> list[Hypothesis]:
    """Up to `nbest` labellings of log_probs [T, C], best first; options of PrefixBeamSearch."""
    search = PrefixBeamSearch(beam, blank, **options)
    search.push(log_probs)
    return search.results(nbest)


def _check_options(beam: int, lm_weight: float, bonus: float, threshold: float) -> None:
    if beam < 1:
        raise ValueError(f"PrefixBeamSearch: expected a beam >= 1, got {beam}")
    if not 0 <= lm_weight < math.inf:
        raise ValueError(f"PrefixBeamSearch: expected a finite lm_weight >= 0, got {lm_weight}")
    if not math.isfinite(bonus):
        raise ValueError(f"PrefixBeamSearch: expected a finite length_bonus, got {bonus}")
    if not threshold <= 0:
        raise ValueError(f"PrefixBeamSearch: expected a token_threshold <= 0, got {threshold}")
