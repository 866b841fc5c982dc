"""The subcommand `rnnprune transcribe`: recordings to text, whole or as they come."""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import re
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .recordings import find_recordings

if TYPE_CHECKING:
    from .transcript import Transcript

# torch and fairseq are imported when the subcommand runs: --help answers at once.

MAX_CHUNK_MS = 60_000


def add_transcribe(subcommands: argparse._SubParsersAction) -> None:
    """Adds `rnnprune transcribe`."""
    parser = subcommands.add_parser(
        "transcribe",
        help="turn recordings into text",
        description="Turns recordings into text with a model of the task rnnprune_speech, on the "
        "CPU: a line with path and text by recording, or the text alone for a single one. "
        "Recordings that cannot be used are named on standard error; the exit status is then 2.",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL",
        help="a checkpoint of fairseq-train, or what rnnprune export has made of one",
    )
    parser.add_argument(
        "audio",
        nargs="+",
        type=Path,
        metavar="AUDIO",
        help="recordings, or folders with recordings at any depth; with --stream also -, standard "
        "input (16 bits, little endian, one channel, the model's sample rate, no header)",
    )
    parser.add_argument(
        "--beam",
        type=int,
        default=1,
        metavar="N",
        help="prefixes of the beam search (default: 1, the best path)",
    )
    parser.add_argument(
        "--lm",
        type=Path,
        metavar="PATH",
        help="language model: a checkpoint of rnnprune_gru_lm over the same dict.txt, or a file "
        "of KenLM over words (needs the library kenlm); use it with --beam 16 or more",
    )
    parser.add_argument(
        "--lm-weight", type=float, metavar="W", help="of the language model (default: 0.5)"
    )
    parser.add_argument(
        "--length-bonus",
        type=float,
        default=0.0,
        metavar="S",
        help="added to a text's score for every unit, against texts that a language model makes "
        "too short (default: 0)",
    )
    parser.add_argument(
        "--packed",
        choices=("auto", "dense", "fp32", "bf16", "int16", "int8"),
        help="weights: auto (packed where that is faster), dense, or packed with such values "
        "(default: as the model was trained, else auto); LOGLEVEL=INFO in the environment shows "
        "what was chosen and why",
    )
    parser.add_argument(
        "--batch-size", type=int, metavar="N", help="recordings at a time (default: 1)"
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object by recording: path, seconds, text, words with start and end",
    )
    parser.add_argument(
        "--stream",
        action="store_true",
        help="take the audio in chunks, as they come; needs a unidirectional model",
    )
    parser.add_argument(
        "--chunk-ms", type=float, metavar="MS", help="length of a chunk (default: 100)"
    )
    parser.set_defaults(run=run_transcribe)


def run_transcribe(args: argparse.Namespace) -> None:
    """Prints transcripts as they are made; ValueError at the end if a recording had none."""
    _check_options(args)
    with _log_level():
        _transcribe(args)


@contextlib.contextmanager
def _log_level() -> Iterator[None]:
    """Keeps what fairseq and packing tell of themselves off the terminal, unless asked for."""
    import fairseq_rnnprune.plugin  # noqa: F401

    # The import has made fairseq set the root logger to INFO.
    root = logging.getLogger()
    before = root.level
    root.setLevel(os.environ.get("LOGLEVEL", "WARNING").upper())
    try:
        yield
    finally:
        root.setLevel(before)


def _check_options(args: argparse.Namespace) -> None:
    if args.lm is None and args.lm_weight is not None:
        raise ValueError("--lm-weight: expected --lm PATH as well, got none; name a language model")
    if args.batch_size is not None and (args.batch_size < 1 or args.stream):
        rule = "no --batch-size with --stream" if args.stream else "a batch size >= 1"
        raise ValueError(f"--batch-size: expected {rule}, got {args.batch_size}")
    if args.chunk_ms is not None and (not 0 < args.chunk_ms <= MAX_CHUNK_MS or not args.stream):
        rule = f"a length from 0 to {MAX_CHUNK_MS} ms" if args.stream else "--stream as well"
        raise ValueError(f"--chunk-ms: expected {rule}, got {args.chunk_ms}")
    if Path("-") in args.audio and not args.stream:
        raise ValueError("transcribe: expected --stream for -, standard input, got none; add it")


def _transcribe(args: argparse.Namespace) -> None:
    from .generator import LM_WEIGHT, CTCGenerator
    from .loading import load_language_model, load_speech_model
    from .transcript import transcribe_files, transcribe_streams

    speech = load_speech_model(args.model, args.packed)
    language_model = None if args.lm is None else load_language_model(args.lm, speech)
    generator = CTCGenerator(
        [speech.model],
        speech.dictionary,
        beam=args.beam,
        lm_model=language_model,
        lm_weight=LM_WEIGHT if args.lm_weight is None else args.lm_weight,
        length_bonus=args.length_bonus,
    )
    # One recording that is named needs no name in the output.
    is_single = len(args.audio) == 1 and not args.audio[0].is_dir()
    paths = find_recordings(args.audio)
    if args.stream:
        show = _show if sys.stdout.isatty() and not args.json else None
        found = transcribe_streams(paths, speech, generator, args.chunk_ms or 100.0, show)
    else:
        found = transcribe_files(paths, speech, generator, args.batch_size or 1)
    good = bad = 0
    for result in found:
        if isinstance(result, ValueError):
            bad += 1
            print(f"rnnprune transcribe: {result}", file=sys.stderr, flush=True)
            continue
        good += 1
        _print(result, is_single, args)
    if bad:
        raise ValueError(
            f"transcribe: expected recordings, got {bad} of {good + bad} that cannot be used; they "
            "are named above"
        )


def _print(transcript: Transcript, is_single: bool, args: argparse.Namespace) -> None:
    report = _latency(transcript)
    if args.json:
        names = ("word", "start", "end")
        line = {
            "path": str(transcript.path),
            "seconds": round(transcript.seconds, 3),
            "text": transcript.text,
            "words": [dict(zip(names, word, strict=True)) for word in transcript.words],
        }
        print(json.dumps(line | report), flush=True)
        return
    # A name that is not UTF-8 must not end the command, nor one with a newline make two lines.
    path = re.sub(r"[\0-\x1f]", "\ufffd", os.fsencode(transcript.path).decode(errors="replace"))
    print(transcript.text if is_single else f"{path}\t{transcript.text}", flush=True)
    if report:
        latency = report["latency_ms"]
        print(
            f"{transcript.path}: {report['chunks']} chunks, latency per chunk "
            f"{latency['median']:.1f} ms (median), {latency['greatest']:.1f} ms (greatest); the "
            f"model waits for {latency['waiting']:.0f} ms of later audio",
            file=sys.stderr,
            flush=True,
        )


def _latency(transcript: Transcript) -> dict[str, Any]:
    """What is reported of a stream; nothing of a recording that was taken whole."""
    latencies = transcript.latencies
    if not latencies:
        return {}
    return {
        "chunks": len(latencies),
        "latency_ms": {
            "median": round(statistics.median(latencies), 3),
            "greatest": round(max(latencies), 3),
            "waiting": transcript.waiting_ms,
        },
    }


def _show(text: str) -> None:
    """Replaces the terminal's line by the end of the text."""
    width = shutil.get_terminal_size().columns - 1
    print(f"\r\x1b[K{text[-width:]}", end="", flush=True)
