"""Nested plain values as JSON, with their tensors apart."""

from __future__ import annotations

import argparse
import enum
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# A dict with this key alone stands for something that JSON lacks.
_MARK = "@"


def to_json(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """`value` as what json.dumps takes; its tensors go into `tensors`, named by their path.

    Dicts with text as keys, lists, tuples (which come back as lists), Namespaces, enums (as their
    values), tensors, numbers and strings are kept; ValueError for anything else.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Tensor):
        tensors[path] = value.detach().cpu().contiguous()
        return {_MARK: ["tensor", path]}
    if isinstance(value, argparse.Namespace):
        return {_MARK: ["namespace", to_json(vars(value), tensors, path)]}
    if isinstance(value, (list, tuple)):
        return [to_json(v, tensors, f"{path}/{i}") for i, v in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(k, str) and k != _MARK for k in value):
        return {k: to_json(v, tensors, f"{path}/{k}") for k, v in value.items()}
    raise ValueError(
        f"export: expected plain values and tensors in the checkpoint's {path}, got "
        f"{type(value).__name__}; export a checkpoint that fairseq-train wrote"
    )


def from_json(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `to_json` was given."""
    if isinstance(value, list):
        return [from_json(v, tensors) for v in value]
    if not isinstance(value, dict):
        return value
    if set(value) != {_MARK}:
        return {k: from_json(v, tensors) for k, v in value.items()}
    kind, content = value[_MARK]
    if kind == "tensor":
        return tensors[content]
    return argparse.Namespace(**from_json(content, tensors))
