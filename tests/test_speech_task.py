"""`rnnprune_speech` in fairseq's own commands: training, checkpoints, decoding."""

import dataclasses
import re
import shutil

import pytest
import soundfile
import torch
from fairseq import checkpoint_utils
from speech_corpus import RATE, TEXTS, tone, write_manifest
from speech_runs import PRUNED, prepare_corpus, run_generate, run_train

from fairseq_rnnprune.speech.config import SpeechConfig
from fairseq_rnnprune.speech.task import parse_speeds


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return prepare_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    return run_train(data, tmp_path_factory.mktemp("model"), *PRUNED, "--disable-validation")


def hypotheses(printed):
    return re.findall(r"^D-(\d+)\t\S+\t(.*)$", printed, re.M)


def test_a_checkpoint_alone_holds_features_units_and_dictionary(checkpoint, data):
    models, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides={"data": "gone"}
    )
    assert task.config.mel_bins == 20 and len(task.config.mean) == 20
    assert task.units.decode("GO|ON") == "GO ON"
    (symbols, *_) = (data / "dict.txt").read_text().split()
    assert task.target_dictionary.symbols[4] == symbols
    out = models[0].eval()(torch.zeros(1, 30, 20))["encoder_out"]
    assert out.shape[1:] == (1, len(task.target_dictionary))


def test_every_utterance_is_decoded_in_order(checkpoint, data, capfd):
    run_generate(data, checkpoint)
    printed = capfd.readouterr().out
    assert [int(number) for number, _ in hypotheses(printed)] == list(range(len(TEXTS)))
    assert re.findall(r"^T-\d+\t(.*)$", printed, re.M) == list(TEXTS)
    assert re.search(r"CER: [\d.]+ WER: [\d.]+", printed)


@pytest.mark.parametrize("packed", ["fp32", "bf16"])
def test_packed_text_is_dense_text(checkpoint, data, packed, capfd):
    texts = {}
    for choice in ("dense", packed):
        run_generate(data, checkpoint, "--model-overrides", f"{{'packed': '{choice}'}}")
        texts[choice] = hypotheses(capfd.readouterr().out)
    assert texts[packed] == texts["dense"]


def test_the_training_set_is_augmented_in_training_only(checkpoint, data):
    overrides = {"data": str(data), "speeds": "0.8", "freq_masks": 1, "time_masks": 1}
    _, _, task = checkpoint_utils.load_model_ensemble_and_task(
        [str(checkpoint)], arg_overrides=overrides
    )
    task.load_dataset("train")
    plain = task.dataset("train")[0]["source"]
    task.load_dataset("train", epoch=1, combine=True, data_selector=None)
    augmented = task.dataset("train")[0]["source"]
    assert len(augmented) > len(plain) * 1.2
    assert (augmented == 0).any() and not (plain == 0).any()


def test_validation_sets_are_not_joined_in_silence(checkpoint, data):
    _, _, task = checkpoint_utils.load_model_ensemble_and_task([str(checkpoint)])
    another = data / "valid1.tsv"
    another.write_bytes((data / "valid.tsv").read_bytes())
    try:
        task.load_dataset("valid", epoch=1, combine=False)
        with pytest.raises(
            ValueError, match="one manifest with --combine-valid-subsets, got .*1.tsv"
        ):
            task.load_dataset("valid", epoch=1, combine=True)
    finally:
        another.unlink()


def test_six_updates_are_three_and_three(data, tmp_path):
    options = (*PRUNED, "--speeds", "0.9,1.1", "--freq-masks", "1", "--disable-validation")
    whole = run_train(data, tmp_path / "whole", *options)
    halves = tmp_path / "halves"
    run_train(data, halves, *options, "--max-update", "3")
    resumed = run_train(data, halves, *options)
    a, b = (torch.load(path, weights_only=True)["model"] for path in (whole, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_other_data_than_the_checkpoints_is_refused(checkpoint, data, tmp_path, capfd):
    other = shutil.copytree(data, tmp_path / "other")
    lines = (other / "dict.txt").read_text().splitlines()
    (other / "dict.txt").write_text("\n".join(lines[1:] + lines[:1]) + "\n")
    with pytest.raises(ValueError, match="expected data with the units of the checkpoint"):
        run_generate(other, checkpoint)


@pytest.mark.parametrize("what", ["units", "features"])
def test_a_training_goes_on_with_its_own_data_only(data, tmp_path, what):
    other, model = shutil.copytree(data, tmp_path / "other"), tmp_path / "model"
    first = run_train(other, model, "--max-update", "1", "--disable-validation")
    if what == "units":
        lines = (other / "dict.txt").read_text().splitlines()
        (other / "dict.txt").write_text("\n".join(lines[1:] + lines[:1]) + "\n")
    else:
        config = SpeechConfig.load(other)
        dataclasses.replace(config, mean=config.mean[::-1]).save(other)
    before = first.read_bytes()
    with pytest.raises(ValueError, match=f"the {what} of the checkpoint.*sentencepiece.model"):
        run_train(other, model, "--disable-validation")
    assert first.read_bytes() == before
    # Another training.
    run_train(other, model, "--disable-validation", "--reset-optimizer")
    assert first.read_bytes() != before


def rewrite_test_set(data, folder, change):
    """A copy of the data with other rows in test.tsv."""
    copy = shutil.copytree(data, folder)
    rows = [line.split("\t") for line in (copy / "test.tsv").read_text().splitlines()[1:]]
    write_manifest(copy / "test.tsv", change(rows))
    return copy


def test_utterances_are_named_by_their_rows_where_others_are_skipped(
    checkpoint, data, tmp_path, capfd
):
    def insert(rows):
        return [*rows[:2], ("missing.wav", 1, "a", "NO"), *rows[2:]]

    bad = rewrite_test_set(data, tmp_path / "bad", insert)
    run_generate(bad, checkpoint, "--bad-utterances", "skip")
    printed = capfd.readouterr().out
    expected = {0: TEXTS[0], 1: TEXTS[1], **{i + 1: TEXTS[i] for i in range(2, len(TEXTS))}}
    found = re.findall(r"^T-(\d+)\t(.*)$", printed, re.M)
    assert {int(number): text for number, text in found} == expected
    assert [int(number) for number, _ in hypotheses(printed)] == list(expected)


def test_transcripts_outside_the_dictionary_are_decoded_and_named(
    checkpoint, data, tmp_path, capfd, caplog
):
    def spell(rows):
        texts = ["GÜ", "", *["É"] * 10, "NO"]
        return [(*row[:3], text) for row, text in zip(rows * 2, texts, strict=False)]

    other = rewrite_test_set(data, tmp_path / "other", spell)
    run_generate(other, checkpoint)
    texts = re.findall(r"^T-\d+\t(.*)$", capfd.readouterr().out, re.M)
    assert texts == ["G\ufffd", "", *["\ufffd"] * 10, "NO"]
    assert "test0.flac: expected units of the dictionary, got 'Ü' in 'GÜ'" in caplog.text
    named = [m for m in caplog.messages if "expected units of the dictionary" in m]
    assert len(named) == 10
    assert "11 of 13 transcripts of test.tsv cannot be spelled" in caplog.text


def test_too_short_for_its_text_is_named_in_the_validation_set_too(data, tmp_path):
    bad = shutil.copytree(data, tmp_path / "bad")
    soundfile.write(bad / "short.wav", tone(1600), RATE)
    rows = [line.split("\t") for line in (bad / "valid.tsv").read_text().splitlines()[1:]]
    write_manifest(bad / "valid.tsv", [("short.wav", 1600, "a", "GO ON GO ON GO ON"), *rows])
    with pytest.raises(ValueError, match="short.wav: expected at least [0-9]+ output frames for"):
        run_train(bad, tmp_path / "model")


def test_bad_utterances_are_refused_or_skipped_as_chosen(data, tmp_path, caplog):
    bad = shutil.copytree(data, tmp_path / "bad")
    soundfile.write(bad / "short.wav", tone(1600), RATE)
    (bad / "text.wav").write_text("no audio")
    rows = [("short.wav", 1600, "a", "MUCH TOO MANY LETTERS"), ("text.wav", 1, "a", "NO")]
    rows += [line.split("\t") for line in (bad / "train.tsv").read_text().splitlines()[1:]]
    write_manifest(bad / "train.tsv", rows)
    with pytest.raises(ValueError, match="2 of 10") as refused:
        run_train(bad, tmp_path / "refused", "--disable-validation")
    assert "short.wav" in str(refused.value) and "text.wav" in str(refused.value)
    run_train(bad, tmp_path / "skipped", "--disable-validation", "--bad-utterances", "skip")
    assert "skipped 2 of 10 utterances of train.tsv" in caplog.text


def test_an_unprepared_folder_names_the_command(tmp_path):
    with pytest.raises(ValueError, match="rnnprune prepare"):
        run_train(tmp_path, tmp_path / "model")


@pytest.mark.parametrize("text", ["", "fast", "0", "0.4,1", "1;1.1", "nan"])
def test_speeds_must_be_speeds(text):
    with pytest.raises(ValueError, match=r"--speeds: expected numbers from 0.5 to 2"):
        parse_speeds(text)
