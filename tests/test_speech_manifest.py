"""Manifests of recordings."""

from pathlib import Path

import pytest
from speech_corpus import make_corpus

from fairseq_rnnprune.speech.manifest import Utterance, read_manifest, write_manifest

HEADER = "path\tsamples\tspeaker\ttext\n"


def read(folder, content, encoding="utf-8"):
    path = folder / "train.tsv"
    path.write_bytes(content.encode(encoding))
    return read_manifest(path)


def test_rows_in_order(tmp_path):
    found = read_manifest(make_corpus(tmp_path) / "train.tsv")
    assert len(found) == 8
    assert found[1] == Utterance(tmp_path / "flac" / "train1.flac", 12000, "train-1", "YES")


def test_what_spreadsheets_and_windows_make_of_it(tmp_path):
    plain = read(tmp_path, HEADER + "a.wav\t7\tann\tgo on\n")
    assert plain == [Utterance(tmp_path / "a.wav", 7, "ann", "go on")]
    assert read(tmp_path, "\ufeff" + HEADER + "a.wav\t7\tann\tgo on") == plain
    windows = (HEADER + "a.wav\t7\tann\tgo on\n\n").replace("\n", "\r\n")
    assert read(tmp_path, windows) == plain


def test_columns_in_any_order_more_of_them_and_no_speaker(tmp_path):
    found = read(tmp_path, 'text\tage\tsamples\tpath\n"go\t40\t7\ta.wav\n\t40\t0\tb.wav\n')
    assert found == [
        Utterance(tmp_path / "a.wav", 7, "", '"go'),
        Utterance(tmp_path / "b.wav", 0, "", ""),
    ]


def test_a_transcript_keeps_its_rarer_line_separators(tmp_path):
    assert read(tmp_path, HEADER + "a.wav\t7\tann\tgo\u2028on\x0b\n")[0].text == "go\u2028on\x0b"


def test_absolute_and_home_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/srv/ann")
    found = read(tmp_path, HEADER + "/data/a.wav\t7\tann\tgo\n~/b.wav\t7\tann\tgo\n")
    assert [u.path for u in found] == [Path("/data/a.wav"), Path("/srv/ann/b.wav")]


def test_a_name_that_begins_like_a_home_of_nobody_is_a_name(tmp_path):
    found = read(tmp_path, HEADER + "~nobody-of-that-name/a.wav\t7\tann\tgo\n")
    assert found[0].path == tmp_path / "~nobody-of-that-name" / "a.wav"


def test_rows_are_counted_without_empty_lines(tmp_path):
    found = read(tmp_path, HEADER + "a.wav\t7\tann\tgo\n\nb.wav\t7\tann\tgo\n")
    assert [u.row for u in found] == [0, 1]
    assert Utterance(Path("a.wav"), 7, "ann", "go").row == -1


def test_what_is_written_is_read(tmp_path):
    written = [Utterance(Path("/data/a.wav"), 7, "ann", "grün"), Utterance(Path("b"), 0, "", "")]
    write_manifest(tmp_path / "train.tsv", written)
    assert (tmp_path / "train.tsv").read_text("utf-8").startswith(HEADER)
    assert read_manifest(tmp_path / "train.tsv") == [
        written[0],
        Utterance(tmp_path / "b", 0, "", ""),
    ]


def test_the_same_recording_twice_is_two_utterances(tmp_path):
    assert len(read(tmp_path, HEADER + "a.wav\t7\tann\tgo\n" * 2)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"header .* no path and no samples and no text in ''"),
        ("a.wav\t7\tann\tgo\n", "header .* no path and no samples"),
        ("path\tsamples\n", "no text"),
        (HEADER.replace("\t", ","), "tab-separated names"),
        ("path\tsamples\ttext\ttext\n", "a name twice"),
        (HEADER, "expected utterances .* only its header"),
        (HEADER + "a.wav\t7\tann\tgo\nb.wav\t7\tgo\n", "4 tab-separated fields, got 3 in line 3"),
        (HEADER + "a.wav\t7\tann\tgo\ton\n", "4 tab-separated fields, got 5 in line 2"),
        (HEADER + "a.wav\t7.5\tann\tgo\n", "whole number >= 0, got '7.5' in line 2"),
        (HEADER + "a.wav\t-7\tann\tgo\n", "whole number >= 0, got '-7'"),
        (HEADER + "a.wav\t\tann\tgo\n", "whole number >= 0, got ''"),
        (HEADER + " \t7\tann\tgo\n", "expected a path, got none in line 2"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_missing_folder_and_other_encodings_are_refused(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        read_manifest(tmp_path / "none.tsv")
    with pytest.raises(ValueError, match="directory"):
        read_manifest(tmp_path)
    with pytest.raises(ValueError, match="expected UTF-8"):
        read(tmp_path, HEADER + "a.wav\t7\tann\tgrün\n", "latin-1")
