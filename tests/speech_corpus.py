"""A small corpus of tones and noise with made-up transcripts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

RATE = 16000
TEXTS = ("GO ON", "YES", "NO", "ONE TWO", "GO", "OH NO", "TEN", "SEE")


def tone(samples: int, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """Audio float32 [samples]: a tone of 440 Hz in noise."""
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (0.3 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate) + 0.05 * noise).astype("f4")


def write_manifest(path: Path, rows: list[tuple[object, ...]]) -> Path:
    """Writes rows of path, samples, speaker, text under their header."""
    lines = ["\t".join(map(str, row)) for row in [("path", "samples", "speaker", "text"), *rows]]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def make_corpus(folder: Path, splits: tuple[str, ...] = ("train", "valid", "test")) -> Path:
    """Writes a manifest with eight utterances of different lengths for each split."""
    for number, split in enumerate(splits):
        rows = []
        for index, text in enumerate(TEXTS):
            path = folder / "flac" / f"{split}{index}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = 4000 + 1600 * (index * 5 % 8)
            soundfile.write(path, tone(samples, seed=100 * number + index), RATE)
            rows.append((path.relative_to(folder), samples, f"{split}-{index % 3}", text))
        write_manifest(folder / f"{split}.tsv", rows)
    return folder


def make_damaged(folder: Path) -> dict[str, Path]:
    """Writes every kind of file that is no usable recording; by a word of what is said of it."""
    folder.mkdir(parents=True, exist_ok=True)
    audio = tone(32000)
    bad = {
        "No such file": folder / "missing.wav",
        "got a folder": folder / "folder.wav",
        "empty one": folder / "empty.wav",
        "cannot be read": folder / "text.wav",
        "0 samples": folder / "nothing.wav",
        "cut off: expected 64044 bytes, got 40000": folder / "cut.wav",
        "cut off or damaged: expected 32000": folder / "cut.flac",
        "ends the stream": folder / "cut.ogg",
        "finite samples, got nan": folder / "nan.wav",
        "finite samples, got inf": folder / "inf.wav",
        # Finite, but its energy is not.
        "finite samples, got 3e+20": folder / "3e20.wav",
        "written to a pipe": folder / "pipe.flac",
    }
    (folder / "folder.wav").mkdir(exist_ok=True)
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("not a recording\n" * 50)
    soundfile.write(folder / "nothing.wav", audio[:0], RATE)
    for kind in ("wav", "flac", "ogg"):
        path = folder / f"cut.{kind}"
        soundfile.write(path, audio, RATE)
        data = path.read_bytes()
        path.write_bytes(data[: 40000 if kind == "wav" else len(data) * 3 // 4])
    for value in ("nan", "inf", "3e20"):
        broken = audio.copy()
        broken[16000] = float(value)
        soundfile.write(folder / f"{value}.wav", broken, RATE, subtype="FLOAT")
    soundfile.write(folder / "pipe.flac", audio, RATE)
    flac = bytearray((folder / "pipe.flac").read_bytes())
    # The 36 bits of STREAMINFO's length; 0 says that it is not known.
    flac[21] &= 0xF0
    flac[22:26] = bytes(4)
    (folder / "pipe.flac").write_bytes(flac)
    return bad
