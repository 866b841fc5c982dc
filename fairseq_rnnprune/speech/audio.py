"""Reads audio files: whatever libsndfile knows, any rate, any number of channels."""

from __future__ import annotations

import io
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fairseq_rnnprune.speech import require

from .containers import unread
from .mpeg import read_with_length

# libsndfile's length of a FLAC file that was written to a pipe is far above this; it cannot find
# the end of such a file.
_UNKNOWN = 1 << 40
_BLOCK = 1 << 20
# Rates of which a warning has been given.
_told: set[int] = set()

logger = logging.getLogger(__name__)


class AudioError(ValueError):
    """A file that is no usable recording; the message is one line and begins with its path."""


def measure_audio(path: Path, sample_rate: int) -> tuple[int, int]:
    """The header's length in samples, and what it becomes at `sample_rate`; nothing is decoded.

    AudioError if the file is missing, empty, a folder, no audio, of length 0 or cut off, as far
    as its header and its size show that.
    """
    with open_audio(path) as file:
        return file.frames, resampled_length(file.frames, file.samplerate, sample_rate)


def read_audio(path: Path, sample_rate: int) -> np.ndarray:
    """Returns float32 [N], full scale at 1: the mean of the channels, resampled by soxr.

    AudioError if the file is missing, empty, a folder, no audio, cut off, of length 0, or holds a
    sample that is not finite.
    """
    with open_audio(path) as file:
        audio = np.concatenate(list(read_blocks(path, file, _BLOCK)))
        warn_of_low_rate(path, file.samplerate, sample_rate)
        return resample(audio, file.samplerate, sample_rate)


def read_blocks(path: Path, file: Any, size: int) -> Iterator[np.ndarray]:
    """Yields an open recording in blocks of `size`, float32, the channels' mean; the last is less.

    AudioError as of `read_audio`, that of a recording cut off after the last block.
    """
    taken, is_last = 0, False
    while not is_last:
        try:
            block = file.read(size, dtype="float32", always_2d=True)
        except RuntimeError as error:
            raise bad_audio(
                path,
                f"cut off or damaged: expected {file.frames} samples, got an error after {taken}: "
                f"{_reason(error)}",
            ) from error
        block = block.mean(axis=1) if block.shape[1] > 1 else block[:, 0]
        # False for NaN, inf and what would overflow in the features; full scale is 1.
        is_sound = np.abs(block) < 1e9
        if not is_sound.all():
            where = int(np.argmin(is_sound))
            raise bad_audio(
                path,
                f"expected sound in finite samples, got {block[where]:g} at "
                f"{(taken + where) / file.samplerate:.2f} s",
            )
        taken, is_last = taken + len(block), len(block) < size
        yield block
    if taken < file.frames:
        raise bad_audio(path, f"cut off: expected {file.frames} samples, got {taken}")


def warn_of_low_rate(path: Path, rate: int, sample_rate: int) -> None:
    """Says, once for a rate, that recordings have less in them than the features are made for."""
    if rate < sample_rate and rate not in _told:
        _told.add(rate)
        logger.warning(
            "%s, and maybe others: recorded at %d Hz, where %d Hz are expected; above %g kHz "
            "nothing is heard, and a model that was trained on more makes more errors",
            *(path, rate, sample_rate, rate / 2000),
        )


def resample(audio: np.ndarray, rate: float, new_rate: float) -> np.ndarray:
    """Resamples float32 [N] from one rate to another, both in Hz."""
    if rate == new_rate:
        return audio
    return require("soxr").resample(audio, rate, new_rate).astype(np.float32, copy=False)


def resampled_length(samples: int, rate: float, new_rate: float) -> int:
    """How many samples `resample` makes of so many."""
    return samples if rate == new_rate else round(samples * new_rate / rate)


def open_audio(path: Path):
    """A soundfile.SoundFile to be read from start to end; AudioError as of `measure_audio`."""
    soundfile = require("soundfile")
    if "\0" in os.fspath(path):
        raise AudioError(f"{os.fspath(path)!r}: expected the path of a file, got one with a NUL")
    try:
        info = os.stat(path)
        if stat.S_ISDIR(info.st_mode):
            raise bad_audio(path, "expected an audio file, got a folder")
        if not stat.S_ISREG(info.st_mode):
            raise bad_audio(
                path, "expected an audio file, got a pipe or a device; write it to a file"
            )
        if not info.st_size:
            raise bad_audio(path, "expected an audio file, got an empty one")
        if problem := unread(path):
            raise bad_audio(path, problem)
        file = soundfile.SoundFile(_source(path))
    except OSError as error:
        raise bad_audio(path, f"expected an audio file, got {error.strerror}") from error
    except RuntimeError as error:
        raise bad_audio(
            path, f"expected an audio file, got one that cannot be read: {_reason(error)}"
        ) from error
    if 0 < file.frames < _UNKNOWN:
        # soundfile seeks to where it is after every block, and MP3 goes on from there with other
        # samples: its decoder has lost what it knew of the frames before.
        file.seekable = lambda: False
        return file
    file.close()
    if file.frames:
        raise bad_audio(path, "expected a file that says how long it is, got one written to a pipe")
    raise bad_audio(path, "expected audio, got 0 samples")


def _source(path: Path) -> io.BytesIO | bytes | str:
    """What soundfile opens."""
    try:
        data = read_with_length(path)
    except ValueError as error:
        raise bad_audio(path, str(error)) from error
    if data is not None:
        return io.BytesIO(data)
    # soundfile cannot encode a name that is not UTF-8.
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def _reason(error: RuntimeError) -> str:
    """Why libsndfile reads no more, in its own words."""
    return str(getattr(error, "error_string", error)) or "no reason given"


def bad_audio(path: Path, problem: str) -> AudioError:
    """The error of a file, in one line."""
    return AudioError(" ".join(f"{path}: {problem}".split()))
