"""Log-mel features of audio, whole or as it comes, their normalisation, and changes of speed."""

from __future__ import annotations

import numpy as np

from fairseq_rnnprune.speech import require

from .audio import resample, resampled_length
from .config import SpeechConfig

WINDOW_MS, SHIFT_MS = 25, 10
# Part of the cache's key: to be raised with every change of the features.
VERSION = 1
# Kaldi's floor for an energy suits 16-bit numbers: there it lies far below one step.
_FULL_SCALE = 32768.0
# A bin that never changes has no spread to divide by.
SMALLEST_STD = 1e-3


def frame_count(samples: int, sample_rate: int) -> int:
    """How many frames `log_mel` makes of so many samples: only windows that lie in the audio."""
    window, shift = sample_rate * WINDOW_MS // 1000, sample_rate * SHIFT_MS // 1000
    return 0 if samples < window else 1 + (samples - window) // shift


def log_mel(audio: np.ndarray, config: SpeechConfig) -> np.ndarray:
    """Audio float32 [N], full scale at 1, to log-mel energies float32 [T, F], not normalised.

    Kaldi's fbank by kaldi-native-fbank: windows of 25 ms every 10 ms, no dither, samples scaled
    to the range of 16 bits, natural logarithm of the power.
    """
    stream = FeatureStream(config)
    return np.concatenate([stream.push(audio), stream.finish()])


class FeatureStream:
    """The frames of `log_mel` as the audio comes, bit for bit, whatever the pieces' lengths."""

    def __init__(self, config: SpeechConfig):
        self._rate, self._bins = config.sample_rate, config.mel_bins
        self._fbank = _fbank(config)
        self._taken = 0

    def push(self, audio: np.ndarray) -> np.ndarray:
        """Takes float32 [N], full scale at 1; returns the frames that are now complete, [T, F]."""
        if len(audio):
            scaled = np.asarray(audio, dtype=np.float32) * np.float32(_FULL_SCALE)
            self._fbank.accept_waveform(self._rate, scaled)
        return self._take()

    def finish(self) -> np.ndarray:
        """Ends the audio; returns the frames that are left, [T, F]."""
        self._fbank.input_finished()
        return self._take()

    def _take(self) -> np.ndarray:
        ready = self._fbank.num_frames_ready
        frames = np.empty((ready - self._taken, self._bins), dtype=np.float32)
        for row, index in zip(frames, range(self._taken, ready), strict=True):
            row[:] = self._fbank.get_frame(index)
        # Frees them: a stream may go on for hours.
        self._fbank.pop(ready - self._taken)
        self._taken = ready
        return frames


def _fbank(config: SpeechConfig):
    library = require("kaldi_native_fbank")
    options = library.FbankOptions()
    options.frame_opts.samp_freq = config.sample_rate
    options.frame_opts.frame_length_ms = WINDOW_MS
    options.frame_opts.frame_shift_ms = SHIFT_MS
    options.frame_opts.dither = 0.0
    options.frame_opts.snip_edges = True
    options.mel_opts.num_bins = config.mel_bins
    try:
        return library.OnlineFbank(options)
    except ValueError as error:
        raise ValueError(
            f"log_mel: expected fewer mel bins, of which each gets a frequency, got "
            f"{config.mel_bins} at {config.sample_rate} Hz; lower --mel-bins"
        ) from error


def normalize(features: np.ndarray, config: SpeechConfig) -> np.ndarray:
    """Features [T, F] with mean 0 and standard deviation 1 by bin; a new array.

    Global: over the training set, by the config's statistics. Utterance: over these frames.
    """
    if config.normalization == "global":
        mean = np.asarray(config.mean, dtype=np.float32)
        std = np.asarray(config.std, dtype=np.float32)
    elif not len(features):
        return features.copy()
    else:
        mean = features.mean(axis=0, dtype=np.float64)
        std = features.std(axis=0, dtype=np.float64)
    return ((features - mean) / np.maximum(std, SMALLEST_STD)).astype(np.float32)


def change_speed(audio: np.ndarray, speed: float) -> np.ndarray:
    """Audio float32 [N] played `speed` times as fast, pitch and all: about N / speed samples."""
    # Any rate will do: only the ratio counts.
    return resample(audio, 16000 * speed, 16000)


def changed_length(samples: int, speed: float) -> int:
    """How many samples `change_speed` makes of so many."""
    return resampled_length(samples, 16000 * speed, 16000)
