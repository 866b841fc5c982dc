"""fairseq's Dictionary of a data folder or of a checkpoint's list of units."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from fairseq.data import Dictionary
from torch import Tensor

from fairseq_rnnprune.checkpoint import read_checkpoint

from .units import DICTIONARY_FILE, Units


class UnitDictionary(Dictionary):
    """fairseq's Dictionary, in whose texts an unknown unit is one character, U+FFFD.

    As `<<unk>>`, in the references of fairseq-generate, it would count as seven characters.
    """

    def unk_string(self, escape: bool = False) -> str:
        """U+FFFD, the replacement character, escaped or not."""
        return "\ufffd"


def make_dictionary(symbols: Iterable[str]) -> UnitDictionary:
    """A dictionary of fairseq's four special symbols and these units, in their order.

    ValueError for a unit that is there twice or is one of the four.
    """
    dictionary = UnitDictionary()
    for symbol in symbols:
        if symbol in dictionary.indices:
            raise ValueError(
                f"make_dictionary: expected every unit once and none of fairseq's special "
                f"symbols, got {symbol!r} again; remove it"
            )
        dictionary.add_symbol(symbol)
    return dictionary


def load_dictionary(folder: Path) -> UnitDictionary:
    """Reads folder/dict.txt; ValueError where it is missing, empty or no dictionary."""
    path = Path(folder, DICTIONARY_FILE)
    advice = f"run rnnprune prepare {folder}"
    if not path.is_file():
        raise ValueError(f"load_dictionary: expected {path}, got no such file; {advice}")
    try:
        # Given a name instead, fairseq raises a bare Exception where the encoding is another.
        with open(path, encoding="utf-8") as file:
            dictionary = UnitDictionary.load(file)
    # fairseq raises RuntimeError for a unit that is there twice, UnicodeError is a ValueError.
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"load_dictionary: expected lines of a unit and a count in {path}, got {reason}; "
            f"{advice}"
        ) from error
    if not symbols_of(dictionary):
        raise ValueError(f"load_dictionary: expected units in {path}, got none; {advice}")
    return dictionary


def symbols_of(dictionary: Dictionary) -> list[str]:
    """The units of a dictionary without its special symbols: what `make_dictionary` takes."""
    return dictionary.symbols[dictionary.nspecial :]


def encode(text: str, units: Units, dictionary: Dictionary) -> Tensor:
    """Text to indices, int64 [U], without an end symbol; an unknown unit is `<unk>`."""
    return torch.tensor([dictionary.index(s) for s in units.encode(text)], dtype=torch.int64)


def dictionary_folder(path: Path) -> Path:
    """Where the dictionary of a language model is: in its training's data folder, or beside it.

    ValueError if it is in neither.
    """
    checkpoint = read_checkpoint(path)
    places = [checkpoint.path.parent]
    # fairseq takes several folders, separated by colons, for parts of the data.
    if data := checkpoint.option("task", "data"):
        places.insert(0, Path(str(data).split(":")[0]))
    for folder in places:
        if (folder / DICTIONARY_FILE).is_file():
            return folder
    raise ValueError(
        f"dictionary_folder: expected {DICTIONARY_FILE} of the language model in "
        f"{' or '.join(map(str, places))}, got none; copy it beside {checkpoint.path}"
    )
