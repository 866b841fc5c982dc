"""`rnnprune transcribe` as a user meets it, on models that fairseq-train wrote."""

import argparse
import errno
import json
import os
import re
import shutil
import subprocess
import sys
import weakref

import pytest
import soundfile
import torch
from cli_runs import save_dense
from fairseq import checkpoint_utils
from speech_corpus import RATE, tone
from speech_language_model import train_on_texts
from speech_runs import prepare_corpus, run_generate
from transcribe_runs import damaged_files, lines_of, make_command, train_talkative

from fairseq_rnnprune.checkpoint import checkpoint_of, load_state, write_packed_file
from fairseq_rnnprune.layers import GRU
from fairseq_rnnprune.speech.generator import CTCGenerator
from fairseq_rnnprune.speech.loading import load_speech_model
from fairseq_rnnprune.speech.transcribe import add_transcribe
from fairseq_rnnprune.speech.transcript import find_words


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    return train_talkative(data, tmp_path_factory.mktemp("model"))


@pytest.fixture
def run(monkeypatch, capfd):
    return make_command(monkeypatch, capfd)


@pytest.mark.parametrize("more", [[], ["--beam", "4"]])
def test_it_says_what_fairseq_generate_says(run, data, model, capfd, more):
    run_generate(data, model, *more)
    expected = re.findall(r"^D-\d+\t\S+\t(.*)$", capfd.readouterr().out, re.M)
    status, out, err = run(model, data / "flac", *more, "--batch-size", "3")
    assert (status, err) == (0, "")
    found = lines_of(out)
    assert len(found) == 24 and list(found) == sorted(found)
    assert [found[str(data / "flac" / f"test{i}.flac")] for i in range(8)] == [
        " ".join(text.split()) for text in expected
    ]
    assert len(set(expected)) > 4, "the models must have something to say"


def test_an_exported_model_says_the_same(run, data, model, tmp_path):
    state = load_state(model)
    file = tmp_path / "model.safetensors"
    write_packed_file(file, state, checkpoint_of(state, model).model)
    texts = []
    for path in (model, file):
        status, out, err = run(path, data / "flac", "--packed", "fp32")
        assert (status, err) == (0, "")
        texts.append(lines_of(out))
    assert texts[0] == texts[1] and len(set(texts[0].values())) > 4


def test_it_holds_packed_weights_once(model):
    layer = load_speech_model(model, "fp32").model.rnn
    assert layer.sparse is not None and layer.is_released
    assert load_speech_model(model, "dense").model.state_dict()


def test_fairseqs_copy_of_the_weights_is_gone_before_packing(model, monkeypatch):
    read, alive = [], []

    def load(*args, _load=checkpoint_utils.load_checkpoint_to_cpu, **kwargs):
        state = _load(*args, **kwargs)
        read.extend(weakref.ref(weight) for weight in state["model"].values())
        # As fairseq's own objects do.
        state["itself"] = state
        return state

    def pack(self, *args, _pack=GRU.pack, **kwargs):
        alive.extend(weight() is not None for weight in read)
        _pack(self, *args, **kwargs)

    monkeypatch.setattr(checkpoint_utils, "load_checkpoint_to_cpu", load)
    monkeypatch.setattr(GRU, "pack", pack)
    load_speech_model(model, "fp32")
    assert alive and not any(alive)


def test_the_checkpoint_is_all_that_it_needs(run, data, model, tmp_path):
    alone = shutil.copy(model, tmp_path / "model.pt")
    state = torch.load(alone, weights_only=True)
    state["cfg"]["task"]["data"] = str(tmp_path / "gone")
    torch.save(state, alone)
    audio = data / "flac" / "test0.flac"
    assert run(alone, audio) == run(model, audio)


def test_one_recording_needs_no_name(run, data, model):
    status, out, _ = run(model, data / "flac" / "test0.flac")
    assert status == 0 and out.count("\n") == 1 and "\t" not in out


@pytest.mark.parametrize("packed", ["dense", "fp32", "bf16", "int8"])
def test_packed_weights_say_the_same(run, data, model, packed, caplog):
    caplog.set_level("INFO", "fairseq_rnnprune")
    audio = sorted((data / "flac").glob("test*"))
    expected = run(model, *audio)
    caplog.clear()
    found = run(model, *audio, "--packed", packed)
    assert f"rnn (packed={packed})" in caplog.text
    if packed in ("dense", "fp32"):
        assert found == expected
    assert lines_of(found[1]).keys() == lines_of(expected[1]).keys()


def test_json_has_words_with_times(run, data, model):
    status, out, _ = run(
        model, data / "flac" / "test0.flac", data / "flac" / "test1.flac", "--json"
    )
    assert status == 0
    for line, name in zip(out.splitlines(), ("test0.flac", "test1.flac"), strict=True):
        read = json.loads(line)
        path = data / "flac" / name
        assert read["path"] == str(path)
        assert read["seconds"] == soundfile.info(path).frames / RATE
        assert " ".join(word["word"] for word in read["words"]) == read["text"]
        times = [t for word in read["words"] for t in (word["start"], word["end"])]
        assert all(0 <= t <= read["seconds"] for t in times)
        assert all(word["start"] < word["end"] for word in read["words"])
        assert list(read) == ["path", "seconds", "text", "words"]


def test_bad_recordings_among_good_ones_are_named(run, data, model, tmp_path):
    bad = damaged_files(tmp_path / "bad")
    soundfile.write(tmp_path / "short.wav", tone(200), RATE)
    good = [data / "flac" / f"test{i}.flac" for i in (0, 1)]
    wrong = [*bad, tmp_path / "short.wav", tmp_path / "empty"]
    (tmp_path / "empty").mkdir()
    expected = lines_of(run(model, *good)[1])
    for more in ([], ["--batch-size", "2"]):
        status, out, err = run(model, good[0], *wrong, good[1], *more)
        assert status == 2
        assert lines_of(out) == expected
        *named, last = err.splitlines()
        assert f"got {len(wrong)} of {len(wrong) + 2} that cannot be used" in last
        for line, path in zip(named, wrong, strict=True):
            assert line.startswith(f"rnnprune transcribe: {path}: ")
        assert "window of 25 ms, got 12.5 ms" in err and "expected recordings (" in err


def test_a_name_that_cannot_be_printed_ends_nothing(run, data, model, tmp_path, monkeypatch):
    folder = tmp_path / "audio"
    folder.mkdir()
    for name in (b"a\n\tb.flac", b"caf\xe9.flac", b"z.flac"):
        shutil.copy(data / "flac" / "test0.flac", folder / os.fsdecode(name))
    with open(tmp_path / "out", "w", encoding="utf-8") as out:
        monkeypatch.setattr(sys, "stdout", out)
        status, _, err = run(model, folder)
    assert (status, err) == (0, "")
    names = [*lines_of((tmp_path / "out").read_text("utf-8"))]
    assert names == [f"{folder}/{name}.flac" for name in ("a\ufffd\ufffdb", "caf\ufffd", "z")]


def test_links_are_followed_once_and_what_cannot_be_read_is_named(run, data, model, tmp_path):
    folder = tmp_path / "audio"
    (folder / "a").mkdir(parents=True)
    shutil.copy(data / "flac" / "test0.flac", folder / "a" / "0.flac")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(data / "flac" / "test1.flac", elsewhere / "1.flac")
    (folder / "linked").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(folder)
    (elsewhere / "same").symlink_to(folder / "a")
    (folder / "same").symlink_to(folder / "a")
    (folder / "gone.wav").symlink_to(tmp_path / "nowhere.wav")
    (folder / "other.m4a").write_bytes(bytes(100))
    status, out, err = run(model, folder)
    assert status == 2 and f"{folder}/gone.wav: expected an audio file, got No such file" in err
    assert f"{folder}/other.m4a: expected an audio file, got one that cannot be read" in err
    assert [*lines_of(out)] == [f"{folder}/a/0.flac", f"{folder}/linked/1.flac"]


def test_a_folder_that_cannot_be_read_is_named(run, data, model, tmp_path, monkeypatch):
    folder = tmp_path / "audio"
    (folder / "closed").mkdir(parents=True)
    shutil.copy(data / "flac" / "test0.flac", folder / "0.flac")
    scandir = os.scandir

    def refuse(path):
        if os.fspath(path).endswith("closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    status, out, err = run(model, folder)
    assert status == 2 and [*lines_of(out)] == [f"{folder}/0.flac"]
    assert f"{folder}/closed: expected a folder that can be read, got Permission denied" in err


def test_recordings_are_decoded_in_batches(run, data, model, monkeypatch):
    sizes = []
    whole = CTCGenerator.generate

    def generate(self, models, sample):
        sizes.append(len(sample["net_input"]["source"]))
        return whole(self, models, sample)

    monkeypatch.setattr(CTCGenerator, "generate", generate)
    audio = sorted((data / "flac").glob("test*"))
    assert run(model, *audio, data / "missing.wav", "--batch-size", "3")[0] == 2
    assert sizes == [3, 3, 2]


def test_a_language_model_is_found_by_its_dictionary(run, data, model, tmp_path):
    lm = train_on_texts(data, tmp_path)
    audio = data / "flac" / "test0.flac"
    texts = {}
    for weight in ("0", "0.5", "9"):
        status, texts[weight], err = run(
            model, audio, "--beam", "8", "--lm", lm, "--lm-weight", weight
        )
        assert (status, err) == (0, "")
    assert texts["0"] == run(model, audio, "--beam", "8")[1]
    assert texts["0.5"] == run(model, audio, "--beam", "8", "--lm", lm)[1]
    assert texts["9"] != texts["0"]
    shutil.move(tmp_path / "data" / "dict.txt", tmp_path / "dict.txt")
    status, _, err = run(model, audio, "--lm", lm)
    assert status == 2 and "expected dict.txt of the language model in" in err
    letters = (tmp_path / "dict.txt").read_text().splitlines()
    (lm.parent / "dict.txt").write_text("\n".join(letters[::-1]) + "\n")
    status, _, err = run(model, audio, "--lm", lm)
    assert status == 2 and "over the speech model's symbols" in err
    shutil.copy(tmp_path / "dict.txt", lm.parent / "dict.txt")
    assert run(model, audio, "--beam", "8", "--lm", lm, "--lm-weight", "9")[1] == texts["9"]


def test_a_length_bonus_makes_texts_longer(run, data, model):
    audio = sorted((data / "flac").glob("test*"))
    plain, longer = (run(model, *audio, "--beam", "4", *m) for m in ([], ["--length-bonus", "9"]))
    assert plain[0] == longer[0] == 0
    assert len(longer[1]) > len(plain[1])


def test_a_file_of_kenlm_is_known_by_what_it_is(run, data, model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    (tmp_path / "words.arpa").write_text("\\data\\\n")
    status, _, err = run(model, data / "flac" / "test0.flac", "--lm", tmp_path / "words.arpa")
    assert status == 2 and "run pip install kenlm" in err and err.count("\n") == 1


def test_other_files_are_no_models(run, data, model, tmp_path):
    audio = data / "flac" / "test0.flac"
    (tmp_path / "text.pt").write_text("hello")
    for path, message in (
        (tmp_path / "missing.pt", "expected a checkpoint file, got none"),
        (tmp_path / "text.pt", "of another format"),
        (save_dense(tmp_path), "expected a checkpoint of the task rnnprune_speech"),
    ):
        status, out, err = run(path, audio)
        assert (status, out) == (2, "")
        assert message in err and err.count("\n") == 1


def test_a_model_of_another_version_is_named(run, data, model, tmp_path):
    other = tmp_path / "other.pt"
    state = torch.load(model, weights_only=True)
    del state["model"]["output.bias"]
    torch.save(state, other)
    status, _, err = run(other, data / "flac" / "test0.flac")
    assert status == 2 and "expected a checkpoint of this version of the model" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lm-weight", "1"], "--lm-weight: expected --lm PATH as well"),
        (["--batch-size", "0"], "--batch-size: expected a batch size >= 1, got 0"),
        (["--batch-size", "2", "--stream"], "expected no --batch-size with --stream, got 2"),
        (["--chunk-ms", "50"], "--chunk-ms: expected --stream as well, got 50.0"),
        (["--chunk-ms", "0", "--stream"], "expected a length from 0 to 60000 ms, got 0.0"),
        (["--chunk-ms", "inf", "--stream"], "expected a length from 0 to 60000 ms, got inf"),
        (["-"], "expected --stream for -, standard input"),
        (["--packed", "int4"], "invalid choice: 'int4'"),
    ],
)
def test_options_that_do_not_fit_are_refused(run, options, message):
    status, out, err = run("model.pt", "audio.wav", *options)
    assert (status, out) == (2, "")
    assert message in err and err.count("\n") == 1


def test_a_missing_library_is_named(run, data, model, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    status, _, err = run(model, data / "flac" / "test0.flac")
    assert status == 2 and "pip install 'fairseq_rnnprune[speech]'" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("level", [None, "INFO"])
def test_packing_is_told_on_request_only(data, model, level):
    audio = data / "flac" / "test0.flac"
    environment = {k: v for k, v in os.environ.items() if k != "LOGLEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_rnnprune.cli", "transcribe", model, audio],
        env=environment | ({"LOGLEVEL": level} if level else {}),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("\n") == 1
    assert ("packed=auto" in done.stderr) == (level == "INFO")
    assert level or done.stderr == ""


def test_its_parser_imports_nothing_heavy():
    code = (
        "import argparse, sys; from fairseq_rnnprune.speech.transcribe import add_transcribe; "
        "add_transcribe(argparse.ArgumentParser().add_subparsers()); "
        "print({'torch', 'fairseq', 'soundfile'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    ("symbols", "space", "expected"),
    [
        ("", "|", []),
        ("||", "|", []),
        ("|AB||C|", "|", [("AB", 0.03, 0.09), ("C", 0.15, 0.17)]),
        (["▁A", "B", "▁", "C"], "▁", [("AB", 0.0, 0.06), ("C", 0.09, 0.12)]),
        (["▁AB▁C"], "▁", [("AB", 0.0, 0.03), ("C", 0.0, 0.03)]),
    ],
)
def test_words_have_the_times_of_their_symbols(symbols, space, expected):
    assert find_words(symbols, range(len(symbols)), space, 0.03, 0.17) == expected


def test_the_help_names_every_option():
    parser = argparse.ArgumentParser()
    add_transcribe(parser.add_subparsers())
    text = parser._subparsers._group_actions[0].choices["transcribe"].format_help()
    options = "--beam --lm --lm-weight --length-bonus --packed --batch-size --json --stream"
    for option in [*options.split(), "--chunk-ms"]:
        assert option in text


def test_a_bidirectional_model_cannot_stream(run, data, model):
    status, out, err = run(model, data / "flac", "--stream")
    assert (status, out) == (2, "")
    assert "expected a unidirectional model" in err and err.count("\n") == 1
