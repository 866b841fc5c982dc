"""Manifests: tab-separated tables with a header, one utterance by line."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

_REQUIRED = ("path", "samples", "text")
_COLUMNS = ("path", "samples", "speaker", "text")


@dataclasses.dataclass(frozen=True)
class Utterance:
    """A recording and its transcript.

    `samples` is the manifest's length, at the file's own rate, until `checks` has measured it.
    `row` counts the manifest's utterances from 0, skipped ones as well; -1 without a manifest.
    """

    path: Path
    samples: int
    speaker: str
    text: str
    # Where it is said, not what.
    row: int = dataclasses.field(default=-1, compare=False)


def read_manifest(path: Path) -> list[Utterance]:
    """Reads a manifest with the columns path, samples, text and maybe speaker, in any order.

    Paths are relative to the manifest's folder, absolute, or begin with ~. Other columns are
    ignored; quotation marks mean nothing; empty lines are skipped. ValueError names file and line.
    """
    path = Path(path)
    try:
        # utf-8-sig drops the mark that Windows programs put first; read_text makes \n of their ends
        # of lines. splitlines() would also split a transcript at rarer characters.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except OSError as error:
        raise ValueError(
            f"read_manifest: expected a tab-separated file, got {error}; give another path"
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(
            f"read_manifest: expected UTF-8 in {path}, got {error}; convert the file"
        ) from error
    columns = [name.strip() for name in lines[0].split("\t")]
    missing = [name for name in _REQUIRED if name not in columns]
    if missing or len(set(columns)) < len(columns):
        problem = f"no {' and no '.join(missing)}" if missing else "a name twice"
        raise ValueError(
            f"read_manifest: expected a header with the tab-separated names path, samples, speaker,"
            f" text in {path}, got {problem} in {lines[0].rstrip()!r:.80}; name every column"
        )
    utterances = [
        _utterance(dict(zip(columns, _fields(line, len(columns), path, n), strict=True)), path, n)
        for n, line in enumerate(lines[1:], 2)
        if line.strip()
    ]
    if not utterances:
        raise ValueError(f"read_manifest: expected utterances in {path}, got only its header")
    return [dataclasses.replace(u, row=row) for row, u in enumerate(utterances)]


def write_manifest(path: Path, utterances: Iterable[Utterance]) -> None:
    """Writes a manifest that `read_manifest` reads; relative paths stay as they are."""
    rows = [(u.path.as_posix(), str(u.samples), u.speaker, u.text) for u in utterances]
    lines = ["\t".join(row) + "\n" for row in (_COLUMNS, *rows)]
    Path(path).write_text("".join(lines), encoding="utf-8")


def _fields(line: str, count: int, path: Path, number: int) -> list[str]:
    fields = line.split("\t")
    if len(fields) != count:
        raise ValueError(
            f"read_manifest: expected {count} tab-separated fields, got {len(fields)} in line "
            f"{number} of {path}"
        )
    return fields


def _utterance(row: dict[str, str], path: Path, number: int) -> Utterance:
    samples = row["samples"].strip()
    if not (samples.isascii() and samples.isdigit()):
        raise ValueError(
            f"read_manifest: expected samples to be a whole number >= 0, got {samples!r} in line "
            f"{number} of {path}"
        )
    if not row["path"].strip():
        raise ValueError(f"read_manifest: expected a path, got none in line {number} of {path}")
    # Path.expanduser fails at ~ before the name of no user, which may be a file's.
    audio = Path(os.path.expanduser(row["path"].strip()))
    return Utterance(path.parent / audio, int(samples), row.get("speaker", ""), row["text"])
