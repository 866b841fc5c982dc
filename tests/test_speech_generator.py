"""CTCGenerator: what fairseq-generate gets, and what it prints of it."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fairseq.data import Dictionary
from speech_models import MEL_BINS, build, padded_batch, speech_task
from speech_runs import prepare_corpus, run_generate, run_train

from fairseq_rnnprune.speech.ctc import greedy
from fairseq_rnnprune.speech.generator import CTCGenerator, log_probs_of
from fairseq_rnnprune.speech.prefix_beam import PrefixBeamSearch

DICTIONARY = speech_task().target_dictionary
A, B, C = (DICTIONARY.index(letter) for letter in "abc")


class Recorded:
    """A model whose log-probabilities are given: [T', B, C], and a padding mask [B, T']."""

    def __init__(self, probabilities, padding_mask=None):
        self.log_probs = torch.log(torch.as_tensor(probabilities, dtype=torch.float32))
        self.padding_mask = padding_mask

    def eval(self):
        return self

    def __call__(self, **net_input):
        return {"encoder_out": self.log_probs, "padding_mask": self.padding_mask}

    def get_normalized_probs(self, net_output, log_probs, sample=None):
        assert log_probs
        return net_output["encoder_out"]


def peaks(*tokens, height=0.91):
    """Probabilities [T', 1, C] with one likely token per frame."""
    classes = len(DICTIONARY)
    rows = torch.full((len(tokens), classes), (1 - height) / (classes - 1))
    rows[range(len(tokens)), tokens] = height
    return rows[:, None]


def decode(models, **options):
    generator = CTCGenerator(models, DICTIONARY, **options)
    return generator.generate(models, {"net_input": {}})


def test_a_hypothesis_has_what_fairseq_generate_prints():
    ((best,),) = decode([Recorded(peaks(0, A, A, 0, B))])
    assert best["tokens"].tolist() == [A, B] and best["tokens"].dtype == torch.int64
    assert best["frames"].tolist() == [1, 4]
    assert best["score"].item() == pytest.approx(5 * np.log(0.91))
    assert best["positional_scores"].tolist() == pytest.approx([np.log(0.91)] * 2)
    assert best["attention"] is None and list(best["alignment"]) == []


@pytest.mark.parametrize("beam", [1, 3])
def test_special_symbols_are_never_emitted(beam):
    specials = [DICTIONARY.pad(), DICTIONARY.eos(), DICTIONARY.unk()]
    (hypotheses,) = decode([Recorded(peaks(*specials, A))], beam=beam, nbest=beam)
    assert len(hypotheses) == beam
    assert all(min(h["tokens"].tolist()) >= DICTIONARY.nspecial for h in hypotheses)
    generator = CTCGenerator([], DICTIONARY)
    assert generator.symbols_to_strip_from_output == {0, DICTIONARY.pad(), DICTIONARY.eos()}


@pytest.mark.parametrize("beam", [1, 3])
def test_an_empty_hypothesis_is_one(beam):
    ((best, *_),) = decode([Recorded(peaks(0, 0, 0))], beam=beam)
    for name in ("tokens", "frames", "positional_scores"):
        assert best[name].shape == (0,)
    assert best["tokens"].dtype == torch.int64


@pytest.mark.parametrize("beam", [1, 3])
def test_padding_is_not_decoded(beam):
    probabilities = torch.cat([peaks(A, 0, B), peaks(B, C, C)], dim=1)
    probabilities[1:, 1] = float("nan")
    mask = torch.tensor([[False, False, False], [False, True, True]])
    outputs = decode([Recorded(probabilities, mask)], beam=beam)
    assert [best["tokens"].tolist() for best, *_ in outputs] == [[A, B], [B]]


def test_the_options_reach_the_search():
    model = Recorded(peaks(A, B, height=0.3))
    options = {"length_bonus": 0.5, "token_threshold": -2.0}
    (hypotheses,) = decode([model], beam=4, nbest=3, **options)
    forbidden = [DICTIONARY.pad(), DICTIONARY.eos(), DICTIONARY.unk()]
    search = PrefixBeamSearch(4, forbidden=forbidden, **options)
    search.push(model.log_probs[:, 0])
    expected = search.results(3)
    assert [tuple(h["tokens"].tolist()) for h in hypotheses] == [h.tokens for h in expected]
    assert [h["score"].item() for h in hypotheses] == pytest.approx([h.score for h in expected])


def test_a_length_bonus_alone_needs_a_search():
    model = Recorded(peaks(A, 0, 0, B, height=0.4))
    ((plain,),), ((longer,),) = decode([model]), decode([model], length_bonus=50.0)
    assert len(longer["tokens"]) == 4 > len(plain["tokens"])


def test_an_ensemble_averages_log_probabilities():
    sure, unsure = peaks(A, height=0.9), peaks(B, height=0.6)
    (rows,) = log_probs_of([Recorded(sure), Recorded(unsure)], {})
    expected = (sure.log() + unsure.log())[:, 0] / 2
    expected = expected - expected.exp().sum(dim=1, keepdim=True).log()
    assert rows == pytest.approx(expected.numpy(), abs=1e-6)
    ((best,),) = decode([Recorded(sure), Recorded(unsure)])
    assert best["tokens"].tolist() == [A]


def test_models_with_other_frames_are_no_ensemble():
    models = [Recorded(peaks(A, B)), Recorded(peaks(A))]
    with pytest.raises(ValueError, match="equally many frames per utterance, got 2, 1"):
        decode(models)


def test_an_utterance_does_not_depend_on_its_batch():
    model = build()
    source, mask = padded_batch([31, 9, 20])
    generator = CTCGenerator([model], DICTIONARY, beam=4)
    net_input = {"source": source, "padding_mask": mask}
    together = generator.generate([model], {"net_input": net_input})
    for row, length in enumerate((31, 9, 20)):
        net_input = {"source": source[row : row + 1, :length], "padding_mask": None}
        ((alone,),) = generator.generate([model], {"net_input": net_input})
        assert alone["tokens"].tolist() == together[row][0]["tokens"].tolist()
        assert alone["frames"].tolist() == together[row][0]["frames"].tolist()
        assert alone["score"].item() == pytest.approx(together[row][0]["score"].item(), abs=1e-4)


def test_greedy_is_greedy():
    model = build()
    source = torch.randn(1, 40, MEL_BINS)
    (rows,) = log_probs_of([model], {"source": source, "padding_mask": None})
    generator = CTCGenerator([model], DICTIONARY)
    ((best,),) = generator.generate([model], {"net_input": {"source": source}})
    assert tuple(best["tokens"].tolist()) == greedy(rows, forbidden=[1, 2, 3]).tokens


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prefix_tokens": torch.zeros(1, 1)}, "expected no prefix tokens, got some"),
        ({"constraints": torch.zeros(1, 1)}, "expected no constraints, got some"),
    ],
)
def test_prefixes_and_constraints_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CTCGenerator([], DICTIONARY).generate([], {"net_input": {}}, **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nbest": 2}, "expected 1 <= nbest <= beam, got nbest 2 and beam 1"),
        ({"beam": 0, "nbest": 0}, "got nbest 0 and beam 0"),
        ({"beam": 2, "lm_model": SimpleNamespace()}, "expected an rnnprune_gru_lm"),
        ({"length_bonus": float("inf")}, "expected a finite length_bonus"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        CTCGenerator([], DICTIONARY, **options)


@pytest.fixture(scope="module")
def silent(tmp_path_factory):
    """A prepared corpus, and a model that always says blank."""
    data = prepare_corpus(tmp_path_factory.mktemp("corpus"))
    folder = tmp_path_factory.mktemp("model")
    path = run_train(data, folder, "--max-update", "1", "--disable-validation")
    state = torch.load(path, weights_only=True)
    state["model"]["output.bias"][0] = 100.0
    torch.save(state, path)
    return data, path


@pytest.mark.parametrize("more", [[], ["--beam", "4", "--print-alignment"]])
def test_fairseq_generate_prints_empty_hypotheses(silent, more, capfd):
    data, checkpoint = silent
    run_generate(data, checkpoint, *more)
    printed = capfd.readouterr().out
    assert re.findall(r"^D-(\d+)\t-?[\d.e-]+\t$", printed, re.M) == list("01234567")
    assert re.findall(r"^P-(\d+)\t$", printed, re.M) == list("01234567")
    assert "CER: 100.00 WER: 100.00 (8 utterances; CER without blanks: 100.00)" in printed


def test_the_dictionary_may_grow_while_fairseq_generate_prints():
    # It adds every word that it prints.
    dictionary = Dictionary()
    dictionary.add_symbol("a")
    generator = CTCGenerator([], dictionary)
    dictionary.add_symbol("aardvark")
    model = Recorded(torch.full((2, 1, 5), 0.2))
    assert len(generator.generate([model], {"net_input": {}})) == 1
