"""Options that take one value for all types of weights, or one by type."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

from .prunable import TYPES

T = TypeVar("T")


def read_types(option: str, text: str) -> list[str]:
    """Reads `TYPE,TYPE`, each once; ValueError for an unknown one or none."""
    types = list(dict.fromkeys(t.strip() for t in text.split(",") if t.strip()))
    if not types or not set(types) <= set(TYPES):
        raise ValueError(f"{option}: expected some of {','.join(TYPES)}, got {text!r}")
    return types


def read_by_type(
    option: str, text: str, types: Iterable[str], parse: Callable[[str], T], source: str = ""
) -> dict[str, T]:
    """Reads `VALUE` for all types, or `TYPE=VALUE,TYPE=VALUE` with some of them.

    ValueError, naming the option, for a value that `parse` refuses, and for another type than
    those, which `source` has named.
    """
    types = list(types)
    try:
        if "=" not in text:
            return dict.fromkeys(types, parse(text))
        pairs = [part.split("=", 1) for part in re.split(r",(?=[a-z]+=)", text)]
        named = [type_ for type_, _ in pairs]
        if twice := [type_ for type_ in named if named.count(type_) > 1]:
            raise ValueError(f"{twice[0]} twice")
        values = {type_: parse(value) for type_, value in pairs}
    except ValueError as error:
        raise ValueError(
            f"{option}: expected VALUE or TYPE=VALUE,TYPE=VALUE, got {text!r} ({error})"
        ) from None
    unknown = [type_ for type_ in values if type_ not in types]
    if unknown:
        raise ValueError(
            f"{option}: expected types among {','.join(types)}{source}, got {unknown[0]} in "
            f"{text!r}"
        )
    return values


def read_block_shape(text: str) -> tuple[int, int]:
    """Reads rows,columns of a block, or RxC; ValueError for anything else."""
    match = re.fullmatch(r"([1-9]\d*)[,x]([1-9]\d*)", text)
    if not match:
        raise ValueError("expected rows,columns such as 4,4")
    return int(match[1]), int(match[2])
