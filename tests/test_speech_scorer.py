"""Character and word error rates."""

import jiwer
import pytest

from fairseq_rnnprune.speech.scorer import CERScorer


def score(*pairs):
    scorer = CERScorer()
    for pair in pairs:
        scorer.add_string(*pair)
    return scorer


def test_both_rates_of_all_utterances():
    scorer = score(("GO ON", "GO IN"), ("YES", "YES"), ("NO", "NOW NO"))
    assert (scorer.character_errors, scorer.characters) == (1 + 0 + 4, 5 + 3 + 2)
    assert (scorer.word_errors, scorer.words) == (1 + 0 + 1, 2 + 1 + 1)
    assert scorer.score() == 50.0
    assert (
        scorer.result_string() == "CER: 50.00 WER: 50.00 (3 utterances; CER without blanks: 44.44)"
    )


@pytest.mark.parametrize(
    "units, option", [("G O | O N", "letter"), ("\u2581go \u2581on", "sentencepiece")]
)
def test_units_are_no_text(units, option):
    with pytest.raises(
        ValueError, match=f"expected text, got units: .*; add --post-process {option}"
    ):
        score((units, "G O"))
    assert score(("A B C", "A B C")).score() == 0


def test_a_space_is_a_character_and_blanks_around_are_none():
    scorer = score((" AB CD ", "ABCD"))
    assert (scorer.character_errors, scorer.characters) == (1, 5)
    assert (scorer.word_errors, scorer.words) == (2, 2)
    assert (scorer.letter_errors, scorer.letters) == (0, 4)
    assert scorer.letter_error_rate() == 0.0


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], "CER: 0.00 WER: 0.00 (0 utterances; CER without blanks: 0.00)"),
        ([("", "")], "CER: 0.00 WER: 0.00 (1 utterances; CER without blanks: 0.00)"),
        ([("AB C", "")], "CER: 100.00 WER: 100.00 (1 utterances; CER without blanks: 100.00)"),
        ([("", "AB C")], "CER: inf WER: inf (1 utterances; CER without blanks: inf)"),
        (
            [("", "A"), ("AB", "AB")],
            "CER: 50.00 WER: 100.00 (2 utterances; CER without blanks: 50.00)",
        ),
    ],
)
def test_empty_texts(pairs, expected):
    assert score(*pairs).result_string() == expected


def test_it_forgets():
    scorer = score(("A", "B"))
    scorer.reset()
    assert scorer.result_string() == "CER: 0.00 WER: 0.00 (0 utterances; CER without blanks: 0.00)"


def test_it_agrees_with_jiwer():
    references = ["RUBOUT G M E F THREE NINE", "ERASE C Q Q F SEVEN", "ÄÖÜ ß"]
    found = ["RUBOUT G N E THREE NINE", "ERASE C Q F SEVEN NOW", "AÖÜ"]
    scorer = score(*zip(references, found, strict=True))
    assert scorer.score() == pytest.approx(100 * jiwer.cer(references, found))
    assert scorer.word_error_rate() == pytest.approx(100 * jiwer.wer(references, found))
