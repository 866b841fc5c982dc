"""Language models in prefix beam search: a GRU over the same units, KenLM over words."""

import math
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from speech_corpus import TEXTS
from speech_language_model import train_on_texts
from speech_runs import prepare_corpus, run_generate, run_train

from fairseq_rnnprune import cli
from fairseq_rnnprune.models.gru_lm import GRULanguageModel, GRULanguageModelConfig
from fairseq_rnnprune.speech import task as task_module
from fairseq_rnnprune.speech.config import SpeechConfig
from fairseq_rnnprune.speech.fusion import (
    KenLanguageModel,
    RecurrentLanguageModel,
    as_language_model,
)
from fairseq_rnnprune.speech.loading import load_language_model, load_speech_model
from fairseq_rnnprune.speech.prefix_beam import prefix_beam_search
from fairseq_rnnprune.speech.task import SpeechTask, SpeechTaskConfig
from fairseq_rnnprune.speech.units import CharacterUnits


def dictionary_of(symbols="abc|"):
    dictionary = Dictionary()
    for symbol in symbols:
        dictionary.add_symbol(symbol)
    return dictionary


DICTIONARY = dictionary_of()


def build(dictionary=DICTIONARY, **options):
    torch.manual_seed(0)
    sizes = {"decoder_embed_dim": 6, "decoder_hidden_size": 8, "tokens_per_sample": 16}
    config = GRULanguageModelConfig(**sizes | {"decoder_layers": 2} | options)
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    return GRULanguageModel.build_model(config, task)


def sentence_score(model, tokens):
    """Log-probability of a whole sentence, its end included."""
    end = DICTIONARY.eos()
    with torch.no_grad():
        output = model.eval()(torch.tensor([[end, *tokens]]))
        scores = model.get_normalized_probs(output, log_probs=True, sample=None)[0]
    return sum(scores[i, t].item() for i, t in enumerate((*tokens, end)))


def stepwise_score(lm, tokens):
    """The same by the protocol, one token after the other."""
    state, total = lm.start(), 0.0
    for token in tokens:
        total += lm.score([state])[0, token]
        (state,) = lm.advance([state], [token])
    return total + lm.score([state])[0, lm.end]


MODELS = [{}, {"decoder_layers": 1, "adaptive_softmax_cutoff": "6"}, {"packed": "fp32"}]


@pytest.mark.parametrize("choice", MODELS, ids=str)
def test_steps_give_the_score_of_the_sentence(choice):
    model = build(**choice)
    expected = sentence_score(model, (4, 7, 5, 5))
    if "packed" in choice:
        model.make_generation_fast_()
        assert model.decoder.gru.sparse is not None
    lm = RecurrentLanguageModel(model, DICTIONARY)
    assert stepwise_score(lm, (4, 7, 5, 5)) == pytest.approx(expected, abs=1e-5)
    assert stepwise_score(lm, ()) == pytest.approx(sentence_score(build(**choice), ()), abs=1e-5)


def test_states_are_independent_and_batched():
    model = build()
    lm = RecurrentLanguageModel(model, DICTIONARY)
    start = lm.start()
    a, b = lm.advance([start, start], [4, 5])
    longer, c = lm.advance([b, start], [6, 7])
    again = lm.advance([a], [5])[0]
    found = lm.score([longer, c, again])
    assert found.shape == (3, len(DICTIONARY))
    for row, tokens in zip(found, [(5, 6), (7,), (4, 5)], strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([[2, *tokens]]))[0][0, -1]
        assert row == pytest.approx(logits.double().log_softmax(-1).numpy(), abs=1e-5)


def test_a_search_adds_the_language_model_of_the_whole_sentence():
    lm = RecurrentLanguageModel(model := build(), DICTIONARY)
    x = np.random.default_rng(0).normal(size=(6, len(DICTIONARY)))
    log_probs = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    shared = {"forbidden": [1, 2, 3], "beam": 3000, "nbest": 3000, "token_threshold": -math.inf}
    alone = {h.tokens: h.score for h in prefix_beam_search(log_probs, **shared)}
    fused = prefix_beam_search(log_probs, language_model=lm, lm_weight=0.7, **shared)
    for hypothesis in fused[:20]:
        expected = alone[hypothesis.tokens] + 0.7 * sentence_score(model, hypothesis.tokens)
        assert hypothesis.score == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("symbols", "message"),
    [
        ("abcd|", "over the speech model's 8 symbols, got 9; binarise its text"),
        ("abd|", "got 'd' in place of 'c' at 6; binarise its text"),
    ],
)
def test_another_dictionary_is_refused(symbols, message):
    with pytest.raises(ValueError, match=message):
        as_language_model(build(dictionary_of(symbols)), DICTIONARY)


def test_another_kind_of_model_is_refused():
    with pytest.raises(ValueError, match="expected an rnnprune_gru_lm, got Linear"):
        as_language_model(torch.nn.Linear(2, 2), DICTIONARY)


def test_a_language_model_stays_what_it_is():
    lm = RecurrentLanguageModel(build(), DICTIONARY)
    assert as_language_model(lm, DICTIONARY) is lm


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    """A prepared corpus and a model that hears nothing in it: all letters are equally likely."""
    data = prepare_corpus(tmp_path_factory.mktemp("corpus"))
    folder = tmp_path_factory.mktemp("model")
    path = run_train(data, folder, "--max-update", "1", "--disable-validation")
    state = torch.load(path, weights_only=True)
    for name in ("weight", "bias"):
        state["model"][f"output.{name}"].zero_()
    torch.save(state, path)
    return data, path


def test_fairseq_generate_follows_the_language_model(speech, tmp_path, capfd):
    data, checkpoint = speech
    language_model = train_on_texts(data, tmp_path)
    texts = {}
    for weight in ("0.0", "5.0"):
        more = ("--beam", "8", "--lm-path", str(language_model), "--lm-weight", weight)
        run_generate(data, checkpoint, *more)
        printed = capfd.readouterr().out
        texts[weight] = re.findall(r"^D-\d+\t\S+\t(.*)$", printed, re.M)
    assert len(texts["0.0"]) == len(texts["5.0"]) == len(TEXTS)
    assert not set(texts["0.0"]) & set(TEXTS)
    # Nothing was heard, so that every text is one that the language model likes.
    assert set(texts["5.0"]) <= {"GO", "NO", "YES", "TEN", "SEE", ""}


def test_a_language_model_over_other_symbols_is_refused_by_fairseq_generate(speech, tmp_path):
    data, checkpoint = speech
    language_model = train_on_texts(data, tmp_path)
    # As many symbols in another order: fairseq-generate would give it the speech model's.
    own = tmp_path / "data" / "dict.txt"
    own.write_text("".join(reversed(own.read_text().splitlines(keepends=True))))
    more = ("--beam", "8", "--lm-path", str(language_model), "--lm-weight", "1")
    with pytest.raises(ValueError, match="expected a language model over the speech model's symb"):
        run_generate(data, checkpoint, *more)


def test_an_exported_language_model_is_no_file_of_kenlm(speech, tmp_path, capsys):
    language_model = train_on_texts(speech[0], tmp_path)
    exported = language_model.with_name("lm.safetensors")
    assert cli.main(["export", str(language_model), str(exported)]) == 0
    loaded = load_language_model(exported, load_speech_model(speech[1], "dense"))
    assert isinstance(loaded, RecurrentLanguageModel)


class OnlyG:
    """A language model, made as a KenLanguageModel, that likes one letter."""

    def __init__(self, path, symbols, separator, end):
        self.arguments, self.end = (path, separator), end
        self.scores = np.where([symbol in ("G", "</s>") for symbol in symbols], 0.0, -9.0)
        assert self.scores[end] == 0

    def start(self):
        return None

    def advance(self, states, tokens):
        return [None for _ in tokens]

    def score(self, states):
        return np.stack([self.scores for _ in states])


def test_fairseq_generate_takes_a_file_of_kenlm(speech, monkeypatch, capfd):
    monkeypatch.setattr(task_module, "KenLanguageModel", OnlyG)
    letters = {}
    for weight in ("0.0", "5.0"):
        more = ("--beam", "8", "--kenlm", "words.arpa", "--lm-weight", weight)
        run_generate(*speech, *more)
        texts = re.findall(r"^D-\d+\t\S+\t(.*)$", capfd.readouterr().out, re.M)
        letters[weight] = set("".join(texts))
    assert letters["5.0"] == {"G"} != letters["0.0"]


def test_fairseq_generate_takes_a_length_bonus(speech, capfd):
    lengths = {}
    for bonus in ("-9", "0", "9"):
        run_generate(*speech, "--beam", "2", "--length-bonus", bonus)
        texts = re.findall(r"^D-\d+\t\S+\t(.*)$", capfd.readouterr().out, re.M)
        lengths[bonus] = len("".join(texts))
    assert lengths["-9"] < lengths["9"] and lengths["0"] < lengths["9"]


def build_generator(monkeypatch, given=None, **models):
    monkeypatch.setattr(task_module, "KenLanguageModel", OnlyG)
    config = SpeechTaskConfig(data="data", kenlm="words.arpa")
    dictionary = dictionary_of("G|")
    task = SpeechTask(config, SpeechConfig(), CharacterUnits(), dictionary)
    arguments = SimpleNamespace(beam=8, nbest=1, **given or {})
    return task.build_generator([], arguments, extra_gen_cls_kwargs={"lm_weight": 0.5, **models})


def test_kenlm_gets_the_units_of_the_task(monkeypatch):
    language_model = build_generator(monkeypatch, lm_model=None)._options["language_model"]
    assert language_model.arguments == (Path("words.arpa"), "|")


@pytest.mark.parametrize("option", ["sampling", "constraints", "score_reference", "print_step"])
def test_options_without_meaning_are_refused(monkeypatch, option):
    with pytest.raises(ValueError, match=f"--{option.replace('_', '-')}: expected options of a m"):
        build_generator(monkeypatch, {option: True})


def test_text_has_no_model_of_speech():
    task = SpeechTask(SpeechTaskConfig(data="d"), SpeechConfig(), CharacterUnits(), Dictionary())
    with pytest.raises(ValueError, match="use rnnprune transcribe"):
        task.get_interactive_tokens_and_lengths(["GO"], None)


def test_two_language_models_are_refused(monkeypatch):
    with pytest.raises(ValueError, match="--kenlm: expected no --lm-path as well, got --kenlm wor"):
        build_generator(monkeypatch, lm_model=build())


ARPA = """\\data\\
ngram 1=5
ngram 2=3

\\1-grams:
-1.0\t<unk>
0\t<s>\t-0.3
-0.7\t</s>
-0.5\tab\t-0.2
-0.9\tc\t-0.1

\\2-grams:
-0.2\t<s> ab
-0.3\tab c
-0.4\tc </s>

\\end\\
"""


@pytest.fixture
def arpa(tmp_path):
    pytest.importorskip("kenlm", reason="needs kenlm: pip install '.[kenlm]' compiles it")
    path = tmp_path / "words.arpa"
    path.write_text(ARPA)
    return path


# By hand, from the file: log10 of each word after the one before, and of the end.
KEN_SCORES = {
    "ab|c": -0.2 - 0.3 - 0.4,
    "ab": -0.2 - 0.2 - 0.7,
    "c": -0.3 - 0.9 - 0.4,
    "": -0.3 - 0.7,
    "ab||c|": -0.2 - 0.3 - 0.4,
    # An unknown word.
    "ba": -0.3 - 1.0 - 0.7,
}


@pytest.mark.parametrize("text", KEN_SCORES)
def test_kenlm_scores_words(arpa, text, capfd):
    lm = KenLanguageModel(arpa, DICTIONARY.symbols, "|", DICTIONARY.eos())
    tokens = [DICTIONARY.index(letter) for letter in text]
    assert stepwise_score(lm, tokens) == pytest.approx(KEN_SCORES[text] * math.log(10), abs=1e-5)
    assert capfd.readouterr() == ("", "")


def test_kenlm_scores_a_word_where_it_ends(arpa):
    lm = KenLanguageModel(arpa, DICTIONARY.symbols, "|", DICTIONARY.eos())
    a, b = (DICTIONARY.index(letter) for letter in "ab")
    (state,) = lm.advance(lm.advance([lm.start()], [a]), [b])
    (row,) = lm.score([state])
    assert row[DICTIONARY.index("|")] == pytest.approx(-0.2 * math.log(10), abs=1e-6)
    assert row[[a, b]].tolist() == [0.0, 0.0]


def test_kenlm_understands_pieces_that_begin_words(arpa):
    dictionary = dictionary_of(["▁a", "b", "▁", "c", "▁c"])
    lm = KenLanguageModel(arpa, dictionary.symbols, "▁", dictionary.eos())
    for pieces in (["▁a", "b", "▁c"], ["▁a", "b", "▁", "c"]):
        tokens = [dictionary.index(piece) for piece in pieces]
        expected = KEN_SCORES["ab|c"] * math.log(10)
        assert stepwise_score(lm, tokens) == pytest.approx(expected, abs=1e-5)


def test_kenlm_decides_between_words_that_sound_alike(arpa):
    lm = KenLanguageModel(arpa, DICTIONARY.symbols, "|", DICTIONARY.eos())
    rows = np.full((2, len(DICTIONARY)), 0.01)
    a, b, c = (DICTIONARY.index(letter) for letter in "abc")
    rows[0, a], rows[1, [b, c]] = 0.9, (0.44, 0.46)
    log_probs = np.log(rows / rows.sum(axis=1, keepdims=True))
    options = {"forbidden": [1, 2, 3], "beam": 8}
    assert prefix_beam_search(log_probs, **options)[0].tokens == (a, c)
    fused = prefix_beam_search(log_probs, language_model=lm, lm_weight=0.5, **options)
    assert fused[0].tokens == (a, b)


def test_a_file_that_is_none_of_kenlm_is_refused(arpa, tmp_path):
    for name, content in (("text", "hello\n"), ("missing", None)):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError, match="expected a language model of KenLM") as refused:
            KenLanguageModel(path, DICTIONARY.symbols, "|")
        assert "\n" not in str(refused.value)


def test_units_without_a_space_have_no_words(arpa):
    with pytest.raises(ValueError, match=r"symbols that begin with '_', the space, got none"):
        KenLanguageModel(arpa, DICTIONARY.symbols, "_")


def test_without_kenlm_the_message_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    with pytest.raises(ImportError, match="expected the library kenlm.*run pip install kenlm"):
        KenLanguageModel(tmp_path / "words.arpa", DICTIONARY.symbols, "|")
