"""Reads the file of a sweep, and says in one line what in it cannot be meant so."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .grid import AUTOMATIC, Axis, Grid, Value, name_of
from .template import names_in

_KEYS = ("variables", "axes", "runs", "train", "evaluate", "figures")


def read_grid(path: Path) -> Grid:
    """Reads a grid from YAML; ValueError, in one line, if anything in it cannot be meant so."""
    content = _load(path)
    unknown = [str(key) for key in content if key not in _KEYS]
    if unknown:
        raise ValueError(f"{path}: expected the keys {', '.join(_KEYS)}, got {', '.join(unknown)}")
    axes = {str(n): _axis(path, n, a) for n, a in _mapping(path, content, "axes").items()}
    variables = {
        str(name): None if value is None else str(_scalar(path, f"variables: {name}", value))
        for name, value in _mapping(path, content, "variables").items()
    }
    names = [*AUTOMATIC, *variables, *axes]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: expected every name once, got {', '.join(twice)} again")
    if not isinstance(content.get("train"), str):
        raise ValueError(f"{path}: expected a command under `train`, got {content.get('train')!r}")
    grid = Grid(
        variables=variables,
        axes=axes,
        parts=_parts(path, content.get("runs"), axes),
        train=content["train"],
        evaluate=_evaluate(path, content.get("evaluate") or []),
        figures={
            str(name): _pattern(path, name, text)
            for name, text in _mapping(path, content, "figures").items()
        },
    )
    if grid.figures and not grid.evaluate:
        raise ValueError(
            f"{path}: expected commands under `evaluate`, got none; figures are found in what they "
            "print"
        )
    _check_axes_are_used(path, grid)
    found = [name_of(figure, name) for figure in grid.figures for name, _ in grid.evaluate]
    if hidden := [name for name in found if name in axes]:
        raise ValueError(
            f"{path}: expected a figure that is called otherwise than an axis, got {hidden[0]} for "
            "both; rename one, for a row has one column of a name"
        )
    return grid


def _load(path: Path) -> Mapping[str, Any]:
    try:
        import yaml
    except ImportError:
        raise ValueError(
            "sweep: expected PyYAML, got none installed; pip install PyYAML, or the extra fairseq"
        ) from None

    class Loader(yaml.SafeLoader):
        """Refuses a key that a mapping has twice: YAML would take the last in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key.value, str)]
            for key in keys:
                if keys.count(key) > 1:
                    raise ValueError(
                        f"{path}: expected every key once in the mapping that begins in line "
                        f"{node.start_mark.line + 1}, got {key} twice"
                    )
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise ValueError(f"{path}: expected YAML, got a fault: {problem}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a mapping with axes and train, got {content!r:.40}")
    return content


def _mapping(path: Path, content: Mapping[str, Any], key: str) -> dict[Any, Any]:
    value = content.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a mapping under `{key}`, got {value!r:.40}")
    wrong = [n for n in value if not re.fullmatch(r"[A-Za-z_]\w*", str(n)) or isinstance(n, bool)]
    if wrong:
        raise ValueError(
            f"{path}: {key}: expected names of letters, digits and _, got {wrong[0]!r}; "
            "quote words that YAML takes for true or false"
        )
    return value


def _scalar(path: Path, where: str, value: Any) -> Value:
    # YAML reads off, on, yes and no as bool.
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(
            f"{path}: {where}: expected a text or number, got {value!r}; quote it if it is a text"
        )
    return value


def _axis(path: Path, name: str, content: Any) -> Axis:
    where = f"axes: {name}"
    if isinstance(content, dict) and content:
        texts = {
            _scalar(path, where, value): "" if text is None else str(_scalar(path, where, text))
            for value, text in content.items()
        }
        return Axis(texts, is_open=False)
    if isinstance(content, list) and content:
        return Axis({v: str(v) for v in (_scalar(path, where, v) for v in content)}, is_open=True)
    raise ValueError(
        f"{path}: {where}: expected a list of values, or a mapping from values to options, "
        f"got {content!r}"
    )


def _parts(path: Path, content: Any, axes: Mapping[str, Axis]) -> list[dict[str, list[Value]]]:
    if content is None:
        return [{}]
    if not (content and isinstance(content, list) and all(isinstance(p, dict) for p in content)):
        raise ValueError(f"{path}: runs: expected a list of mappings, got {content!r:.40}")
    return [{n: _choices(path, axes, n, values) for n, values in p.items()} for p in content]


def _choices(path: Path, axes: Mapping[str, Axis], name: str, values: Any) -> list[Value]:
    if name not in axes:
        raise ValueError(f"{path}: runs: expected the axes {', '.join(axes)}, got {name}")
    where = f"runs: {name}"
    chosen = [_scalar(path, where, v) for v in (values if isinstance(values, list) else [values])]
    for value in chosen:
        if value not in axes[name].texts and not axes[name].is_open:
            known = ", ".join(map(str, axes[name].texts))
            raise ValueError(f"{path}: {where}: expected {known}, got {value}")
    return chosen


def _evaluate(path: Path, content: Any) -> list[tuple[str, str]]:
    pairs = list(content.items()) if isinstance(content, dict) else None
    if isinstance(content, list):
        pairs = [("", command) for command in content]
    if pairs is None or not all(isinstance(command, str) for _, command in pairs):
        raise ValueError(
            f"{path}: evaluate: expected a list of commands, or a mapping from names to commands, "
            f"got {content!r:.60}"
        )
    wrong = [name for name, _ in pairs if not re.fullmatch(r"\w*", str(name))]
    if wrong:
        raise ValueError(
            f"{path}: evaluate: expected names of letters, digits and _, got {wrong[0]!r}"
        )
    return [(str(name), command) for name, command in pairs]


def _pattern(path: Path, name: str, text: Any) -> re.Pattern[str]:
    try:
        pattern = re.compile(text if isinstance(text, str) else "", re.MULTILINE)
    except re.error as error:
        raise ValueError(
            f"{path}: figures: {name}: expected a regular expression, got {text!r} ({error})"
        ) from None
    if pattern.groups != 1:
        raise ValueError(
            f"{path}: figures: {name}: expected a regular expression with one group, got "
            f"{text!r} with {pattern.groups}; write (?:...) for groups that only hold together"
        )
    return pattern


def _check_axes_are_used(path: Path, grid: Grid) -> None:
    """An axis that no command names would give the same run under several labels."""
    texts = [grid.train, *(command for _, command in grid.evaluate)]
    texts += [text for axis in grid.axes.values() for text in axis.texts.values()]
    texts += [text for text in grid.variables.values() if text]
    unused = [name for name in grid.axes if name not in names_in(texts)]
    if unused:
        raise ValueError(
            f"{path}: expected {{{unused[0]}}} in a command, got it in none; "
            "every axis must change what is run"
        )
