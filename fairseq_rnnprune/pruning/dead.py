"""Warnings of rows and gates that have lost every weight."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from .masked_weight import MaskedWeight

logger = logging.getLogger(__name__)


class DeadWatch:
    """Knows how many rows and gates of every weight are wholly pruned, and warns of new ones."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def note(self, weights: Iterable[MaskedWeight]) -> None:
        """Takes what is dead for known, without a warning."""
        self._known = {w.name: (w.dead_rows(), w.dead_gates()) for w in weights}

    def warn(self, weights: Iterable[MaskedWeight]) -> None:
        """Warns of what has died since the last call."""
        before = self._known
        weights = list(weights)
        self.note(weights)
        for w in weights:
            rows, gates = self._known[w.name]
            known_rows, known_gates = before.get(w.name, (0, 0))
            if gates > known_gates:
                logger.warning("%s: %d of %d gates are wholly pruned", w.name, gates, w.gates)
            elif rows > known_rows:
                logger.warning("%s: %d of %d rows are wholly pruned", w.name, rows, len(w.weight))
