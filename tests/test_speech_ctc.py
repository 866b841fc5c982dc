"""Greedy and prefix beam search against all paths of small outputs, and against themselves."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_rnnprune.speech.ctc import GreedySearch, Hypothesis, greedy
from fairseq_rnnprune.speech.prefix_beam import PrefixBeamSearch, prefix_beam_search

EVERYTHING = {"beam": 10_000, "token_threshold": -math.inf}


def collapse(path, blank):
    """The labelling of a path, with the frame of every token."""
    starts = [t for t, c in enumerate(path) if c != blank and (t == 0 or path[t - 1] != c)]
    return tuple(path[t] for t in starts), tuple(starts)


def all_labellings(log_probs, blank=0, forbidden=()):
    """Labelling -> (log of its probability, that of its best path, frames of that path)."""
    T, C = log_probs.shape
    allowed = [c for c in range(C) if c not in forbidden]
    sums, best = {}, {}
    for path in itertools.product(allowed, repeat=T):
        score = sum(log_probs[t, c] for t, c in enumerate(path))
        tokens, frames = collapse(path, blank)
        sums[tokens] = np.logaddexp(sums.get(tokens, -math.inf), score)
        if score > best.get(tokens, (-math.inf,))[0]:
            best[tokens] = score, frames
    return {tokens: (sums[tokens], *best[tokens]) for tokens in best}


def random_log_probs(seed, T, C, scale=2.0):
    x = np.random.default_rng(seed).normal(size=(T, C)) * scale
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def log_of(rows):
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, dtype=np.float64))


class Histories:
    """A language model in which everything before matters; its states are the tokens so far."""

    end = 2

    def __init__(self, C, seed=0):
        self.C, self.seed = C, seed
        self.table = None
        self.calls = 0

    def start(self):
        return ()

    def advance(self, states, tokens):
        assert len(states) == len(tokens) > 0
        self.calls += 1
        return [(*state, token) for state, token in zip(states, tokens, strict=True)]

    def score(self, states):
        return np.stack([self.after(state) for state in states])

    def after(self, tokens):
        if self.table is not None:
            return self.table[tokens[-1] if tokens else self.C]
        return random_log_probs([self.seed, len(tokens), *tokens], 1, self.C)[0]

    def of(self, tokens):
        """Log-probability of a sentence."""
        sentence = (*tokens, self.end)
        return sum(self.after(sentence[:i])[token] for i, token in enumerate(sentence))


class Bigrams(Histories):
    """All tokens are equally likely, unless a row of the table is changed; the last is a start."""

    def __init__(self, C):
        super().__init__(C)
        self.table = log_of(np.full((C + 1, C), 1 / C))


def test_the_best_labelling_need_not_be_that_of_the_best_path():
    # The best path is blank, blank (0.36); "a" sums three paths: 0.24 + 0.24 + 0.16.
    log_probs = log_of([[0.6, 0.4], [0.6, 0.4]])
    assert greedy(log_probs) == ((), pytest.approx(math.log(0.36)), ())
    (best,) = prefix_beam_search(log_probs, 2)
    assert best.tokens == (1,)
    assert best.score == pytest.approx(math.log(0.64))


def test_a_token_twice_needs_a_blank_between():
    peaks = [1, 1, 0, 1, 2, 2, 0]
    log_probs = log_of(np.full((7, 3), 0.01) + 0.97 * np.eye(3)[peaks])
    for best in (greedy(log_probs), *prefix_beam_search(log_probs, 4)):
        assert best.tokens == (1, 1, 2)
        assert best.frames == (0, 3, 4)


@given(
    seed=st.integers(0, 10**6),
    T=st.integers(0, 5),
    C=st.integers(1, 4),
    blank=st.integers(0, 3),
    forbidden=st.sets(st.integers(0, 3), max_size=2),
)
def test_a_beam_that_holds_everything_is_exact(seed, T, C, blank, forbidden):
    blank %= C
    forbidden = {c % C for c in forbidden} - {blank}
    log_probs = random_log_probs(seed, T, C)
    expected = all_labellings(log_probs, blank, forbidden)
    found = prefix_beam_search(log_probs, blank=blank, forbidden=forbidden, nbest=999, **EVERYTHING)
    assert len(found) == len(expected)
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
    for hypothesis in found:
        score, _, frames = expected[hypothesis.tokens]
        assert hypothesis.score == pytest.approx(score)
        assert hypothesis.frames == frames
    best_path = max(expected, key=lambda tokens: expected[tokens][1])
    hypothesis = greedy(log_probs, blank, forbidden)
    assert hypothesis.tokens == best_path
    assert hypothesis.score == pytest.approx(expected[best_path][1])
    assert hypothesis.frames == expected[best_path][2]


def test_its_probability_is_that_of_torch():
    log_probs = random_log_probs(3, 10, 4)
    (best,) = prefix_beam_search(log_probs, **EVERYTHING)
    target = torch.tensor([best.tokens])
    lengths = torch.tensor([10]), torch.tensor([len(best.tokens)])
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs)[:, None], target, *lengths, reduction="sum"
    )
    assert best.score == pytest.approx(-float(loss), rel=1e-5)


@given(
    seed=st.integers(0, 10**6),
    T=st.integers(1, 4),
    lm_weight=st.floats(0, 3),
    bonus=st.floats(-2, 2),
)
def test_fusion_adds_the_whole_sentence(seed, T, lm_weight, bonus):
    log_probs, lm = random_log_probs(seed, T, 4), Histories(4, seed)
    found = prefix_beam_search(
        log_probs,
        forbidden=[lm.end],
        language_model=lm,
        lm_weight=lm_weight,
        length_bonus=bonus,
        nbest=999,
        **EVERYTHING,
    )
    expected = {
        tokens: score + lm_weight * lm.of(tokens) + bonus * len(tokens)
        for tokens, (score, *_) in all_labellings(log_probs, 0, [lm.end]).items()
    }
    assert {h.tokens for h in found} == set(expected)
    assert found[0].score == pytest.approx(max(expected.values()))
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(expected[hypothesis.tokens])


def test_a_language_model_decides_between_tokens_that_sound_alike():
    log_probs = log_of([[0.02, 0.5, 0.0, 0.48]] * 2 + [[0.98, 0.01, 0.0, 0.01]])
    lm = Bigrams(4)
    lm.table[-1] = log_of([0.1, 0.1, 0.1, 0.7])
    options = {"forbidden": [lm.end], "beam": 8}
    assert prefix_beam_search(log_probs, **options)[0].tokens == (1,)
    assert prefix_beam_search(log_probs, language_model=lm, **options)[0].tokens == (1,)
    assert lm.calls == 0, "a weight of 0"
    fused = prefix_beam_search(log_probs, language_model=lm, lm_weight=1.0, **options)
    assert fused[0].tokens == (3,)


def test_the_end_of_the_sentence_counts_at_the_end_only():
    lm = Bigrams(4)
    # After token 1 a sentence never ends.
    lm.table[1] = log_of([0.4, 0.3, 0.0, 0.3])
    log_probs = log_of([[0.1, 0.8, 0.0, 0.1]])
    search = PrefixBeamSearch(4, forbidden=[2], language_model=lm, lm_weight=1.0)
    search.push(log_probs)
    assert search.results(final=False)[0].tokens == (1,)
    assert search.results()[0].tokens != (1,)


@given(
    seed=st.integers(0, 10**6),
    cuts=st.lists(st.integers(0, 20), max_size=4).map(sorted),
    beam=st.integers(1, 6),
)
def test_pieces_of_any_length_give_the_same(seed, cuts, beam):
    log_probs = random_log_probs(seed, 20, 5)
    for make in (GreedySearch, lambda: PrefixBeamSearch(beam)):
        whole, pieces = make(), make()
        whole.push(log_probs)
        for start, end in itertools.pairwise([0, *cuts, 20]):
            pieces.push(log_probs[start:end])
        for one, other in zip(whole.results(3), pieces.results(3), strict=True):
            assert one.tokens == other.tokens
            assert one.frames == other.frames
            assert one.score == pytest.approx(other.score)


@given(seed=st.integers(0, 10**6), beam=st.integers(1, 5), threshold=st.floats(-20, 0))
def test_a_small_beam_finds_at_most_what_is_there(seed, beam, threshold):
    log_probs = random_log_probs(seed, 5, 3)
    expected = all_labellings(log_probs)
    found = prefix_beam_search(log_probs, beam, nbest=beam, token_threshold=threshold)
    assert 1 <= len(found) <= beam
    assert len({h.tokens for h in found}) == len(found)
    for hypothesis in found:
        assert hypothesis.score <= expected[hypothesis.tokens][0] + 1e-9
        assert len(hypothesis.frames) == len(hypothesis.tokens)
        assert list(hypothesis.frames) == sorted(set(hypothesis.frames))


@pytest.mark.parametrize("seed", [237, 249, 411, 816])
def test_a_prefix_that_comes_back_is_the_same_prefix(seed):
    # It left the beam, from which a longer one grew: both must not be found twice.
    search = PrefixBeamSearch(4, token_threshold=-math.inf)
    for row in random_log_probs(seed, 12, 3):
        search.push(row[None])
        found = search.results(4)
        assert len({h.tokens for h in found}) == len(found)


def test_a_wider_beam_than_needed_changes_nothing_on_peaked_outputs():
    log_probs = random_log_probs(5, 60, 12, scale=6.0)
    wide = prefix_beam_search(log_probs, 200, token_threshold=-math.inf)[0]
    assert prefix_beam_search(log_probs, 16)[0].tokens == wide.tokens
    assert wide.score >= greedy(log_probs).score


def test_tokens_below_the_threshold_are_not_tried():
    log_probs = log_of([[0.5, 0.4, 0.1]])
    found = prefix_beam_search(log_probs, 9, nbest=9, token_threshold=math.log(0.2))
    assert [h.tokens for h in found] == [(), (1,)]


def test_forbidden_tokens_are_never_emitted():
    log_probs = log_of([[0.1, 0.6, 0.3], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0]])
    expected = Hypothesis((2,), pytest.approx(math.log(0.3)), (0,))
    assert greedy(log_probs, forbidden=[1]) == expected
    assert prefix_beam_search(log_probs, 3, forbidden=[1]) == [expected]


@pytest.mark.parametrize("search", [GreedySearch, lambda: PrefixBeamSearch(3)])
def test_without_frames_the_labelling_is_empty(search):
    search = search()
    assert search.results()[0] == ((), 0.0, ())
    search.push(torch.zeros(0, 5))
    assert search.results()[0] == ((), 0.0, ())


def test_impossible_tokens_give_numbers_all_the_same():
    log_probs = log_of([[0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    found = prefix_beam_search(log_probs, 3, nbest=3, token_threshold=-math.inf)
    assert found == [Hypothesis((1,), 0.0, (0,))]


def test_a_language_model_that_allows_nothing_stops_nothing():
    lm = Bigrams(4)
    lm.table[:] = -math.inf
    search = PrefixBeamSearch(2, language_model=lm, lm_weight=1.0)
    search.push(log_of([[0.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]]))
    assert search.results(final=False)[0].tokens == ()


def test_the_input_is_left_as_it_is():
    log_probs = torch.from_numpy(random_log_probs(0, 4, 5))
    before = log_probs.clone()
    greedy(log_probs, forbidden=[1])
    prefix_beam_search(log_probs, 4, forbidden=[1])
    assert torch.equal(log_probs, before)


@pytest.mark.parametrize("decode", [greedy, lambda x: prefix_beam_search(x, 2)])
@pytest.mark.parametrize(
    ("log_probs", "message"),
    [
        (np.zeros(4), r"expected log-probabilities \[T, C\] with C > 0"),
        (np.zeros((2, 1, 4)), r"got the shape \[2, 1, 4\]"),
        (np.zeros((2, 0)), r"got the shape \[2, 0\]"),
        (np.array([[0.5, -1.0]]), "expected log-probabilities <= 0, got 0.5"),
        (np.array([[math.nan, -1.0]]), "expected log-probabilities <= 0, got nan"),
    ],
)
def test_what_are_no_log_probabilities_is_refused(decode, log_probs, message):
    with pytest.raises(ValueError, match=message):
        decode(log_probs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam": 0}, "expected a beam >= 1, got 0"),
        ({"beam": 1, "lm_weight": -0.1}, "finite lm_weight >= 0, got -0.1"),
        ({"beam": 1, "lm_weight": math.inf}, "finite lm_weight >= 0, got inf"),
        ({"beam": 1, "length_bonus": math.nan}, "finite length_bonus, got nan"),
        ({"beam": 1, "token_threshold": 0.5}, "token_threshold <= 0, got 0.5"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        PrefixBeamSearch(**options)
