"""Replaces a function of fairseq by one that calls it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def wrap_once(owner: Any, name: str, make: Callable[[Callable], Callable]) -> None:
    """Replace `owner.name` by `make(owner.name)`; a second call changes nothing."""
    original = getattr(owner, name)
    if hasattr(original, "_wrapped_by_rnnprune"):
        return
    replacement = functools.wraps(original)(make(original))
    replacement._wrapped_by_rnnprune = True
    setattr(owner, name, replacement)
