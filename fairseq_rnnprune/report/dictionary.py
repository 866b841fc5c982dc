"""Symbols of fairseq's dictionaries, read without fairseq."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from fairseq_rnnprune.checkpoint import Checkpoint

# What fairseq's Dictionary puts before the lines of a dict.txt.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
_OVERWRITE = " #fairseq:overwrite"
_PAIR = re.compile(r"train\.([^.-]+)-([^.-]+)\.")


def read_dictionary(path: str | Path) -> list[str]:
    """The symbols of a dict.txt, in the order of their indices, the four special ones first.

    ValueError if the file cannot be read or a line is not a symbol and a count.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise ValueError(
            f"read_dictionary: expected a dict.txt of fairseq's, got {path}: {reason}"
        ) from None
    symbols = list(SPECIAL)
    for number, line in enumerate(lines, 1):
        # Also what fairseq-preprocess writes last: an empty line.
        if not line.strip():
            continue
        symbol, _, count = line.rstrip().removesuffix(_OVERWRITE).rpartition(" ")
        if not symbol or not count.isdigit():
            raise ValueError(
                f"read_dictionary: expected a symbol and a count in line {number} of {path}, "
                f"got {line[:80]!r}; name a dict.txt that fairseq-preprocess wrote"
            )
        symbols.append(symbol)
    return symbols


def find_dictionaries(checkpoint: Checkpoint) -> list[list[str]]:
    """Those in the data folder of a checkpoint's training, the source's first; [] if it is gone."""
    data = checkpoint.option("task", "data")
    if not isinstance(data, str) or not data:
        return []
    folder = Path(data.split(":")[0])
    names = ["dict.txt"]
    languages = [checkpoint.option("task", f"{side}_lang") for side in ("source", "target")]
    try:
        if None in languages and folder.is_dir():
            pairs = (_PAIR.match(p.name) for p in sorted(folder.iterdir()))
            languages = next((list(m.groups()) for m in pairs if m), languages)
        names += [f"dict.{language}.txt" for language in languages if language]
        return [read_dictionary(folder / n) for n in names if (folder / n).is_file()]
    # Nobody asked for them: a folder that is in the way is no error.
    except (OSError, ValueError):
        return []


def fitting(dictionaries: Sequence[Sequence[str]], rows: int, name: str) -> Sequence[str] | None:
    """The dictionary of a matrix: of as many symbols as it has rows.

    Of several, the first for an encoder, the last for anything else.
    """
    fits = [d for d in dictionaries if len(d) == rows]
    if not fits:
        return None
    return fits[0] if "encoder" in name else fits[-1]
