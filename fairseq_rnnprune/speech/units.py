"""What a model spells with: characters, or the pieces of a sentencepiece model."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from fairseq_rnnprune.speech import require

SPACE = "|"
SENTENCEPIECE_FILE = "sentencepiece.model"
DICTIONARY_FILE = "dict.txt"
_PIECE_SPACE = "\u2581"


def plain_text(text: str) -> str:
    """The text with one space between words and none around them; nothing else changes."""
    return " ".join(text.split())


class CharacterUnits:
    """Every character is a unit; a space, of whatever width, is `|`."""

    name = "characters"
    # The name of fairseq's data_utils.post_process that turns units into words.
    post_process = "letter"
    # A character that the units use for themselves: text that holds it comes back changed.
    reserved = SPACE

    def encode(self, text: str) -> list[str]:
        """Text to units: "go on" to ["g", "o", "|", "o", "n"]."""
        return list(plain_text(text).replace(" ", SPACE))

    def decode(self, symbols: Iterable[str]) -> str:
        """Units to text; the inverse of `encode` up to the width of spaces."""
        return plain_text("".join(symbols).replace(SPACE, " "))

    def counts(self, texts: Iterable[str]) -> dict[str, int]:
        """Every unit of the texts in the order of the alphabet, and how often it is there."""
        counter = Counter(symbol for text in texts for symbol in self.encode(text))
        return dict(sorted(counter.items()))


class SentencePieceUnits:
    """The pieces of a sentencepiece model, given as the bytes of its file.

    ValueError if the bytes are no model.
    """

    name = "sentencepiece"
    post_process = "sentencepiece"
    reserved = _PIECE_SPACE

    def __init__(self, model: bytes):
        self.model = bytes(model)
        self._processor = require("sentencepiece").SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self.model)
        except RuntimeError as error:
            raise ValueError(
                f"SentencePieceUnits: expected a sentencepiece model, got {len(self.model)} bytes "
                "that are none; train it with rnnprune prepare --units sentencepiece"
            ) from error

    @classmethod
    def load(cls, path: Path) -> SentencePieceUnits:
        """Reads a model's file; ValueError if it is missing or none."""
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise ValueError(
                f"SentencePieceUnits: expected a sentencepiece model, got {error}; "
                "copy it from the training's data, or train one with rnnprune prepare --units "
                "sentencepiece"
            ) from error

    @classmethod
    def train(cls, texts: Iterable[str], size: int) -> SentencePieceUnits:
        """Trains a unigram model with up to `size` pieces that covers every character.

        ValueError if there is no text or the size has no room for its characters.
        """
        lines = [line for line in map(plain_text, texts) if line]
        # One thread and all sentences: the same text gives the same model.
        model = io.BytesIO()
        try:
            require("sentencepiece").SentencePieceTrainer.train(
                sentence_iterator=iter(lines),
                model_writer=model,
                vocab_size=size,
                model_type="unigram",
                character_coverage=1.0,
                normalization_rule_name="identity",
                hard_vocab_limit=False,
                max_sentence_length=max((4 * len(line) for line in lines), default=1),
                num_threads=1,
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(
                f"SentencePieceUnits: expected a --sentencepiece-size that suits the text, got "
                f"{size} for {len(lines)} transcripts: {plain_text(str(error))}"
            ) from error
        return cls(model.getvalue())

    def encode(self, text: str) -> list[str]:
        """Text to pieces; characters that the model does not know are units of their own."""
        processor, symbols = self._processor, []
        for piece in processor.EncodeAsPieces(plain_text(text)):
            # It gives characters that it does not know as one piece, which is not one unit.
            is_known = processor.PieceToId(piece) != processor.unk_id()
            symbols += [piece] if is_known else list(piece)
        return symbols

    def decode(self, symbols: Iterable[str]) -> str:
        """Pieces to text; the inverse of `encode` up to the width of spaces."""
        return plain_text("".join(symbols).replace(_PIECE_SPACE, " "))

    def counts(self, texts: Iterable[str]) -> dict[str, int]:
        """Every piece in the model's order, and how often it is in the texts, maybe 0 times."""
        processor = self._processor
        counter = Counter(symbol for text in texts for symbol in self.encode(text))
        pieces = range(processor.GetPieceSize())
        special = (processor.IsUnknown, processor.IsControl, processor.IsUnused)
        known = (processor.IdToPiece(i) for i in pieces if not any(is_(i) for is_ in special))
        return {piece: counter[piece] for piece in known}


Units = CharacterUnits | SentencePieceUnits


def load_units(name: str, folder: Path) -> Units:
    """The units `name` of a SpeechConfig; their model, if they have one, is in the folder."""
    if name == CharacterUnits.name:
        return CharacterUnits()
    return SentencePieceUnits.load(Path(folder, SENTENCEPIECE_FILE))


def write_counts(counts: Mapping[str, int], path: Path) -> None:
    """Writes units and counts as fairseq's Dictionary reads them: "unit count" by line."""
    lines = [f"{symbol} {count}\n" for symbol, count in counts.items()]
    temporary = Path(path).with_suffix(".tmp")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)
