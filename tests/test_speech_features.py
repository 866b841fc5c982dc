"""Log-mel features, as a whole and as the audio comes; their cache."""

import logging
import os
import pickle
import shutil

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from speech_corpus import RATE, make_corpus, tone

from fairseq_rnnprune.speech import cache as cache_module
from fairseq_rnnprune.speech.audio import AudioError, read_audio
from fairseq_rnnprune.speech.cache import FeatureCache
from fairseq_rnnprune.speech.config import SpeechConfig
from fairseq_rnnprune.speech.features import (
    FeatureStream,
    change_speed,
    changed_length,
    frame_count,
    log_mel,
    normalize,
)

CONFIG = SpeechConfig(mel_bins=20)


def mel_oracle(audio, config):
    """Kaldi's definition in float64, frame by frame."""
    window, shift = config.sample_rate // 40, config.sample_rate // 100
    size = 1 << (window - 1).bit_length()
    povey = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / (window - 1))) ** 0.85
    mel = lambda hertz: 1127 * np.log(1 + hertz / 700)  # noqa: E731
    edges = np.linspace(mel(20.0), mel(config.sample_rate / 2), config.mel_bins + 2)
    bins = mel(np.arange(size // 2) * config.sample_rate / size)[:, None]
    low, mid, high = edges[:-2], edges[1:-1], edges[2:]
    filters = np.maximum(0, np.minimum((bins - low) / (mid - low), (high - bins) / (high - mid)))
    frames = []
    for start in range(0, len(audio) - window + 1, shift):
        x = audio[start : start + window].astype(np.float64) * 32768
        x = x - x.mean()
        x = x - 0.97 * np.concatenate([x[:1], x[:-1]])
        power = np.abs(np.fft.rfft(x * povey, size)[:-1]) ** 2
        frames.append(np.log(np.maximum(power @ filters, 1.19209e-07)))
    return np.array(frames)


@pytest.mark.parametrize(("rate", "bins"), [(16000, 40), (8000, 23)])
def test_the_features_are_kaldi_s(rate, bins):
    config = SpeechConfig(sample_rate=rate, mel_bins=bins)
    audio = tone(rate // 2, rate)
    found = log_mel(audio, config)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, mel_oracle(audio, config), rtol=0, atol=2e-3)


@given(st.lists(st.integers(0, 3000), max_size=8), st.sampled_from([8000, 11025, 16000, 44100]))
def test_a_stream_has_the_same_frames_bit_for_bit(pieces, rate):
    config = SpeechConfig(sample_rate=rate, mel_bins=10)
    audio = tone(sum(pieces), rate)
    stream, start, found = FeatureStream(config), 0, []
    for length in pieces:
        found.append(stream.push(audio[start : start + length]))
        start += length
        # What can be known is not held back.
        assert sum(map(len, found)) == frame_count(start, rate)
    found.append(stream.finish())
    assert np.array_equal(np.concatenate(found), log_mel(audio, config))
    assert len(log_mel(audio, config)) == frame_count(len(audio), rate)


def test_silence_is_finite_and_normalises_to_zeros():
    features = log_mel(np.zeros(4000, dtype=np.float32), CONFIG)
    assert np.isfinite(features).all()
    assert not normalize(features, CONFIG).any()
    assert normalize(features[:0], CONFIG).shape == (0, 20)


def test_normalisation():
    features = log_mel(tone(RATE), CONFIG)
    kept = features.copy()
    found = normalize(features, CONFIG)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(found.std(0), 1, atol=1e-5)
    mean, std = np.arange(20) / 2, np.arange(1, 21) / 4
    config = SpeechConfig(mel_bins=20, normalization="global", mean=mean.tolist(), std=std.tolist())
    np.testing.assert_allclose(normalize(features, config), (features - mean) / std, rtol=1e-5)
    assert np.array_equal(features, kept)


@pytest.mark.parametrize("speed", [0.9, 1.0, 1.1])
def test_speed_changes_length_and_pitch(speed):
    audio = tone(RATE)
    found = change_speed(audio, speed)
    assert found.dtype == np.float32
    assert len(found) == changed_length(len(audio), speed) == pytest.approx(RATE / speed, abs=1)
    peak = np.argmax(np.abs(np.fft.rfft(found))) * RATE / len(found)
    assert peak == pytest.approx(440 * speed, abs=1)


def test_more_bins_than_frequencies_are_refused():
    with pytest.raises(ValueError, match="expected fewer mel bins.*got 500 at 16000 Hz"):
        log_mel(tone(4000), SpeechConfig(mel_bins=500))


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "data", ("train",))


@pytest.fixture
def audio(corpus):
    return corpus / "flac" / "train0.flac"


@pytest.fixture
def computed(monkeypatch):
    """The files that were decoded."""
    found = []

    def read(path, rate):
        found.append(path)
        return read_audio(path, rate)

    monkeypatch.setattr(cache_module, "read_audio", read)
    return found


def test_features_are_computed_once(corpus, audio, computed):
    cache = FeatureCache(corpus / "features")
    assert not cache.has(audio, CONFIG)
    first = cache.features(audio, CONFIG)
    assert np.array_equal(first, log_mel(read_audio(audio, RATE), CONFIG))
    assert cache.has(audio, CONFIG)
    assert cache.features(audio, CONFIG) is first
    other = FeatureCache(corpus / "features")
    assert other.has(audio, CONFIG)
    assert np.array_equal(other.features(audio, CONFIG), first)
    assert computed == [audio]
    with pytest.raises(ValueError, match="read-only"):
        first[0] = 0


def test_whatever_changes_the_features_changes_their_key(corpus, audio, computed):
    cache = FeatureCache(corpus / "features")
    cache.features(audio, CONFIG)
    assert cache.features(audio, SpeechConfig(mel_bins=21)).shape[1] == 21
    assert len(cache.features(audio, SpeechConfig(sample_rate=8000, mel_bins=20)))
    slow = cache.features(audio, CONFIG, 0.9)
    assert len(slow) == frame_count(changed_length(4000, 0.9), RATE)
    assert len(computed) == 4
    soundfile.write(audio, tone(5000), RATE)
    assert len(cache.features(audio, CONFIG)) == frame_count(5000, RATE)
    os.utime(audio, ns=(0, 0))
    cache.features(audio, CONFIG)
    assert len(computed) == 6
    # Normalisation comes after the cache.
    statistics = {"normalization": "global", "mean": [0.0] * 20, "std": [1.0] * 20}
    cache.features(audio, SpeechConfig(mel_bins=20, **statistics))
    assert len(computed) == 6


def test_a_data_folder_can_be_moved(corpus, audio, computed):
    FeatureCache(corpus / "features").features(audio, CONFIG)
    moved = corpus.with_name("moved")
    shutil.move(corpus, moved)
    cache = FeatureCache(moved / "features")
    cache.features(moved / "flac" / "train0.flac", CONFIG)
    assert len(computed) == 1
    # Its neighbour has a place of its own.
    assert not cache.has(moved / "flac" / "train1.flac", CONFIG)


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "other"])
def test_a_damaged_file_is_computed_again(corpus, audio, computed, damage, caplog):
    first = FeatureCache(corpus / "features").features(audio, CONFIG)
    (path,) = (corpus / "features").rglob("*.npy")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(
        {"cut": data[:-7], "empty": b"", "flipped": data, "other": b"no array" * 20}[damage]
    )
    assert np.array_equal(FeatureCache(corpus / "features").features(audio, CONFIG), first)
    assert "damaged" in caplog.text and len(computed) == 2
    caplog.clear()
    FeatureCache(corpus / "features").features(audio, CONFIG)
    assert not caplog.text and len(computed) == 2


def test_a_folder_that_cannot_be_written_is_said_once(corpus, audio, computed, caplog):
    (corpus / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        cache = FeatureCache(corpus / "file" / "features")
        FeatureCache(corpus / "file" / "features")
    assert caplog.text.count("kept in memory only") == 1
    assert cache.features(audio, CONFIG) is cache.features(audio, CONFIG)
    assert cache.has(audio, CONFIG) and len(computed) == 1


def test_a_disk_that_fills_up_is_no_end(corpus, audio, monkeypatch, caplog):
    cache = FeatureCache(corpus / "features")

    def full(self, data):
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", full)
    assert len(cache.features(audio, CONFIG))
    assert len(cache.features(audio.with_name("train1.flac"), CONFIG))
    assert caplog.text.count("No space left on device") == 1
    assert not [p for p in (corpus / "features").rglob("*") if p.is_file()]


def test_memory_is_bounded_and_not_pickled(corpus, audio, computed):
    cache = FeatureCache(corpus / "features", memory_bytes=3000)
    cache.features(audio, CONFIG)
    cache.features(audio.with_name("train1.flac"), CONFIG)
    assert list(map(len, cache._memory.values())) == [frame_count(4000, RATE)]
    copied = pickle.loads(pickle.dumps(cache))
    assert not copied._memory
    assert np.array_equal(copied.features(audio, CONFIG), cache.features(audio, CONFIG))
    assert len(computed) == 2


def test_bad_audio_leaves_nothing_behind(corpus):
    cache = FeatureCache(corpus / "features")
    with pytest.raises(AudioError, match="No such file"):
        cache.features(corpus / "none.wav", CONFIG)
    assert not cache.has(corpus / "none.wav", CONFIG)
    assert not list((corpus / "features").iterdir())
