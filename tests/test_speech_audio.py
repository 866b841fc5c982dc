"""Audio files: what is read, and what is refused by name."""

import os
import struct
import types
from pathlib import Path

import numpy as np
import pytest
import soundfile
from speech_corpus import RATE, make_damaged, tone

from fairseq_rnnprune.speech import audio, require
from fairseq_rnnprune.speech.audio import (
    AudioError,
    measure_audio,
    read_audio,
    read_blocks,
    resampled_length,
)
from fairseq_rnnprune.speech.containers import unread
from fairseq_rnnprune.speech.stream import read_chunks


@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("wav", "PCM_16"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("flac", None), ("aiff", None)],
)
def test_formats(tmp_path, kind, subtype):
    audio = tone(5000)
    soundfile.write(tmp_path / f"a.{kind}", audio, RATE, subtype=subtype)
    found = read_audio(tmp_path / f"a.{kind}", RATE)
    assert found.dtype == np.float32 and found.shape == (5000,)
    np.testing.assert_allclose(found, audio, rtol=0, atol=2**-15)


@pytest.mark.parametrize(("kind", "subtype"), [("ogg", "VORBIS"), ("ogg", "OPUS"), ("mp3", None)])
def test_lossy_formats(tmp_path, kind, subtype):
    audio = tone(48000)
    soundfile.write(tmp_path / f"a.{kind}", audio, RATE, subtype=subtype)
    found = read_audio(tmp_path / f"a.{kind}", RATE)
    assert found.shape == (48000,)
    assert measure_audio(tmp_path / f"a.{kind}", RATE) == (48000, 48000)
    assert np.corrcoef(found, audio)[0, 1] > 0.9


def test_more_than_a_block_is_read_whole(tmp_path):
    audio = tone((1 << 20) + 77)
    soundfile.write(tmp_path / "a.wav", audio, RATE, subtype="FLOAT")
    assert np.array_equal(read_audio(tmp_path / "a.wav", RATE), audio)
    soundfile.write(tmp_path / "b.wav", audio[: 1 << 20], RATE, subtype="FLOAT")
    assert len(read_audio(tmp_path / "b.wav", RATE)) == 1 << 20


def test_channels_are_averaged(tmp_path):
    left, right = tone(5000), tone(5000, seed=1)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), RATE, subtype="FLOAT")
    found = read_audio(tmp_path / "a.wav", RATE)
    np.testing.assert_allclose(found, (left + right) / 2, rtol=0, atol=1e-7)


@pytest.mark.parametrize("read", [read_audio, lambda *given: [*read_chunks(*given, 100)]])
def test_recordings_of_lower_rates_are_told_once_a_rate(tmp_path, caplog, monkeypatch, read):
    monkeypatch.setattr(audio, "_told", set())
    for rate in (8000, 16000, 48000, 8000, 11025):
        soundfile.write(tmp_path / "a.wav", tone(rate, rate), rate)
        read(tmp_path / "a.wav", RATE)
    low, lower = (record.getMessage() for record in caplog.records)
    assert "a.wav, and maybe others: recorded at 8000 Hz, where 16000 Hz are expected" in low
    assert "above 5.5125 kHz nothing is heard" in lower


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_are_resampled(tmp_path, rate):
    audio = tone(rate, rate)
    soundfile.write(tmp_path / "a.wav", audio, rate)
    found = read_audio(tmp_path / "a.wav", RATE)
    assert measure_audio(tmp_path / "a.wav", RATE) == (rate, len(found)) == (rate, RATE)
    # The tone is still one of 440 Hz: 440 periods in this second.
    assert np.argmax(np.abs(np.fft.rfft(found))) == 440


@pytest.mark.parametrize("samples", [1, 2, 441, 1000, 44101])
def test_the_length_after_resampling_is_known(tmp_path, samples):
    for rate in (8000, 11025, 44100):
        soundfile.write(tmp_path / "a.wav", tone(samples), rate)
        found = len(read_audio(tmp_path / "a.wav", RATE))
        assert found == resampled_length(samples, rate, RATE)


def test_what_is_no_recording_is_named_in_one_line(tmp_path):
    for message, path in make_damaged(tmp_path).items():
        with pytest.raises(AudioError) as caught:
            read_audio(path, RATE)
        assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_headers_show_what_needs_no_decoding(tmp_path):
    decoded = {"cut.flac", "nan.wav", "inf.wav", "3e20.wav"}
    for message, path in make_damaged(tmp_path).items():
        if path.name in decoded:
            assert measure_audio(path, RATE) == (32000, 32000)
            continue
        with pytest.raises(AudioError) as caught:
            measure_audio(path, RATE)
        assert message in str(caught.value)


@pytest.mark.parametrize("kind", ["wav", "flac", "aiff", "ogg", "mp3"])
@pytest.mark.parametrize("part", [0.001, 0.05, 0.5, 0.9])
def test_wherever_a_file_is_cut_it_is_noticed(tmp_path, kind, part):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone(80000), RATE)
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(AudioError, match=r"a\.\w+: (cut off|expected)"):
        read_audio(path, RATE)


@pytest.mark.parametrize("kind", ["rf64", "w64", "au", "nist"])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.9999])
def test_wherever_another_container_is_cut_it_is_noticed(tmp_path, kind, part):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone(80000), RATE, format=kind.upper())
    assert len(read_audio(path, RATE)) == 80000
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(AudioError, match=rf"cut off: expected {len(data)} bytes, got"):
        read_audio(path, RATE)


def test_a_big_endian_wav_that_is_cut_is_noticed(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(80000), RATE, format="WAV", endian="BIG")
    data = path.read_bytes()
    assert data[:4] == b"RIFX" and len(read_audio(path, RATE)) == 80000
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=rf"cut off: expected {len(data)} bytes, got"):
        read_audio(path, RATE)


def test_blocks_say_where_and_whether_all_of_it_was_there(tmp_path):
    samples = np.zeros((10, 2), dtype=np.float32)

    def blocks(frames):
        file = types.SimpleNamespace(frames=frames, samplerate=2)
        parts = iter([samples[:4], samples[4:8], samples[8:]])
        file.read = lambda size, **how: next(parts)
        return list(read_blocks(Path("a.wav"), file, 4))

    assert [len(block) for block in blocks(10)] == [4, 4, 2]
    with pytest.raises(AudioError, match="a.wav: cut off: expected 11 samples, got 10"):
        blocks(11)
    samples[5, 0] = np.inf
    with pytest.raises(AudioError, match="finite samples, got inf at 2.50 s"):
        blocks(10)


def test_a_path_with_a_nul_is_named():
    with pytest.raises(AudioError, match=r"'a\\x00b': expected the path of a file, got one with"):
        read_audio(Path("a\0b"), RATE)


@pytest.mark.parametrize("part", [0.05, 0.3, 0.9, 0.999])
def test_a_caf_is_cut_off_where_its_samples_end(tmp_path, part):
    path = tmp_path / "a.caf"
    soundfile.write(path, tone(80000), RATE, format="CAF", subtype="PCM_16")
    assert len(read_audio(path, RATE)) == 80000
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(AudioError, match=r"a\.caf: cut off: expected \d+ bytes, got \d+$"):
        read_audio(path, RATE)


def test_heads_that_tell_no_end(tmp_path):
    path = tmp_path / "a"
    compressed = b"NIST_1A\n   1024\nsample_coding -s26 pcm,embedded-shorten-v2.00\n"
    sizes = b"sample_count -i 99999\nchannel_count -i 1\nsample_n_bytes -i 2\nend_head\n"
    to_the_end = b"caff\0\1\0\0" + struct.pack(">4sq", b"data", -1)
    backwards = b"caff\0\1\0\0" + struct.pack(">4sq", b"free", -12)
    for data in (compressed + sizes, to_the_end, backwards, b"NIST_1A\n", b"caff"):
        path.write_bytes(data.ljust(1024, b"\0"))
        assert unread(path) is None


@pytest.mark.parametrize("kind", ["caf", "w64"])
def test_a_chunk_of_an_absurd_length_is_cut_off(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    soundfile.write(path, tone(100), RATE, format=kind.upper(), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    # Of the first chunk, which tells the format.
    start = {"caf": 12, "w64": 56}[kind]
    data[start : start + 8] = b"\x7f" * 8
    path.write_bytes(data)
    with pytest.raises(AudioError, match=rf"cut off: expected \d{{19}} bytes, got {len(data)}"):
        read_audio(path, RATE)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_recording(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"a\.wav: expected an audio file, got a pipe"):
        read_audio(tmp_path / "a.wav", RATE)


def test_of_ogg_streams_one_after_another_none_is_left_out_in_silence(tmp_path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, tone(20000), RATE)
    data = path.read_bytes()
    path.write_bytes(data + b"tags of another program")
    assert len(read_audio(path, RATE)) == 20000
    path.write_bytes(data + data)
    with pytest.raises(
        AudioError, match=f"expected one Ogg stream, got more from byte {len(data)}"
    ):
        read_audio(path, RATE)


def ogg_page(stream, is_last, size=100):
    return struct.pack("<4sBB8xI8xBB", b"OggS", 0, 4 * is_last, stream, 1, size) + bytes(size)


def test_ogg_streams_side_by_side_end_one_by_one(tmp_path):
    path = tmp_path / "a.ogg"
    pages = [ogg_page(*page) for page in ((1, False), (2, False), (1, True), (2, False), (2, True))]
    path.write_bytes(b"".join(pages))
    assert unread(path) is None
    path.write_bytes(b"".join(pages[:-1]))
    assert unread(path) == "cut off: expected a last Ogg page, got none that ends the stream"


def test_an_au_file_from_a_pipe_has_no_length_to_break(tmp_path):
    path = tmp_path / "a.au"
    soundfile.write(path, tone(5000), RATE, format="AU")
    data = bytearray(path.read_bytes())
    data[8:12] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, RATE)) == 5000


def test_a_wav_file_from_a_pipe_has_no_length_to_break(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(5000), RATE)
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert len(read_audio(path, RATE)) == 5000


def test_other_chunks_of_a_wav_file_are_passed_over(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(5000), RATE)
    data = path.read_bytes()
    odd = b"note" + (3).to_bytes(4, "little") + b"abc\0"
    path.write_bytes(data[:36] + odd + data[36:])
    assert len(read_audio(path, RATE)) == 5000
    path.write_bytes(data[:36] + odd + data[36:-2])
    with pytest.raises(AudioError, match="cut off: expected 10056 bytes, got 10054"):
        read_audio(path, RATE)


def test_a_missing_library_is_named_with_the_command_that_installs_it():
    with pytest.raises(
        ImportError, match=r"no_such_library.*pip install 'fairseq_rnnprune\[speech\]'"
    ):
        require("no_such_library")
