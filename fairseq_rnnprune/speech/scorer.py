"""Character and word error rate for fairseq-generate: `--scoring cer_wer`."""

from dataclasses import dataclass
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.scoring import BaseScorer

from fairseq_rnnprune.speech import require

from .units import SPACE, CharacterUnits, SentencePieceUnits


@dataclass
class CERScorerConfig(FairseqDataclass):
    """`cer_wer` has no options."""


class CERScorer(BaseScorer):
    """Edits over reference length, summed over all utterances, in percent.

    Characters are those of the text without blanks around it, and blanks within count, each of
    several in a row as well (as in jiwer); words are what blanks separate. Case and punctuation
    count. `letter_errors` and `letters` leave all blanks out: some papers and programs publish that
    as their character error rate.
    """

    def __init__(self, cfg: Any = None):
        super().__init__(cfg)
        self._distance = require("editdistance").eval
        self.reset()

    def reset(self) -> None:
        """Forgets all utterances."""
        self.ref, self.pred = [], []
        self.character_errors = self.characters = 0
        self.letter_errors = self.letters = 0
        self.word_errors = self.words = 0

    def add_string(self, ref: str, pred: str) -> None:
        """Counts an utterance: what was said, and what was understood.

        ValueError for units instead of text: blanks between them would count as characters, most of
        them right.
        """
        _check_text(ref)
        super().add_string(ref, pred)
        self.character_errors += self._distance(ref.strip(), pred.strip())
        self.characters += len(ref.strip())
        words, found = ref.split(), pred.split()
        self.word_errors += self._distance(words, found)
        self.words += len(words)
        self.letter_errors += self._distance("".join(words), "".join(found))
        self.letters += len("".join(words))

    def score(self) -> float:
        """The character error rate."""
        return _percent(self.character_errors, self.characters)

    def word_error_rate(self) -> float:
        """The word error rate."""
        return _percent(self.word_errors, self.words)

    def letter_error_rate(self) -> float:
        """The character error rate without blanks."""
        return _percent(self.letter_errors, self.letters)

    def result_string(self) -> str:
        """All rates: "CER: 7.30 WER: 17.60 (130 utterances; CER without blanks: 8.10)"."""
        rates = f"CER: {self.score():.2f} WER: {self.word_error_rate():.2f}"
        letters = f"CER without blanks: {self.letter_error_rate():.2f}"
        return f"{rates} ({len(self.ref)} utterances; {letters})"


def _check_text(ref: str) -> None:
    units = ref.split()
    kind = None
    if SPACE in units and all(len(unit) == 1 for unit in units):
        kind = CharacterUnits
    elif any(unit.startswith(SentencePieceUnits.reserved) for unit in units):
        kind = SentencePieceUnits
    if kind is not None:
        raise ValueError(
            f"--scoring cer_wer: expected text, got units: {ref:.40}; add --post-process "
            f"{kind.post_process}"
        )


def _percent(errors: int, length: int) -> float:
    """100 * errors / length; without any reference, inf unless nothing was understood either."""
    if length == 0:
        return float("inf") if errors else 0.0
    return 100.0 * errors / length
