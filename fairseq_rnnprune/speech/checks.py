"""Finds and names every utterance that cannot be used: its audio, its text, or the two together."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Container, Iterable, Sequence

from .audio import AudioError, measure_audio
from .cache import FeatureCache
from .config import SpeechConfig
from .features import WINDOW_MS, changed_length, frame_count
from .manifest import Utterance
from .units import Units

logger = logging.getLogger(__name__)

POLICIES = ("refuse", "skip")
_NAMED = 10

# By the utterance's place in the manifest: one line that begins with the audio's path.
Problems = dict[int, str]


def required_frames(symbols: Sequence[str]) -> int:
    """The least output frames from which CTC can spell these units.

    One for each, and one blank between equal neighbours: without it the two would be read as one.
    """
    repeats = sum(a == b for a, b in zip(symbols, symbols[1:], strict=False))
    return len(symbols) + repeats


def check_audio(
    utterances: Sequence[Utterance],
    config: SpeechConfig,
    cache: FeatureCache,
    progress: Callable[[Iterable], Iterable] = iter,
) -> tuple[list[Utterance], Problems]:
    """Returns the utterances with measured lengths at the config's rate, and what is wrong.

    Audio whose features are not in the cache is decoded as a whole, and they are put there. One
    warning says how many lengths in the manifest were wrong; measured ones replace them.
    """
    measured, problems, wrong = [], {}, 0
    for index, utterance in enumerate(progress(utterances)):
        try:
            samples, length = measure_audio(utterance.path, config.sample_rate)
            # What only decoding shows: a file cut off, samples that are not finite.
            if not cache.has(utterance.path, config):
                cache.features(utterance.path, config)
        except AudioError as error:
            problems[index] = str(error)
            measured.append(utterance)
            continue
        wrong += utterance.samples not in (samples, length)
        measured.append(dataclasses.replace(utterance, samples=length))
        if not frame_count(length, config.sample_rate):
            problems[index] = (
                f"{utterance.path}: expected at least {WINDOW_MS} ms of audio, got {samples} "
                "samples"
            )
    if wrong:
        logger.warning(
            "%d of %d lengths in the manifest are not those of the audio; measured ones are used",
            wrong,
            len(utterances),
        )
    return measured, problems


def check_texts(
    utterances: Sequence[Utterance],
    config: SpeechConfig,
    units: Units,
    known: Container[str],
    output_lengths: Callable[[int], int] | None = None,
    speed: float = 1.0,
) -> Problems:
    """What is wrong with the transcripts of utterances with measured lengths.

    `known` are the units of the dictionary, `output_lengths` a model's output frames for so many
    input frames (None leaves that check out), `speed` the fastest that training plays audio.
    """
    problems = {}
    for index, utterance in enumerate(utterances):
        symbols = units.encode(utterance.text)
        problem = _spelling(utterance.text, symbols, units, known)
        if problem is None and output_lengths is not None:
            samples = changed_length(utterance.samples, speed)
            frames = frame_count(samples, config.sample_rate)
            needed, output = required_frames(symbols), int(output_lengths(frames))
            if output < needed:
                problem = (
                    f"expected at least {needed} output frames for the {len(symbols)} units of its "
                    f"text, got {output} from {frames} frames of audio"
                )
        if problem is not None:
            problems[index] = f"{utterance.path}: {problem}"
    return problems


def _spelling(text: str, symbols: list[str], units: Units, known: Container[str]) -> str | None:
    shown = repr(text if len(text) <= 40 else text[:37] + "...")
    if not symbols:
        return "expected a transcript, got an empty one"
    if units.reserved in text:
        return (
            f"expected no {units.reserved!r}, with which the units write a space, in the text, "
            f"got {shown}"
        )
    outside = [s for s in dict.fromkeys(symbols) if s not in known]
    if outside:
        named = ", ".join(map(repr, outside[:_NAMED]))
        return f"expected units of the dictionary, got {named} in {shown}"
    return None


def keep_usable(
    utterances: Sequence[Utterance], problems: Problems, policy: str, name: str
) -> list[Utterance]:
    """The utterances without problems; `name` says in messages whose they are.

    "refuse": ValueError if there is a problem, the first ten in a line each. "skip": a warning for
    each and one with their number; ValueError if no utterance is left.
    """
    if policy not in POLICIES:
        raise ValueError(
            f"keep_usable: expected a policy {' or '.join(POLICIES)}, got {policy!r}; "
            "choose with --bad-utterances"
        )
    if not problems:
        return list(utterances)
    total, bad = len(utterances), len(problems)
    lines = [problems[index] for index in sorted(problems)]
    if policy == "refuse" or bad == total:
        advice = "mend or remove them" + ("" if bad == total else ", or --bad-utterances skip")
        rest = [f"... and {bad - _NAMED} more"] if bad > _NAMED else []
        raise ValueError(
            f"keep_usable: expected usable utterances in {name}, got {bad} of {total} that are "
            f"not; {advice}\n" + "\n".join(lines[:_NAMED] + rest)
        )
    for line in lines:
        logger.warning("skipped: %s", line)
    logger.warning("skipped %d of %d utterances of %s", bad, total, name)
    return [u for index, u in enumerate(utterances) if index not in problems]


def warn_of_texts(
    utterances: Sequence[Utterance],
    config: SpeechConfig,
    units: Units,
    known: Container[str],
    name: str,
) -> None:
    """A warning for each of the first ten transcripts that no model can spell, and their number.

    An empty transcript is none of them: decoding needs no transcripts.
    """
    spoken = [u for u in utterances if units.encode(u.text)]
    problems = check_texts(spoken, config, units, known)
    for index in sorted(problems)[:_NAMED]:
        logger.warning("%s", problems[index])
    if problems:
        logger.warning(
            "%d of %d transcripts of %s cannot be spelled with the units; what is outside them "
            "counts as errors",
            len(problems),
            len(utterances),
            name,
        )


def usable_utterances(
    utterances: Sequence[Utterance],
    config: SpeechConfig,
    cache: FeatureCache,
    units: Units,
    known: Container[str],
    *,
    policy: str,
    name: str,
    output_lengths: Callable[[int], int] | None = None,
    speed: float = 1.0,
    check_text: bool = True,
) -> list[Utterance]:
    """All checks of a split and the policy in one: what a `SpeechDataset` takes.

    Without `check_text` the transcripts may be anything, as when a test set is decoded.
    """
    measured, problems = check_audio(utterances, config, cache)
    if check_text:
        texts = check_texts(measured, config, units, known, output_lengths, speed)
        problems = texts | problems
    return keep_usable(measured, problems, policy, name)
