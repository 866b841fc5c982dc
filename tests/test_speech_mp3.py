"""MP3 files with heads that say too little: read whole, or refused by name."""

import numpy as np
import pytest
import soundfile
from speech_corpus import RATE, tone

from fairseq_rnnprune.speech import audio as audio_module
from fairseq_rnnprune.speech.audio import AudioError, measure_audio, read_audio
from fairseq_rnnprune.speech.mpeg import read_with_length
from fairseq_rnnprune.speech.stream import read_chunks

pytestmark = pytest.mark.skipif(
    "MP3" not in soundfile.available_formats(), reason="needs libsndfile >= 1.1"
)
SAMPLES = 80000
# What an encoder adds at the start and the end: less than this.
PADDING = 4 * 1152
ID3 = b"ID3\x03\0\0\0\0\x07\x76" + bytes(7 * 128 + 0x76)


def mp3(path, mode="VARIABLE", rate=RATE, channels=1, seed=0):
    """The bytes of a tone that becomes noise half way, so that bitrates vary."""
    audio = tone(SAMPLES, rate, seed)
    noise = np.random.default_rng(seed).normal(scale=0.2, size=SAMPLES // 2)
    audio[SAMPLES // 2 :] = noise.astype(np.float32)
    audio = np.repeat(audio[:, None], channels, 1)
    soundfile.write(path, audio, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    return path.read_bytes()


def headless(data):
    """Without the first frame, Xing's; every frame begins with the same two bytes."""
    assert data.find(b"Xing") in range(40) or data.find(b"Info") in range(40)
    return data[data.index(data[:2], 40) :]


def read(path, data):
    path.write_bytes(data)
    audio = read_audio(path, RATE)
    assert measure_audio(path, RATE)[1] == len(audio)
    return audio


def test_blocks_are_the_whole(tmp_path, monkeypatch):
    path = tmp_path / "a.mp3"
    soundfile.write(path, tone(3 * 22050, 22050), 22050)
    whole = read_audio(path, RATE)
    chunks = list(read_chunks(path, RATE, 37.0))
    assert len(chunks) > 70
    np.testing.assert_allclose(np.concatenate(chunks), whole, rtol=0, atol=1e-6)
    monkeypatch.setattr(audio_module, "_BLOCK", 1000)
    assert np.array_equal(read_audio(path, RATE), whole)


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE", "AVERAGE"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (16000, 2), (48000, 1), (44100, 2)])
def test_a_good_head_is_left_alone(tmp_path, mode, rate, channels):
    path = tmp_path / "a.mp3"
    data = mp3(path, mode, rate, channels)
    assert read_with_length(path) is None
    assert soundfile.info(path).frames == SAMPLES
    assert np.array_equal(read(path, ID3 + data + b"TAG" + bytes(125)), read(path, data))


@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (16000, 2), (48000, 1), (44100, 2)])
def test_without_a_head_it_is_read_whole(tmp_path, mode, rate, channels):
    path = tmp_path / "a.mp3"
    data = mp3(path, mode, rate, channels)
    whole = read(path, data)
    found = read(path, headless(data))
    assert 0 <= len(found) - len(whole) < PADDING
    # The same sound, but for the frames of silence in front.
    late = int(np.argmax(np.correlate(found[:9000], whole[:8000])))
    assert np.corrcoef(found[late : late + len(whole)], whole)[0, 1] > 0.99
    for tagged in (ID3 + headless(data), headless(data) + b"APETAGEX" + bytes(3000)):
        assert np.array_equal(read(path, tagged), found)


def test_one_after_another_all_are_read(tmp_path):
    path = tmp_path / "a.mp3"
    first, second = mp3(path), mp3(path, "CONSTANT", seed=1)
    for data in (first + second, first + ID3 + second, first + bytes(5000) + second):
        found = read(path, data)
        assert 0 <= len(found) - 2 * SAMPLES < 2 * PADDING
        # The second begins with a tone, behind the noise of the first.
        middle = found[SAMPLES + PADDING :][: SAMPLES // 4]
        assert np.argmax(np.abs(np.fft.rfft(middle[:RATE]))) == 440


def test_what_looks_like_a_head_in_a_tag_or_in_rubbish_is_none(tmp_path):
    path = tmp_path / "a.mp3"
    first, second = mp3(path), mp3(path, seed=1)
    expected = read(path, first + second)
    other = mp3(path, rate=22050)[:2000]
    tag = b"ID3\x03\0\0\0\0\x0f\x50" + other  # 15 * 128 + 80 bytes
    for between in (tag, bytes(99) + other[:4] + bytes(999)):
        assert np.array_equal(read(path, first + between + second), expected)


@pytest.mark.parametrize("other", [{"rate": 22050}, {"channels": 2}])
def test_a_change_within_is_refused(tmp_path, other):
    path = tmp_path / "a.mp3"
    first = mp3(path)
    path.write_bytes(first + mp3(tmp_path / "b.mp3", **other))
    with pytest.raises(AudioError, match=f"one rate and number of channels.*byte {len(first)}"):
        read_audio(path, RATE)


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_without_a_head_an_end_within_a_frame_is_noticed(tmp_path, part):
    path = tmp_path / "a.mp3"
    data = headless(mp3(path))
    # Where a frame ends nothing tells that more came.
    path.write_bytes(data[: data.index(data[:2], int(part * len(data)) - 100) - 5])
    with pytest.raises(AudioError, match=r"a\.mp3: cut off: expected \d+ bytes, got \d+$"):
        read_audio(path, RATE)


def with_checksum(frame):
    """The bit of its head that says so, and two bytes behind the head."""
    return frame[:1] + bytes([frame[1] & 0xFE]) + frame[2:4] + b"\0\0" + frame[4:-2]


def test_heads_with_checksums(tmp_path):
    path = tmp_path / "a.mp3"
    data = mp3(path)
    rest = headless(data)
    path.write_bytes(with_checksum(data[: -len(rest)]) + rest)
    assert read_with_length(path) is None
    # The head that is put in front has none, whatever the first frame has.
    size = rest.index(rest[:2], 4)
    path.write_bytes(with_checksum(rest[:size]) + rest[size:])
    assert read_with_length(path)[1] & 1
    assert len(read_audio(path, RATE)) == len(read(tmp_path / "b.mp3", rest))


def test_what_is_no_mp3_is_left_alone(tmp_path):
    path = tmp_path / "a.mp3"
    one_head = b"\xff\xfb\x90\0" + bytes(2000)
    for data in (b"\xff", b"ID3", ID3, b"\xff\xfb" * 50, ID3 + b"fLaC" + bytes(99), one_head):
        path.write_bytes(data)
        assert read_with_length(path) is None
