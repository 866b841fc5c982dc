"""Every bad utterance is named; none is lost in silence."""

import dataclasses
import itertools

import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from speech_corpus import RATE, TEXTS, make_corpus, make_damaged, tone

from fairseq_rnnprune.speech.cache import FeatureCache
from fairseq_rnnprune.speech.checks import (
    check_audio,
    check_texts,
    keep_usable,
    required_frames,
    usable_utterances,
)
from fairseq_rnnprune.speech.config import SpeechConfig
from fairseq_rnnprune.speech.manifest import Utterance, read_manifest
from fairseq_rnnprune.speech.units import CharacterUnits

CONFIG = SpeechConfig(mel_bins=20)
UNITS = CharacterUnits()
KNOWN = UNITS.counts(TEXTS)


@pytest.fixture
def corpus(tmp_path):
    return make_corpus(tmp_path / "data", ("train",))


@pytest.fixture
def utterances(corpus):
    return read_manifest(corpus / "train.tsv")


@pytest.fixture
def cache(corpus):
    return FeatureCache(corpus / "features")


@given(st.lists(st.integers(0, 1), max_size=4))
def test_required_frames_is_the_shortest_path_of_ctc(symbols):
    """The shortest sequence over blank and units that reads as the symbols, by trying all."""

    def reads(path):
        return [s for s, _ in itertools.groupby(path) if s != "blank"]

    length = next(
        n
        for n in itertools.count()
        if any(reads(p) == symbols for p in itertools.product(["blank", 0, 1], repeat=n))
    )
    assert required_frames(symbols) == length


@pytest.mark.parametrize("symbols", [[1], [1, 1], [1, 2, 2, 2, 1]])
def test_torch_s_loss_agrees(symbols):
    log_probs = torch.zeros(10, 1, 3).log_softmax(-1)
    target, needed = torch.tensor([symbols]), required_frames(symbols)
    for frames in (needed - 1, needed):
        loss = torch.nn.functional.ctc_loss(log_probs, target, [frames], [len(symbols)])
        assert torch.isfinite(loss) == (frames == needed)


def test_good_utterances_pass_and_are_cached(utterances, cache, caplog):
    measured, problems = check_audio(utterances, CONFIG, cache)
    assert measured == utterances and not problems and not caplog.text
    assert all(cache.has(u.path, CONFIG) for u in utterances)
    assert not check_texts(measured, CONFIG, UNITS, KNOWN, lambda frames: frames)


def test_every_kind_of_bad_audio(tmp_path, utterances, cache):
    damaged = make_damaged(tmp_path / "bad")
    soundfile.write(tmp_path / "short.wav", tone(399), RATE)
    damaged["at least 25 ms of audio, got 399 samples"] = tmp_path / "short.wav"
    mixed = []
    for good, bad in itertools.zip_longest(utterances, damaged.values()):
        mixed += [good] if good else []
        mixed.append(Utterance(bad, 32000, "ann", "GO"))
    _, problems = check_audio(mixed, CONFIG, cache)
    assert [mixed[i].path for i in problems] == list(damaged.values())
    for (message, path), line in zip(damaged.items(), problems.values(), strict=True):
        assert line.startswith(f"{path}: ") and message in line and "\n" not in line


def test_wrong_lengths_are_measured_and_said_once(tmp_path, utterances, cache, caplog):
    soundfile.write(tmp_path / "a.wav", tone(22050, 22050), 22050)
    other_rate = [Utterance(tmp_path / "a.wav", n, "", "GO") for n in (22050, 16000)]
    wrong = [dataclasses.replace(u, samples=u.samples + 1) for u in utterances[:3]]
    measured, problems = check_audio([*wrong, *other_rate, *utterances[3:]], CONFIG, cache)
    assert not problems
    assert measured[:3] + measured[5:] == utterances
    assert [u.samples for u in measured[3:5]] == [16000, 16000]
    assert caplog.messages == [
        "3 of 10 lengths in the manifest are not those of the audio; measured ones are used"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected a transcript, got an empty one"),
        (" \t ", "expected a transcript, got an empty one"),
        ("GO|ON", r"expected no '\|'.* got 'GO\|ON'"),
        ("GO é ON éß", r"expected units of the dictionary, got 'é', 'ß' in 'GO é ON éß'"),
        ("go " * 40, r"got 'g', 'o' in 'go go .*\.\.\.'$"),
    ],
)
def test_every_kind_of_bad_text(utterances, text, message):
    mixed = [*utterances[:2], dataclasses.replace(utterances[2], text=text)]
    (index, line), *others = check_texts(mixed, CONFIG, UNITS, KNOWN).items()
    assert index == 2 and not others
    assert line.startswith(f"{utterances[2].path}: ")
    with pytest.raises(ValueError, match=message):
        raise ValueError(line)


def test_too_short_for_its_text(utterances):
    # 4000 samples are 23 frames; "GOOO ON" needs 7 and 2 more.
    short = [dataclasses.replace(utterances[0], text="GOOO ON")]
    check = lambda stride, speed=1.0: check_texts(  # noqa: E731
        short, CONFIG, UNITS, KNOWN, lambda frames: frames // stride, speed
    )
    assert not check(2)
    assert not check_texts(short, CONFIG, UNITS, KNOWN, lambda frames: 9)
    assert check_texts(short, CONFIG, UNITS, KNOWN, lambda frames: 8)
    assert "at least 9 output frames for the 7 units of its text, got 7 from 23" in check(3)[0]
    # 3077 samples are 17 frames.
    assert "got 8 from 17 frames" in check(2, 1.3)[0]


def test_refuse_names_ten_and_counts_the_rest(utterances):
    many = utterances * 3
    problems = {i: f"{many[i].path}: broken" for i in range(12)}
    with pytest.raises(ValueError) as caught:
        keep_usable(many, problems, "refuse", "train.tsv")
    first, *lines = str(caught.value).split("\n")
    assert "usable utterances in train.tsv, got 12 of 24" in first
    assert "--bad-utterances skip" in first
    assert lines == [*list(problems.values())[:10], "... and 2 more"]
    assert keep_usable(many, {}, "refuse", "train.tsv") == many


def test_skip_names_all_and_counts_them(utterances, caplog):
    problems = {i: f"{utterances[i].path}: broken" for i in (5, 1)}
    kept = keep_usable(utterances, problems, "skip", "train.tsv")
    assert kept == [u for i, u in enumerate(utterances) if i not in (1, 5)]
    assert caplog.messages == [
        f"skipped: {utterances[1].path}: broken",
        f"skipped: {utterances[5].path}: broken",
        "skipped 2 of 8 utterances of train.tsv",
    ]


def test_skipping_everything_is_refused(utterances):
    problems = dict.fromkeys(range(8), "broken")
    with pytest.raises(ValueError, match="got 8 of 8 that are not; mend or remove them\n"):
        keep_usable(utterances, problems, "skip", "train.tsv")
    with pytest.raises(ValueError, match="a policy refuse or skip, got 'ignore'"):
        keep_usable(utterances, {}, "ignore", "train.tsv")


def test_all_checks_in_one(tmp_path, utterances, cache):
    mixed = list(utterances)
    mixed[0] = dataclasses.replace(mixed[0], path=tmp_path / "none.wav", text="é")
    mixed[1] = dataclasses.replace(mixed[1], text="é")
    mixed[2] = dataclasses.replace(mixed[2], text="GO" * 99)
    options = {"policy": "skip", "name": "train.tsv", "output_lengths": lambda frames: frames}
    kept = usable_utterances(mixed, CONFIG, cache, UNITS, KNOWN, **options)
    assert kept == mixed[3:]
    kept = usable_utterances(mixed, CONFIG, cache, UNITS, KNOWN, **options, check_text=False)
    assert kept == mixed[1:]
    with pytest.raises(ValueError, match="(?s)3 of 8.*none.wav: .*No such file.*'é'.*at least 198"):
        usable_utterances(mixed, CONFIG, cache, UNITS, KNOWN, **options | {"policy": "refuse"})
