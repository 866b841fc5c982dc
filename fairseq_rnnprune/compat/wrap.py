"""Replaces a function of fairseq by one that calls it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def wrap_once(owner: Any, name: str, replacement: Callable) -> None:
    """Let `owner.name(...)` call replacement(original, ...); a second call changes nothing."""
    original = getattr(owner, name)
    if hasattr(original, "_wrapped_by_rnnprune"):
        return

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    wrapper._wrapped_by_rnnprune = True
    setattr(owner, name, wrapper)
