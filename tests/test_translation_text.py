"""Text and its pieces: encodings, sentencepiece models, and translation from Python."""

import io
import logging
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from fairseq.data import Dictionary
from fairseq.data.encoders.sentencepiece_bpe import SentencepieceBPE, SentencepieceConfig
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import OmegaConf
from translation_runs import binarise, make_pairs, printed, run_interactive, train_pairs

from fairseq_rnnprune.compat.text import check_sentencepiece_models, name_text_that_is_not_utf8
from fairseq_rnnprune.models.gru_seq2seq import GRUSeq2Seq

USER_DIR = Path(__file__).parent.parent / "user_dir"

name_text_that_is_not_utf8()
check_sentencepiece_models()


def train_pieces(lines, size):
    """The bytes of a sentencepiece model."""
    raw = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=raw, vocab_size=size, minloglevel=2
    )
    return raw.getvalue()


@pytest.fixture(scope="module")
def sentencepiece_run(tmp_path_factory):
    """A model of sentencepieces, the folder of its data and the pieces' file."""
    folder = tmp_path_factory.mktemp("pieces")
    make_pairs(folder)
    model = train_pieces((folder / "train.en").read_text().splitlines(), 30)
    (folder / "spm.model").write_bytes(model)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    for path in [*folder.glob("*.en"), *folder.glob("*.de")]:
        lines = path.read_text().splitlines()
        path.write_text("".join(" ".join(pieces.encode(x, out_type=str)) + "\n" for x in lines))
    data = binarise(folder, folder / "pieces")
    train_pairs(data, folder / "model", "--optimizer", "adam", "--max-update", "20")
    return folder / "model", data, folder / "spm.model"


@pytest.mark.parametrize("choice", ["dense", "fp32"])
def test_from_python(sentencepiece_run, choice, capsys, tmp_path, caplog):
    folder, data, pieces = sentencepiece_run
    hub = GRUSeq2Seq.from_pretrained(
        str(folder),
        "checkpoint_last.pt",
        data_name_or_path=str(data),
        bpe="sentencepiece",
        sentencepiece_model=str(pieces),
        packed=choice,
    )
    assert (hub.models[0].decoder.gru.sparse is None) == (choice == "dense")
    lines = ["the cat eats", "", "Ünknown dog"]
    texts = hub.translate(lines, beam=3, max_len_b=10)
    (tmp_path / "input").write_text("\n".join(lines) + "\n")
    bpe = ("--bpe", "sentencepiece", "--sentencepiece-model", str(pieces))
    run_interactive(data, folder / "checkpoint_last.pt", tmp_path / "input", *bpe)
    answers = printed(capsys.readouterr().out, "D")
    assert texts == [answers[i] for i in range(3)]
    assert hub.translate("the cat eats", beam=3, max_len_b=10) == texts[0]
    assert hub.translate([]) == []
    assert not any("▁" in text for text in texts)
    # Neither the hub nor the command takes the right pieces for others.
    assert "no pieces of this" not in caplog.text


def test_text_that_is_not_utf8_is_named():
    encoder = object.__new__(SentencepieceBPE)
    message = r"expected text in UTF-8, got 'caf\\udce9'; convert it"
    with pytest.raises(ValueError, match=message):
        encoder.encode(b"caf\xe9".decode("utf-8", "surrogateescape"))


def test_interactive_names_the_line_that_is_not_utf8_after_the_answers_before(
    sentencepiece_run, capsys, tmp_path
):
    folder, data, _ = sentencepiece_run
    file = tmp_path / "input"
    file.write_bytes(b"the cat\nthe dog\ncaf\xe9\nthe bird\n")
    with pytest.raises(ValueError, match=rf"{file}:3: expected text in UTF-8, got 'caf\\udce9"):
        run_interactive(data, folder / "checkpoint_last.pt", file, "--buffer-size", "9")
    assert list(printed(capsys.readouterr().out, "D")) == [0, 1]


@pytest.mark.parametrize("how", ["command", "hub"])
def test_a_sentencepiece_model_of_other_text_is_told(sentencepiece_run, tmp_path, caplog, how):
    folder, data, _ = sentencepiece_run
    model = tmp_path / "spm.model"
    model.write_bytes(train_pieces(["zwölf Boxkämpfer jagen Viktor"] * 9, 25))
    with caplog.at_level(logging.WARNING):
        if how == "hub":
            GRUSeq2Seq.from_pretrained(
                *(str(folder), "checkpoint_last.pt", str(data)),
                bpe="sentencepiece",
                sentencepiece_model=str(model),
            )
        else:
            (tmp_path / "input").write_text("the cat\n")
            bpe = ("--bpe", "sentencepiece", "--sentencepiece-model", str(model))
            run_interactive(data, folder / "checkpoint_last.pt", tmp_path / "input", *bpe)
    assert "symbols of the dictionary are no pieces of this sentencepiece model" in caplog.text


def test_the_model_of_either_language_is_right(sentencepiece_run, caplog):
    _, data, pieces = sentencepiece_run
    joint = Dictionary.load(str(data / "dict.en.txt"))
    other = Dictionary()
    other.add_symbol("andere")
    for dictionaries in ((joint, other), (other, joint)):
        task = TranslationTask(TranslationConfig(), *dictionaries)
        cfg = OmegaConf.structured(SentencepieceConfig(sentencepiece_model=str(pieces)))
        OmegaConf.set_struct(cfg, False)
        cfg._name = "sentencepiece"
        assert task.build_bpe(cfg).encode("the cat")
    assert not caplog.text


def test_standard_input_of_the_command(sentencepiece_run):
    folder, data, _ = sentencepiece_run
    command = [sys.executable, "-m", "fairseq_cli.interactive", data, "--cpu", "--user-dir"]
    command += [USER_DIR, "--path", folder / "checkpoint_last.pt", "--buffer-size", "9"]
    done = subprocess.run(
        command, input="the cat\ncafé\n".encode() + b"\xe9\n", capture_output=True
    )
    assert list(printed(done.stdout.decode(), "D")) == [0, 1]
    assert b"ValueError: standard input:3: expected text in UTF-8, got '\\udce9';" in done.stderr


@pytest.mark.parametrize("content", [None, b"no model"])
def test_a_file_that_is_no_sentencepiece_model_is_named(sentencepiece_run, tmp_path, content):
    folder, data, _ = sentencepiece_run
    model = tmp_path / "spm.model"
    if content:
        model.write_bytes(content)
    (tmp_path / "input").write_text("the cat\n")
    bpe = ("--bpe", "sentencepiece", "--sentencepiece-model", str(model))
    with pytest.raises(ValueError, match=rf"expected the file of a sentencepiece .* got {model}: "):
        run_interactive(data, folder / "checkpoint_last.pt", tmp_path / "input", *bpe)
