"""Audio as it comes: from a file or standard input in chunks, through features and model."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fairseq_rnnprune.speech import require

from .audio import AudioError, open_audio, read_blocks, warn_of_low_rate
from .config import SpeechConfig
from .features import SHIFT_MS, FeatureStream, normalize

logger = logging.getLogger(__name__)

STDIN = Path("-")


class StreamingSearch:
    """A model and a search over the labellings of one utterance, fed with audio.

    `search` is a search of ctc.py, not yet used. What it holds at the end is what it would hold
    after the whole utterance at once. ValueError for a model that needs the future, and for
    features that are normalised by utterance.
    """

    def __init__(self, model: Any, config: SpeechConfig, search: Any):
        if config.normalization != "global":
            raise ValueError(
                "StreamingSearch: expected features with normalization global, got "
                f"{config.normalization}, whose mean is known at the end only; train after "
                "rnnprune prepare --normalization global, or leave --stream out"
            )
        self._model, self._config, self.search = model, config, search
        self._stream = model.stream()
        self._features = FeatureStream(config)
        self.input_frames = 0

    @property
    def waiting_ms(self) -> float:
        """How much later audio the model has to hear before it says what a frame was."""
        return float(self._stream.latency_frames * SHIFT_MS)

    @torch.no_grad()
    def push(self, audio: np.ndarray) -> None:
        """Takes float32 [N] at the config's sample rate."""
        self._push_features(self._features.push(audio))

    @torch.no_grad()
    def finish(self) -> None:
        """Ends the utterance."""
        self._push_features(self._features.finish())
        self.search.push(self._stream.finish().numpy())

    def _push_features(self, features: np.ndarray) -> None:
        self.input_frames += len(features)
        features = torch.from_numpy(normalize(features, self._config))
        self.search.push(self._stream.push(features).numpy())


def read_chunks(path: Path, sample_rate: int, milliseconds: float) -> Iterator[np.ndarray]:
    """Yields a recording in chunks, float32 [N] at `sample_rate`, their channels' mean.

    The last chunk may be shorter. The path `-` is standard input: samples of 16 bits, little
    endian, one channel, at `sample_rate`, without a header. AudioError as from `read_audio`.
    """
    if path == STDIN:
        yield from _read_raw(sample_rate, milliseconds)
        return
    with open_audio(path) as file:
        rate = file.samplerate
        warn_of_low_rate(path, rate, sample_rate)
        size = max(1, round(rate * milliseconds / 1000))
        resampler = None
        if rate != sample_rate:
            resampler = require("soxr").ResampleStream(rate, sample_rate, 1, dtype="float32")
        for audio in read_blocks(path, file, size):
            if resampler is not None:
                audio = resampler.resample_chunk(audio, last=len(audio) < size)
            if len(audio):
                yield audio


def _read_raw(sample_rate: int, milliseconds: float) -> Iterator[np.ndarray]:
    size = 2 * max(1, round(sample_rate * milliseconds / 1000))
    while data := _read(size):
        if len(data) % 2:
            logger.warning("%s: expected samples of 2 bytes, got half of the last one", STDIN)
            data = data[:-1]
        yield np.frombuffer(data, dtype="<i2").astype(np.float32) / 32768


def _read(size: int) -> bytes:
    """So many bytes of standard input, fewer at its end; Ctrl-C is how many a recording ends."""
    if sys.stdin is None:
        raise AudioError(f"{STDIN}: expected audio, got a closed standard input")
    try:
        # read, unlike read1, waits for a whole chunk.
        return sys.stdin.buffer.read(size)
    except KeyboardInterrupt:
        return b""
