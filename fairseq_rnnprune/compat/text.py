"""Repairs of how fairseq reads text: its encoding, and the sentencepiece model that splits it."""

from __future__ import annotations

import contextlib
import fileinput
import io
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .wrap import wrap_once

logger = logging.getLogger(__name__)

# Characters that a sentencepiece model does not know are symbols of the dictionary, but no pieces.
MAX_FOREIGN = 0.2
_COMMAND = "fairseq_cli.interactive"


def name_text_that_is_not_utf8() -> None:
    """Let bytes that are no UTF-8 be named, and the lines before them be answered.

    fairseq-interactive reads far ahead and ends in a UnicodeDecodeError without a line's number; in
    the C locale Python hands such bytes on as lone surrogates, of which sentencepiece says "Unable
    to cast Python instance of type <class 'str'> to C++ type '?'".
    """
    from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE

    def encode(original: Callable, self: Any, x: str) -> str:
        _check_encoding(x, "sentencepiece")
        return original(self, x)

    def buffered_read(original: Callable, input: str, buffer_size: int) -> Iterator[list[str]]:
        buffer: list[str] = []
        for number, line in enumerate(map(str.strip, _lines(input)), 1):
            try:
                _check_encoding(line, f"{'standard input' if input == '-' else input}:{number}")
            except ValueError:
                if buffer:
                    yield buffer
                raise
            buffer.append(line)
            if len(buffer) >= buffer_size:
                yield buffer
                buffer = []
        if buffer:
            yield buffer

    wrap_once(SentencepieceBPE, "encode", encode)
    # A command has been imported by now, and run with `python -m` it is the main module.
    for name in (_COMMAND, "__main__"):
        module = sys.modules.get(name)
        spec = getattr(module, "__spec__", None)
        if spec is not None and spec.name == _COMMAND and hasattr(module, "buffered_read"):
            wrap_once(module, "buffered_read", buffered_read)


def check_sentencepiece_models() -> None:
    """Let a file that is no sentencepiece model be an error, and one of other data be told.

    Of the first, sentencepiece says "INTERNAL: could not parse ModelProto", of the second fairseq
    nothing, and it translates what it understands.
    """
    from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE
    from fairseq.hub_utils import GeneratorHubInterface
    from fairseq.tasks import FairseqTask

    def load(original: Callable, self: Any, cfg: Any) -> None:
        try:
            original(self, cfg)
        except (OSError, RuntimeError) as error:
            raise ValueError(
                "--sentencepiece-model: expected the file of a sentencepiece model, got "
                f"{cfg.sentencepiece_model}: {' '.join(str(error).split())}"
            ) from error

    def build_bpe(original: Callable, self: Any, args: Any) -> Any:
        bpe = original(self, args)
        _warn_of_another_model(bpe, self)
        return bpe

    def make_hub(original: Callable, self: Any, cfg: Any, task: Any, models: Any) -> None:
        original(self, cfg, task, models)
        _warn_of_another_model(self.bpe, task)

    wrap_once(SentencepieceBPE, "__init__", load)
    wrap_once(FairseqTask, "build_bpe", build_bpe)
    wrap_once(GeneratorHubInterface, "__init__", make_hub)


def _check_encoding(text: str, where: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"{where}: expected text in UTF-8, got {text!r}; convert it, for example with "
            "iconv -f latin1 -t utf-8"
        ) from None


def _lines(input: str) -> Iterator[str]:
    """Lines of a file, or of standard input for `-`, with bytes that are no UTF-8 as surrogates."""
    if input == "-" and isinstance(sys.stdin, io.TextIOWrapper):
        # Who has read from it before stays with its encoding.
        with contextlib.suppress(io.UnsupportedOperation):
            sys.stdin.reconfigure(encoding="utf-8", errors="surrogateescape")
    hook = fileinput.hook_encoded("utf-8", "surrogateescape")
    with fileinput.input(files=[input], openhook=hook) as lines:
        yield from lines


def _warn_of_another_model(bpe: Any, task: Any) -> None:
    """A dictionary was made of pieces: most of them are in the model that has made them."""
    processor = getattr(bpe, "sp", None)
    if processor is None:
        return
    counts = []
    # fairseq-generate has the model of the target, the others that of the source.
    for dictionary in filter(None, (task.source_dictionary, task.target_dictionary)):
        # fairseq pads a dictionary with symbols of that name.
        symbols = [s for s in dictionary.symbols[dictionary.nspecial :] if "madeupword" not in s]
        foreign = sum(processor.PieceToId(s) == processor.unk_id() for s in symbols)
        counts.append((foreign / max(1, len(symbols)), foreign, len(symbols)))
    if counts and min(counts)[0] > MAX_FOREIGN:
        logger.warning(
            "%d of %d symbols of the dictionary are no pieces of this sentencepiece model: it is "
            "not that of the training data, so text is not what the model has learnt",
            *min(counts)[1:],
        )
