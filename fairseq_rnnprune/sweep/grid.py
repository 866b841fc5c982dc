"""A sweep as its file says it: axes, the combinations of them to run, and the commands of a run."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

Value = str | int | float

# Names that every command may use, besides the variables and axes.
AUTOMATIC = ("folder", "work", "user_dir")


@dataclass(frozen=True)
class Axis:
    """What a run can choose: a text for each value. An open axis may take other values too."""

    texts: dict[Value, str]
    is_open: bool

    def text(self, value: Value) -> str:
        """The text that stands in a command for a value."""
        return self.texts.get(value, str(value))


@dataclass(frozen=True)
class Grid:
    """A sweep as its file says it; `evaluate` and `figures` are by name.

    The name of an evaluation is empty if the file lists them without names. A variable that is
    None must be given.
    """

    variables: dict[str, str | None]
    axes: dict[str, Axis]
    parts: list[dict[str, list[Value]]]
    train: str
    evaluate: list[tuple[str, str]]
    figures: dict[str, re.Pattern[str]]

    def combinations(self) -> list[dict[str, Value]]:
        """The values of every run by axis: part after part, each combination once.

        A part that does not name an axis takes all of its values.
        """
        found: dict[tuple[Value, ...], None] = {}
        for part in self.parts:
            choices = (part.get(name, list(axis.texts)) for name, axis in self.axes.items())
            found |= dict.fromkeys(itertools.product(*choices))
        return [dict(zip(self.axes, values, strict=True)) for values in found]


def name_of(figure: str, evaluation: str) -> str:
    """What a row calls the figure that an evaluation of this name, or of none, has given."""
    return f"{evaluation}_{figure}" if evaluation else figure
