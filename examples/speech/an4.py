"""Fetches AN4 from its public home and writes the manifests of the speech recipe.

    python examples/speech/an4.py AN4_FOLDER

948 + 130 recordings of 84 speakers, 16 kHz WAV, 64 MB (Carnegie Mellon University, 1991; a
BSD-like licence, which lies with the data). Eight of the 74 training speakers are for validation.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import tarfile
import urllib.request
import wave
from pathlib import Path

from fairseq_rnnprune.speech.manifest import Utterance, write_manifest

URL = "https://github.com/cmusphinx/an4/archive/b567d13.tar.gz"
VALIDATION_SPEAKERS, VALIDATION_SEED = 8, 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the recordings and manifests go")
    parser.add_argument("--url", default=URL, help="the archive (default: %(default)s)")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    fetch(args.url, args.folder)
    rows = read_rows(args.folder, "train")
    speakers = sorted({row.speaker for row in rows})
    random.Random(VALIDATION_SEED).shuffle(speakers)
    held_out = set(speakers[:VALIDATION_SPEAKERS])
    write(args.folder / "train.tsv", [row for row in rows if row.speaker not in held_out])
    write(args.folder / "valid.tsv", [row for row in rows if row.speaker in held_out])
    write(args.folder / "test.tsv", read_rows(args.folder, "test"))


def fetch(url: str, folder: Path) -> None:
    """Downloads the archive and unpacks its files, without the one folder at the top."""
    try:
        archive, _ = urllib.request.urlretrieve(url)
    except OSError as error:
        raise SystemExit(f"an4: expected an archive at {url}, got: {error}") from None
    with tarfile.open(archive) as tar:
        # Not by tar.extract: what keeps it inside the folder came with Python 3.11.4.
        for member in filter(tarfile.TarInfo.isfile, tar):
            path = folder / member.name.partition("/")[2]
            if folder.resolve() not in path.resolve().parents:
                raise SystemExit(
                    f"an4: expected files below one folder, got {member.name} at {url}"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as source, path.open("wb") as target:
                shutil.copyfileobj(source, target)


def read_rows(folder: Path, split: str) -> list[Utterance]:
    """The recordings of a split, by its lists: `<s> TEXT </s> (NAME)` in the transcription."""
    lines = (folder / "etc" / f"an4_{split}.transcription").read_text().splitlines()
    files = (folder / "etc" / f"an4_{split}.fileids").read_text().split()
    rows = []
    for file, line in zip(files, lines, strict=True):
        text, name = re.fullmatch(r"(?:<s> )?(.*?)(?: </s>)? \((.*)\)", line).groups()
        path = Path("wav", f"{file}.wav")
        if path.stem != name:
            raise ValueError(f"an4: expected the transcription of {path}, got that of {name}")
        with wave.open(str(folder / path)) as audio:
            rows.append(Utterance(path, audio.getnframes(), path.parent.name, text))
    return rows


def write(manifest: Path, rows: list[Utterance]) -> None:
    write_manifest(manifest, rows)
    print(f"{manifest}: {len(rows)} recordings")


if __name__ == "__main__":
    main()
