"""Replaces a function of fairseq by one that calls it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any


def wrap_once(owner: Any, name: str, replacement: Callable) -> None:
    """Let `owner.name(...)` call replacement(original, ...).

    A second call with the replacement of that name changes nothing; another one wraps the first.
    """
    original = getattr(owner, name)
    function = getattr(replacement, "func", replacement)
    key = f"{function.__module__}.{function.__qualname__}"
    keys = getattr(original, "_wrapped_by_rnnprune", ())
    if key in keys:
        return

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return replacement(original, *args, **kwargs)

    wrapper._wrapped_by_rnnprune = (*keys, key)
    setattr(owner, name, wrapper)
