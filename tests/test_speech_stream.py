"""`rnnprune transcribe --stream`: audio as it comes says what the whole says."""

import io
import json
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from speech_corpus import RATE, tone
from speech_language_model import train_on_texts
from speech_runs import prepare_corpus
from transcribe_runs import damaged_files, lines_of, make_command, train_talkative

from fairseq_rnnprune.speech import transcribe
from fairseq_rnnprune.speech.audio import AudioError, read_audio
from fairseq_rnnprune.speech.ctc import GreedySearch
from fairseq_rnnprune.speech.stream import StreamingSearch, read_chunks

STREAMING = ("--unidirectional", "--lookahead", "2")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def streaming_model(data, tmp_path_factory):
    return train_talkative(data, tmp_path_factory.mktemp("streaming_model"), *STREAMING)


@pytest.fixture
def run(monkeypatch, capfd):
    return make_command(monkeypatch, capfd)


@pytest.mark.parametrize("more", [[], ["--beam", "4"], ["--chunk-ms", "17"], ["--packed", "fp32"]])
def test_a_stream_says_the_same(run, data, streaming_model, more):
    offline = [option for option in more if option not in ("--chunk-ms", "17")]
    audio = sorted((data / "flac").glob("test*"))
    status, out, err = run(streaming_model, *audio, "--stream", *more)
    assert status == 0
    assert out == run(streaming_model, *audio, *offline)[1]
    assert len(err.splitlines()) == len(audio)
    assert re.match(r".*test0.flac: \d+ chunks, latency per chunk [\d.]+ ms \(median\)", err)
    assert any(lines_of(out).values())


@pytest.mark.parametrize("rate", [8000, 22050, 44100])
def test_a_stream_of_another_rate_says_the_same(run, streaming_model, tmp_path, rate):
    path = tmp_path / "stereo.wav"
    left = tone(rate, rate)
    soundfile.write(path, np.stack([left, left[::-1]], axis=1), rate)
    whole = read_audio(path, RATE)
    chunks = list(read_chunks(path, RATE, 37.0))
    assert len(chunks) > 8
    np.testing.assert_allclose(np.concatenate(chunks), whole, atol=1e-6)
    assert run(streaming_model, path, "--stream")[1] == run(streaming_model, path)[1]


def test_a_stream_reports_its_latency(run, data, streaming_model):
    path = data / "flac" / "test1.flac"
    status, out, err = run(streaming_model, path, "--stream", "--json", "--chunk-ms", "50")
    assert (status, err) == (0, "")
    read = json.loads(out)
    samples = soundfile.info(path).frames
    # The end of the audio is a chunk of its own.
    assert read["chunks"] == -(-samples // 800) + 1
    latency = read["latency_ms"]
    assert 0 < latency["median"] <= latency["greatest"]
    # Half a kernel of 11 frames, and 2 frames of lookahead at a stride of 3.
    assert latency["waiting"] == 10 * (5 + 2 * 3)


def test_standard_input_is_a_stream(run, data, streaming_model, monkeypatch, caplog):
    path = data / "flac" / "test2.flac"
    samples, _ = soundfile.read(path, dtype="int16")
    whole = run(streaming_model, path)[1]
    # Half a sample at the end costs that sample only.
    for extra in (b"", b"x"):
        raw = io.BytesIO(samples.astype("<i2").tobytes() + extra)
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=raw))
        assert run(streaming_model, "-", "--stream")[:2] == (0, whole)
    assert "expected samples of 2 bytes" in caplog.text


def test_a_closed_standard_input_is_told(run, streaming_model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    status, _, err = run(streaming_model, "-", "--stream")
    assert status == 2 and "expected audio, got a closed standard input" in err


def test_ctrl_c_ends_a_recording_and_its_text_stays(run, data, streaming_model, monkeypatch):
    path = data / "flac" / "test2.flac"
    samples, _ = soundfile.read(path, dtype="int16")
    raw = io.BytesIO(samples.astype("<i2").tobytes())

    def read(size):
        if data := raw.read(size):
            return data
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=SimpleNamespace(read=read)))
    assert run(streaming_model, "-", "--stream")[:2] == (0, run(streaming_model, path)[1])


def test_a_stream_shows_the_text_as_it_grows(run, data, streaming_model, monkeypatch):
    shown = []
    monkeypatch.setattr(transcribe, "_show", shown.append)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    path = data / "flac" / "test3.flac"
    _, out, _ = run(streaming_model, path, "--stream")
    assert shown[-1] == "" and shown[-2] == out.rstrip("\n")
    assert len(set(shown)) > 2 and shown[0] == ""


def test_a_text_that_nobody_sees_is_made_once(run, data, streaming_model, monkeypatch):
    calls, whole = [], GreedySearch.results

    def results(self, nbest=1, final=True):
        calls.append(final)
        return whole(self, nbest, final)

    monkeypatch.setattr(GreedySearch, "results", results)
    assert run(streaming_model, data / "flac" / "test3.flac", "--stream")[0] == 0
    assert calls == [True]


def test_bad_recordings_in_a_stream_are_named(run, data, streaming_model, tmp_path):
    bad = damaged_files(tmp_path / "bad")
    soundfile.write(tmp_path / "short.wav", tone(200), RATE)
    wrong = [*bad, tmp_path / "short.wav"]
    good = data / "flac" / "test0.flac"
    status, out, err = run(streaming_model, *wrong, good, "--stream", "--json")
    assert status == 2
    assert json.loads(out)["path"] == str(good)
    *named, last = err.splitlines()
    for line, path in zip(named, wrong, strict=True):
        assert line.startswith(f"rnnprune transcribe: {path}: ")
    assert f"got {len(wrong)} of {len(wrong) + 1}" in last


def test_normalisation_by_utterance_cannot_stream():
    config = SimpleNamespace(normalization="utterance")
    with pytest.raises(ValueError, match="expected features with normalization global, got utt"):
        StreamingSearch(None, config, None)


def test_a_stream_ends_its_sentence_in_the_language_model(run, data, streaming_model, tmp_path):
    more = ["--beam", "8", "--lm", train_on_texts(data, tmp_path), "--lm-weight", "9"]
    audio = sorted((data / "flac").glob("test*"))
    whole = run(streaming_model, *audio, *more)
    assert run(streaming_model, *audio, *more, "--stream")[1] == whole[1]


def test_the_line_on_the_terminal_is_replaced(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "6")
    transcribe._show("GO ON AND ON")
    assert capsys.readouterr().out == "\r\x1b[KND ON"


def test_a_stream_refuses_what_reading_the_whole_refuses(tmp_path):
    for path in damaged_files(tmp_path):
        for read in (read_audio, lambda *arguments: list(read_chunks(*arguments, 100.0))):
            with pytest.raises(AudioError, match=f"^{re.escape(str(path))}: ") as refused:
                read(path, RATE)
            assert "\n" not in str(refused.value)
