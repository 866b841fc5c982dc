"""Characters and sentencepieces, and their dictionary."""

import pickle
from collections import Counter

import pytest
from fairseq.data import data_utils
from hypothesis import given
from hypothesis import strategies as st

from fairseq_rnnprune.speech.dictionary import (
    encode,
    load_dictionary,
    make_dictionary,
    symbols_of,
)
from fairseq_rnnprune.speech.units import (
    CharacterUnits,
    SentencePieceUnits,
    load_units,
    plain_text,
    write_counts,
)

TEXTS = ["the cat sat", "the dog sat on the mat", "Ünïcode cafés", "a cat and a dog"] * 5
PIECES = SentencePieceUnits.train(TEXTS, 60)

# Control and format characters are no text; sentencepiece strips some.
WORDS = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|\u2581"))


def test_characters():
    units = CharacterUnits()
    assert units.encode("Go  ON ") == ["G", "o", "|", "O", "N"]
    assert units.decode(["G", "o", "|", "O", "N"]) == "Go ON"
    assert units.decode(["|", "|", "G", "|", "|", "o", "|"]) == "G o"
    assert units.encode(" \t\u00a0") == [] and units.decode([]) == ""
    assert list(units.counts(["ba a", "b"]).items()) == [("a", 2), ("b", 2), ("|", 1)]


def test_sentencepieces():
    pieces = PIECES.encode("the  cat")
    assert "".join(pieces) == "\u2581the\u2581cat" and len(pieces) < 8
    assert PIECES.decode(pieces) == "the cat"
    # Upper case and composed characters are the text's own affair.
    assert PIECES.decode(PIECES.encode("Ünïcode cafés")) == "Ünïcode cafés"
    counts = PIECES.counts(TEXTS)
    assert len(counts) <= 60 and not {"<unk>", "<s>", "</s>"} & set(counts)
    used = Counter(piece for text in TEXTS for piece in PIECES.encode(text))
    assert counts == {piece: used[piece] for piece in counts} and set(used) <= set(counts)
    assert PIECES.encode("qu")[-1] not in counts
    # Two characters that the model does not know are two units, and two errors.
    assert PIECES.encode("ЖД")[-2:] == ["Ж", "Д"]


def test_the_same_text_gives_the_same_pieces():
    assert SentencePieceUnits.train(iter(TEXTS), 60).model == PIECES.model


def test_a_model_survives_its_file_and_pickle(tmp_path):
    (tmp_path / "sentencepiece.model").write_bytes(PIECES.model)
    for units in (load_units("sentencepiece", tmp_path), pickle.loads(pickle.dumps(PIECES))):
        assert units.model == PIECES.model
        assert units.encode("the dog") == PIECES.encode("the dog")
    assert isinstance(load_units("characters", tmp_path), CharacterUnits)


@given(st.lists(WORDS, max_size=5))
def test_text_comes_back(words):
    text = " ".join(words)
    for units in (CharacterUnits(), PIECES):
        symbols = units.encode(text)
        assert units.decode(symbols) == plain_text(text)
        # fairseq's criterion and generator spell with its own function.
        assert data_utils.post_process(" ".join(symbols), units.post_process) == plain_text(text)


@pytest.mark.parametrize("units", [CharacterUnits(), PIECES], ids=lambda u: u.name)
def test_fairseq_reads_the_dictionary(tmp_path, units):
    counts = units.counts([*TEXTS, "# <s> 100 %"])
    write_counts(counts, tmp_path / "dict.txt")
    dictionary = load_dictionary(tmp_path)
    assert symbols_of(dictionary) == list(counts)
    assert dictionary.count[dictionary.nspecial :] == list(counts.values())
    assert dictionary == make_dictionary(counts)
    # fairseq's `ctc` criterion has the blank there.
    assert dictionary.index("<s>") == 0
    indices = encode("the cat", units, dictionary)
    assert indices.tolist() == [dictionary.index(s) for s in units.encode("the cat")]


def test_an_unknown_unit_counts_as_one_character(tmp_path):
    write_counts({"a": 1, "b": 1}, tmp_path / "dict.txt")
    for dictionary in (make_dictionary("ab"), load_dictionary(tmp_path)):
        indices = encode("ab ä", CharacterUnits(), dictionary)
        # As fairseq-generate makes a reference.
        text = dictionary.string(indices, "letter", escape_unk=True)
        assert text == "ab\ufffd\ufffd" and dictionary.string(indices) == "a b \ufffd \ufffd"


def test_an_empty_text_and_an_unknown_unit_are_encoded():
    dictionary = make_dictionary("ab")
    assert encode("", CharacterUnits(), dictionary).shape == (0,)
    assert encode("abc", CharacterUnits(), dictionary).tolist() == [4, 5, dictionary.unk()]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "got no such file; run rnnprune prepare"),
        ("", "expected units in .*dict.txt, got none"),
        ("a\nb\n", "a unit and a count in .*dict.txt"),
        ("a 1\na 2\n", "got Duplicate"),
        ("a x\n", "a unit and a count"),
        (b"\xff 1\n", "a unit and a count in .*utf-8"),
    ],
)
def test_what_is_no_dictionary_is_refused(tmp_path, content, message):
    if content is not None:
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "dict.txt").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load_dictionary(tmp_path)


@pytest.mark.parametrize("symbols", ["aba", ["a", "<unk>"]])
def test_a_unit_twice_is_refused(symbols):
    with pytest.raises(ValueError, match="make_dictionary: expected every unit once"):
        make_dictionary(symbols)


def test_what_is_no_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got .*No such file.*; copy it from the training's data"):
        load_units("sentencepiece", tmp_path)
    for content in (b"", b"no model"):
        with pytest.raises(ValueError, match="expected a sentencepiece model, got . bytes"):
            SentencePieceUnits(content)


@pytest.mark.parametrize(("texts", "size"), [([], 60), (["", " "], 60), (TEXTS, 5), (TEXTS, 0)])
def test_a_model_that_cannot_be_trained_says_why(texts, size):
    with pytest.raises(ValueError, match=f"expected a --sentencepiece-size .* got {size} for"):
        SentencePieceUnits.train(texts, size)
