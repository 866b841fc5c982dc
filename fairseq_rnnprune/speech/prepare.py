"""The subcommand `rnnprune prepare`: checks a data folder and makes what training needs of it."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fairseq_rnnprune.progress import new_progress

from .config import FILE, NORMALIZATIONS, UNITS, SpeechConfig

if TYPE_CHECKING:
    from .cache import FeatureCache
    from .checks import Problems
    from .manifest import Utterance
    from .units import Units

# The libraries of the extra `speech` are imported when the subcommand runs.

SPLITS = ("train", "valid", "test")


def add_prepare(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune prepare`."""
    parser = subcommands.add_parser(
        "prepare",
        help="check a folder of recordings, compute features and units for a training",
        description="Checks the recordings and texts that train.tsv, valid.tsv and test.tsv in "
        "DATA name (columns path, samples, speaker, text; tab-separated, with a header), computes "
        "their features, and writes dict.txt, speech.json and, for these units, "
        "sentencepiece.model. The units and statistics come from train.tsv.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="the folder with the manifests")
    default = SpeechConfig()
    parser.add_argument(
        "--units",
        choices=UNITS,
        default=default.units,
        help="what the model spells with (default: %(default)s)",
    )
    parser.add_argument(
        "--sentencepiece-size",
        type=int,
        default=200,
        metavar="N",
        help="pieces at most, with --units sentencepiece (default: %(default)s)",
    )
    parser.add_argument(
        "--mel-bins",
        type=int,
        default=default.mel_bins,
        metavar="N",
        help="features of a frame (default: %(default)s)",
    )
    parser.add_argument(
        "--sample-rate",
        type=int,
        default=default.sample_rate,
        metavar="HZ",
        help="audio of another rate is resampled (default: %(default)s)",
    )
    parser.add_argument(
        "--normalization",
        choices=NORMALIZATIONS,
        default="global",
        help="features with mean 0 and deviation 1 over train.tsv (global; can stream) or over "
        "each utterance (default: %(default)s)",
    )
    parser.add_argument(
        "--bad-utterances",
        choices=("refuse", "skip"),
        default="refuse",
        help="refuse: name those that cannot be used and stop; skip: name them and leave them out "
        "of the units and the statistics (default: %(default)s)",
    )
    parser.set_defaults(run=run_prepare)


def run_prepare(args: argparse.Namespace) -> None:
    """Checks every split, then writes; prints what there is and how to go on."""
    from .cache import FOLDER, FeatureCache
    from .checks import check_audio, check_texts

    config = SpeechConfig(sample_rate=args.sample_rate, mel_bins=args.mel_bins, units=args.units)
    manifests = _read_manifests(args.data)
    _check_writable(args.data)
    cache = FeatureCache(args.data / FOLDER)
    measured, problems = {}, {}
    with new_progress() as progress:
        for split, utterances in manifests.items():
            track = functools.partial(progress.track, description=split)
            measured[split], problems[split] = check_audio(utterances, config, cache, track)
    units, counts = _make_units(args, measured["train"], problems["train"])
    if texts := check_texts(measured["train"], config, units, counts):
        # What only these say is no unit.
        problems["train"] = texts | problems["train"]
        units, counts = _make_units(args, measured["train"], problems["train"])
    for split, utterances in measured.items():
        problems[split] = check_texts(utterances, config, units, counts) | problems[split]
    usable = _keep_usable(measured, problems, args)
    if args.normalization == "global":
        config = _with_statistics(config, usable["train"], cache)
    written = _write(args.data, config, units, counts)
    _print_summary(manifests, usable, config.sample_rate, len(counts))
    print(f"wrote {', '.join(written)} and {FOLDER}/ in {args.data}")
    print(f"next: {_next_command(args.data, units, manifests, args.bad_utterances)}")


def _read_manifests(data: Path) -> dict[str, list[Utterance]]:
    from .manifest import read_manifest

    if not (data / "train.tsv").is_file():
        raise ValueError(
            f"prepare: expected a folder with train.tsv, got {data}; give the folder of a corpus "
            "whose manifests have the columns path, samples, speaker, text"
        )
    paths = {split: data / f"{split}.tsv" for split in SPLITS}
    return {split: read_manifest(path) for split, path in paths.items() if path.is_file()}


def _check_writable(data: Path) -> None:
    """Before minutes of work, not after them."""
    try:
        tempfile.TemporaryFile(dir=data).close()
    except OSError as error:
        raise ValueError(
            f"prepare: expected a folder that can be written, got {data} ({error.strerror}); "
            "copy its manifests into another folder, with absolute paths to the audio"
        ) from error


def _make_units(
    args: argparse.Namespace, utterances: Sequence[Utterance], problems: Problems
) -> tuple[Units, dict[str, int]]:
    """The units of the utterances without problems, and how often each is in them."""
    from .checks import keep_usable
    from .units import CharacterUnits, SentencePieceUnits

    texts = [u.text for i, u in enumerate(utterances) if i not in problems]
    if not texts:
        keep_usable(utterances, problems, args.bad_utterances, "train.tsv")
    if args.units == CharacterUnits.name:
        units: Units = CharacterUnits()
    else:
        units = SentencePieceUnits.train(texts, args.sentencepiece_size)
    return units, units.counts(texts)


def _keep_usable(
    measured: dict[str, list[Utterance]], problems: dict[str, Problems], args: argparse.Namespace
) -> dict[str, list[Utterance]]:
    """The policy by split; what is refused is named over all splits at once."""
    from .checks import keep_usable

    policy = args.bad_utterances
    if policy == "refuse":
        everything, offset, found = [], 0, {}
        for split, utterances in measured.items():
            found |= {offset + i: line for i, line in problems[split].items()}
            everything += utterances
            offset += len(utterances)
        keep_usable(everything, found, policy, str(args.data))
    return {
        split: keep_usable(utterances, problems[split], policy, f"{split}.tsv")
        for split, utterances in measured.items()
    }


def _with_statistics(
    config: SpeechConfig, utterances: Sequence[Utterance], cache: FeatureCache
) -> SpeechConfig:
    """The config with the mean and standard deviation of every mel bin over all frames."""
    import numpy as np

    from .features import SMALLEST_STD

    frames, total, squares = 0, 0.0, 0.0
    for utterance in utterances:
        features = cache.features(utterance.path, config).astype(np.float64)
        frames += len(features)
        total = total + features.sum(axis=0)
        squares = squares + (features**2).sum(axis=0)
    mean = total / frames
    std = np.sqrt(np.maximum(squares / frames - mean**2, SMALLEST_STD**2))
    return dataclasses.replace(
        config, normalization="global", mean=tuple(mean.tolist()), std=tuple(std.tolist())
    )


def _write(data: Path, config: SpeechConfig, units: Units, counts: dict[str, int]) -> list[str]:
    """Writes the files and returns their names."""
    from .units import DICTIONARY_FILE, SENTENCEPIECE_FILE, write_counts

    written = [DICTIONARY_FILE]
    write_counts(counts, data / DICTIONARY_FILE)
    if config.units == "sentencepiece":
        (data / SENTENCEPIECE_FILE).write_bytes(units.model)
        written.append(SENTENCEPIECE_FILE)
    # The last: a folder that has it is complete.
    config.save(data)
    return [*written, FILE]


def _print_summary(
    manifests: dict[str, list[Utterance]],
    usable: dict[str, list[Utterance]],
    sample_rate: int,
    units: int,
) -> None:
    from fairseq_rnnprune.display.grid import Grid, count, print_grid

    rows = []
    for split, utterances in usable.items():
        hours = sum(u.samples for u in utterances) / sample_rate / 3600
        speakers = len({u.speaker for u in utterances if u.speaker})
        bad = len(manifests[split]) - len(utterances)
        rows.append([split, *map(count, (len(utterances), bad, speakers)), f"{hours:.2f}"])
    header = ["split", "utterances", "bad", "speakers", "hours"]
    print_grid(Grid(header, rows, numeric=1))
    print(f"\n{units} units")


def _next_command(data: Path, units: Units, splits: Iterable[str], bad_utterances: str) -> str:
    """A training on this data, which meets the same bad utterances."""
    from fairseq_rnnprune import __file__ as package

    arguments = ["fairseq-train", str(data), "--user-dir", str(Path(package).parent)]
    arguments += "--task rnnprune_speech --arch rnnprune_deepspeech2 --criterion ctc".split()
    arguments += ["--post-process", units.post_process, "--zero-infinity", "--batch-size", "16"]
    arguments += "--optimizer adam --lr 0.001 --clip-norm 1.0 --max-epoch 30".split()
    if bad_utterances == "skip":
        arguments += ["--bad-utterances", "skip"]
    if "valid" not in splits:
        arguments.append("--disable-validation")
    return shlex.join(arguments)
