"""Texts with {names}: filled in, split into words, and shown without the user's folders."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"\{([A-Za-z_]\w*)\}")
# A place keeps its name until the text is split: a path is one word, whatever is in it.
_PLACE = re.compile(r"\0(\w+)\0")


@dataclass(frozen=True)
class Place:
    """A folder or file of the user, and what stands for it in results."""

    path: str
    shown: str


@dataclass(frozen=True)
class Command:
    """The words of a command line, in which places have not been filled in yet."""

    words: tuple[str, ...]
    places: Mapping[str, Place]

    @property
    def arguments(self) -> list[str]:
        """What is executed."""
        return [_PLACE.sub(lambda m: self.places[m[1]].path, word) for word in self.words]

    @property
    def shown(self) -> str:
        """The command line for results: names such as DATA and WORK in the place of folders."""
        return shlex.join(
            _PLACE.sub(lambda m: self.places[m[1]].shown, word) for word in self.words
        )

    def mentions(self, place: str) -> bool:
        """True if the place is named in the command."""
        return any(place in _PLACE.findall(word) for word in self.words)


def names_in(texts: Iterable[str]) -> set[str]:
    """The names in braces in some texts."""
    return {name for text in texts for name in _NAME.findall(text)}


def make_command(
    text: str, texts: Mapping[str, str], places: Mapping[str, Place], where: str
) -> Command:
    """Fills {name} with the text or place of that name; texts may hold names in their turn.

    Braces around anything else, as in --model-overrides, stay. ValueError, beginning with
    `where`, for a name that is unknown or holds itself, an open quotation mark or no words.
    """
    filled = _fill(text, texts, places, where, ())
    try:
        words = tuple(shlex.split(filled))
    except ValueError as error:
        raise ValueError(
            f"{where}: expected a command line, got {text!r} ({error}); close what is open"
        ) from None
    if not words:
        raise ValueError(f"{where}: expected a command, got an empty text")
    return Command(words, places)


def is_path(text: str) -> bool:
    """True of an absolute path, and of the path of anything that exists, unless it is a number."""
    try:
        is_there = Path(text).is_absolute() or Path(text).exists()
        return bool(text) and is_there and not re.fullmatch(r"[\d.]+", text)
    except OSError:
        # Too long for a path.
        return False


def _fill(
    text: str,
    texts: Mapping[str, str],
    places: Mapping[str, Place],
    where: str,
    around: tuple[str, ...],
) -> str:
    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name in places:
            return f"\0{name}\0"
        if name not in texts:
            known = ", ".join(f"{{{n}}}" for n in sorted({*texts, *places}))
            raise ValueError(f"{where}: expected one of {known}, got {{{name}}}")
        if name in around:
            raise ValueError(f"{where}: expected a text without itself in it, got {{{name}}}")
        return _fill(texts[name], texts, places, where, (*around, name))

    return _NAME.sub(value, text)
