"""Transcripts of recordings, whole or as they come; what cannot be used is named in its place."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from .audio import AudioError, read_audio
from .features import SHIFT_MS, WINDOW_MS, log_mel, normalize
from .padding import pad_sources
from .stream import StreamingSearch, read_chunks

if TYPE_CHECKING:
    from .generator import CTCGenerator
    from .loading import SpeechModel

# A recording, or what was wrong with a name before it was opened.
Source = Path | ValueError


@dataclass
class Transcript:
    """A recording's text; words are (word, start, end) in seconds.

    Of a stream: `latencies`, the milliseconds from having a chunk to having searched it, and to
    having the text as well where that is shown; the end of the audio counts as a chunk, and always
    has its text. `waiting_ms`: how much later audio the model waits for.
    """

    path: Path
    seconds: float
    text: str
    words: list[tuple[str, float, float]]
    latencies: list[float] = field(default_factory=list)
    waiting_ms: float = 0.0


class _Loaded(NamedTuple):
    path: Path
    seconds: float
    features: np.ndarray


def transcribe_files(
    sources: Iterable[Source], speech: SpeechModel, generator: CTCGenerator, batch_size: int = 1
) -> Iterator[Transcript | ValueError]:
    """Transcripts or errors in the order of the sources, `batch_size` recordings at a time."""
    pending: list[_Loaded | ValueError] = []
    for source in sources:
        pending.append(_load(source, speech))
        if sum(isinstance(item, _Loaded) for item in pending) == batch_size:
            yield from _decode(pending, speech, generator)
            pending = []
    yield from _decode(pending, speech, generator)


def transcribe_streams(
    sources: Iterable[Source],
    speech: SpeechModel,
    generator: CTCGenerator,
    chunk_ms: float = 100.0,
    show: Callable[[str], None] | None = None,
) -> Iterator[Transcript | ValueError]:
    """As `transcribe_files`, chunk by chunk; `show` gets the text after every chunk, then "".

    ValueError at once if the model cannot stream.
    """
    # That is no matter of a recording.
    StreamingSearch(speech.model, speech.config, generator.search())
    for source in sources:
        if isinstance(source, ValueError):
            yield source
            continue
        streaming = StreamingSearch(speech.model, speech.config, generator.search())
        try:
            result = _stream(source, streaming, speech, chunk_ms, show)
        except ValueError as error:
            result = error
        if show is not None:
            show("")
        yield result


def find_words(
    symbols: Sequence[str],
    frames: Sequence[int],
    space: str,
    frame_seconds: float,
    seconds: float,
) -> list[tuple[str, float, float]]:
    """Words with the start of their first symbol's frame and the end of their last one's.

    frames: by symbol, as in Hypothesis. Words begin after a `space`, which may be a part of a
    symbol. No time is beyond `seconds`, the recording's end.
    """
    words: list[tuple[str, float, float]] = []
    begins = True
    for symbol, frame in zip(symbols, frames, strict=True):
        start, end = (round(min(edge * frame_seconds, seconds), 3) for edge in (frame, frame + 1))
        for character in symbol:
            if character == space:
                begins = True
            elif begins:
                words.append((character, start, end))
                begins = False
            else:
                word, first, _ = words[-1]
                words[-1] = (word + character, first, end)
    return words


def _load(source: Source, speech: SpeechModel) -> _Loaded | ValueError:
    if isinstance(source, ValueError):
        return source
    config = speech.config
    try:
        audio = read_audio(source, config.sample_rate)
        features = normalize(log_mel(audio, config), config)
        seconds = len(audio) / config.sample_rate
        _check_length(source, len(features), seconds, speech)
    except ValueError as error:
        return error
    return _Loaded(source, seconds, features)


def _decode(
    items: Sequence[_Loaded | ValueError], speech: SpeechModel, generator: CTCGenerator
) -> Iterator[Transcript | ValueError]:
    """Decodes what could be loaded as one batch."""
    loaded = [item for item in items if isinstance(item, _Loaded)]
    hypotheses: Iterator[Any] = iter(())
    if loaded:
        net_input = pad_sources([torch.from_numpy(item.features) for item in loaded])
        outputs = generator.generate([speech.model], {"net_input": net_input})
        hypotheses = (best for best, *_ in outputs)
    for item in items:
        if isinstance(item, ValueError):
            yield item
            continue
        best = next(hypotheses)
        tokens, frames = best["tokens"].tolist(), best["frames"].tolist()
        yield _transcript(item.path, item.seconds, tokens, frames, speech)


def _stream(
    path: Path,
    streaming: StreamingSearch,
    speech: SpeechModel,
    chunk_ms: float,
    show: Callable[[str], None] | None,
) -> Transcript:
    rate, samples, latencies = speech.config.sample_rate, 0, []
    begin = time.perf_counter()

    def end_chunk(final: bool) -> Any:
        best, text = None, ""
        # All text so far, after every chunk, takes time that grows with the square of the length.
        if final or show is not None:
            best = streaming.search.results(final=final)[0]
            text = speech.text(best.tokens)
        latencies.append(1000 * (time.perf_counter() - begin))
        if show is not None:
            show(text)
        return best

    for audio in read_chunks(path, rate, chunk_ms):
        samples += len(audio)
        begin = time.perf_counter()
        streaming.push(audio)
        end_chunk(final=False)
    begin = time.perf_counter()
    streaming.finish()
    best = end_chunk(final=True)
    _check_length(path, streaming.input_frames, samples / rate, speech)
    transcript = _transcript(path, samples / rate, best.tokens, best.frames, speech)
    transcript.latencies, transcript.waiting_ms = latencies, streaming.waiting_ms
    return transcript


def _check_length(path: Path, frames: int, seconds: float, speech: SpeechModel) -> None:
    if not frames or speech.model.output_lengths(frames) < 1:
        raise AudioError(
            f"{path}: expected audio of at least a window of {WINDOW_MS} ms, got "
            f"{1000 * seconds:.1f} ms"
        )


def _transcript(
    path: Path, seconds: float, tokens: Sequence[int], frames: Sequence[int], speech: SpeechModel
) -> Transcript:
    frame_seconds = speech.model.frame_stride * SHIFT_MS / 1000
    space = speech.units.reserved
    words = find_words(speech.symbols(tokens), frames, space, frame_seconds, seconds)
    return Transcript(path, seconds, speech.text(tokens), words)
