"""`rnnprune prepare`, and the settings that it writes."""

import argparse
import dataclasses
import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from speech_corpus import RATE, TEXTS, make_corpus, make_damaged, write_manifest

from fairseq_rnnprune.speech.audio import read_audio
from fairseq_rnnprune.speech.config import SpeechConfig
from fairseq_rnnprune.speech.features import log_mel
from fairseq_rnnprune.speech.manifest import read_manifest
from fairseq_rnnprune.speech.prepare import add_prepare
from fairseq_rnnprune.speech.units import CharacterUnits, load_units

GLOBAL = SpeechConfig(mel_bins=4, normalization="global", mean=[0.1] * 4, std=[1] * 4)


def prepare(*arguments):
    parser = argparse.ArgumentParser()
    add_prepare(parser.add_subparsers())
    args = parser.parse_args(["prepare", *map(str, arguments)])
    args.run(args)


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "data")


def add(corpus, split, *rows):
    """Adds rows of path, samples, speaker, text."""
    with open(corpus / f"{split}.tsv", "a", encoding="utf-8") as file:
        file.writelines("\t".join(map(str, row)) + "\n" for row in rows)


def test_what_it_writes_and_prints(corpus, capsys):
    prepare(corpus, "--mel-bins", "20")
    printed = capsys.readouterr().out
    assert re.findall(r"^(\w+) +8 +0 +3 +0\.00$", printed, re.M) == ["train", "valid", "test"]
    counts = CharacterUnits().counts(TEXTS)
    assert f"{len(counts)} units" in printed
    assert (corpus / "dict.txt").read_text() == "".join(f"{s} {n}\n" for s, n in counts.items())
    config = SpeechConfig.load(corpus)
    assert (config.mel_bins, config.sample_rate, config.units) == (20, RATE, "characters")
    audio = [read_audio(u.path, RATE) for u in read_manifest(corpus / "train.tsv")]
    frames = np.concatenate([log_mel(a, config) for a in audio]).astype(np.float64)
    np.testing.assert_allclose(config.mean, frames.mean(0), rtol=1e-6)
    np.testing.assert_allclose(config.std, frames.std(0), rtol=1e-6)
    assert len(list((corpus / "features").rglob("*.npy"))) == 24
    command = shlex.split(printed.split("next: ")[1])
    assert command[:2] == ["fairseq-train", str(corpus)]
    assert command[command.index("--post-process") + 1] == "letter"
    assert "--disable-validation" not in command


def test_sentencepiece_and_utterance_normalisation(corpus, capsys):
    prepare(corpus, "--units", "sentencepiece", "--sentencepiece-size", "20",
            "--normalization", "utterance", "--sample-rate", "8000")  # fmt: skip
    config = SpeechConfig.load(corpus)
    assert config == SpeechConfig(sample_rate=8000, units="sentencepiece")
    counts = load_units("sentencepiece", corpus).counts(TEXTS)
    assert (corpus / "dict.txt").read_text() == "".join(f"{s} {n}\n" for s, n in counts.items())
    printed = capsys.readouterr().out
    assert f"{len(counts)} units" in printed and "sentencepiece.model" in printed
    assert "--post-process sentencepiece" in printed


def test_train_alone_will_do(tmp_path, capsys):
    prepare(make_corpus(tmp_path, ("train",)))
    assert "--disable-validation" in capsys.readouterr().out


def test_refusing_names_the_bad_of_every_split_and_writes_nothing(corpus, tmp_path):
    add(corpus, "train", ("none.wav", 5, "ann", "GO"), ("flac/train0.flac", 4000, "ann", ""))
    add(corpus, "test", ("flac/test0.flac", 4000, "ann", "GÖ"))
    with pytest.raises(ValueError) as caught:
        prepare(corpus)
    first, *lines = str(caught.value).split("\n")
    assert "got 3 of 27" in first
    assert [line.split(": ")[0] for line in lines] == [
        str(corpus / name) for name in ("none.wav", "flac/train0.flac", "flac/test0.flac")
    ]
    assert "'Ö'" in lines[2]
    assert not [name for name in ("dict.txt", "speech.json") if (corpus / name).exists()]


def test_skipping_leaves_them_out_of_units_and_statistics(corpus, tmp_path, capsys, caplog):
    prepare(corpus)
    before = {n: (corpus / n).read_text() for n in ("dict.txt", "speech.json")}
    bad = make_damaged(tmp_path / "bad").values()
    add(corpus, "train", *((path, 32000, "ann", "ÄÖÜ") for path in bad))
    add(corpus, "valid", ("flac/valid0.flac", 4000, "ann", "ÄÖÜ"))
    capsys.readouterr()
    prepare(corpus, "--bad-utterances", "skip")
    assert before == {n: (corpus / n).read_text() for n in before}
    printed = capsys.readouterr().out
    assert re.search(rf"^train +8 +{len(bad)} +3 ", printed, re.M)
    assert re.search(r"^valid +8 +1 +3 ", printed, re.M)
    # The training that is proposed would refuse them otherwise.
    assert "--bad-utterances skip" in printed.split("next: ")[1]
    assert f"skipped {len(bad)} of {8 + len(bad)} utterances of train.tsv" in caplog.messages
    assert sum(m.startswith("skipped: ") for m in caplog.messages) == len(bad) + 1


@pytest.mark.parametrize("units", ["characters", "sentencepiece"])
def test_what_only_skipped_texts_say_is_no_unit(corpus, units):
    options = ["--units", units, "--bad-utterances", "skip", "--sentencepiece-size", "20"]
    prepare(corpus, *options)
    before = (corpus / "dict.txt").read_text()
    # The bar and the low line are what the units write a space with.
    add(corpus, "train", ("flac/train0.flac", 4000, "ann", "ЖЖ | \u2581"))
    prepare(corpus, *options)
    assert (corpus / "dict.txt").read_text() == before


def test_a_corpus_with_nothing_to_learn_from_is_refused(corpus, tmp_path):
    write_manifest(
        corpus / "train.tsv", [(p, 1, "", "GO") for p in make_damaged(tmp_path / "b").values()]
    )
    for policy in ("refuse", "skip"):
        with pytest.raises(ValueError, match="got 12 of 12 that are not; mend or remove them\n"):
            prepare(corpus, "--bad-utterances", policy, "--units", "sentencepiece")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mel-bins", "500"], "expected fewer mel bins"),
        (["--mel-bins", "2"], "mel_bins to be a whole number >= 4, got 2"),
        (["--sample-rate", "16"], "sample_rate to be a whole number >= 1000, got 16"),
        (
            ["--units", "sentencepiece", "--sentencepiece-size", "3"],
            "--sentencepiece-size .* got 3",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(corpus, arguments, message):
    with pytest.raises(ValueError, match=message):
        prepare(corpus, *arguments)


def test_a_folder_without_data_or_permission_is_refused(tmp_path, corpus, monkeypatch):
    with pytest.raises(ValueError, match="expected a folder with train.tsv, got .*nowhere"):
        prepare(tmp_path / "nowhere")

    def refuse(**options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(ValueError, match="a folder that can be written, got .*Permission denied"):
        prepare(corpus)


def test_constant_features_have_a_spread_all_the_same(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(8000), RATE)
    write_manifest(tmp_path / "train.tsv", [("a.wav", 8000, "ann", "GO")])
    prepare(tmp_path)
    assert min(SpeechConfig.load(tmp_path).std) > 0


def test_the_package_needs_no_extra_until_it_is_used():
    code = (
        "import sys\n"
        "extra = 'soundfile soxr kaldi_native_fbank sentencepiece editdistance'.split()\n"
        "sys.modules.update(dict.fromkeys(extra))\n"
        "import fairseq_rnnprune.speech.prepare, fairseq_rnnprune.speech.checks\n"
        "import fairseq_rnnprune.speech.units\n"
        "assert 'fairseq' not in sys.modules\n"
        "from pathlib import Path\n"
        "from fairseq_rnnprune.speech.audio import read_audio\n"
        "read_audio(Path(__file__ if '__file__' in globals() else sys.executable), 16000)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'fairseq_rnnprune[speech]'" in done.stderr.splitlines()[-1]
    assert "soundfile" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("config", [SpeechConfig(), GLOBAL])
def test_settings_survive_their_file(tmp_path, config):
    config.save(tmp_path)
    found = SpeechConfig.load(tmp_path)
    assert found == config and hash(found) == hash(config)
    plain = config.to_dict()
    assert SpeechConfig.from_dict(plain) == config and json.loads(json.dumps(plain)) == plain


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_rate": 16000.0}, "sample_rate to be a whole number"),
        ({"mel_bins": True}, "mel_bins to be a whole number"),
        ({"normalization": "none"}, "one of global, utterance, got 'none'"),
        ({"units": "words"}, "one of characters, sentencepiece, got 'words'"),
        ({"mean": None}, "mean to hold 4 values, one per mel bin, got none"),
        ({"mel_bins": 5}, "mean to hold 5 values"),
        ({"std": [1, 1, 0, 1]}, "finite numbers above 0, got 0"),
        ({"mean": [0, 0, float("nan"), 0]}, "finite numbers, got nan"),
        ({"mean": [0, 0, "x", 0]}, "finite numbers, got 'x'"),
        ({"normalization": "utterance"}, "no mean with normalization 'utterance', got 4 values"),
    ],
)
def test_settings_are_validated(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GLOBAL, **changes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "got no such file; run rnnprune prepare"),
        ("{", r"speech.json: .*; run rnnprune prepare"),
        ("[]", "expected an object, got list"),
        ('{"hop": 3}', "expected the names sample_rate, .*, got hop"),
    ],
)
def test_what_is_no_settings_file_is_refused(tmp_path, content, message):
    if content is not None:
        (tmp_path / "speech.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        SpeechConfig.load(tmp_path)


def test_an4(shared_data, tmp_path, capsys):
    """Some utterances of each split of a real corpus."""
    an4 = shared_data("an4")
    for split in ("train", "valid", "test"):
        found = read_manifest(an4 / f"{split}.tsv")[::20]
        rows = [(u.path, u.samples, u.speaker, u.text) for u in found]
        write_manifest(tmp_path / f"{split}.tsv", rows)
    prepare(tmp_path)
    assert re.search(r"^train +43 +0 +43 ", capsys.readouterr().out, re.M)
    # Speech in 16 bits: energies far above the floor, none of them constant.
    config = SpeechConfig.load(tmp_path)
    assert min(config.mean) > 5 and 1 < min(config.std) < max(config.std) < 5
