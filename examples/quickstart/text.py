"""Text that every Python carries: the language reference and the library's doc strings."""

from __future__ import annotations

import ast
import random
import re
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path


def write_splits(folder: Path, seed: int = 1, megabytes: float = 2.0) -> None:
    """Writes train.txt, valid.txt and test.txt, one paragraph a line, without repeats."""
    paragraphs = sorted(set(_paragraphs(Path(sysconfig.get_paths()["stdlib"]))))
    random.Random(seed).shuffle(paragraphs)
    total, end = 0, 0
    while end < len(paragraphs) and total < megabytes * 1e6:
        total += len(paragraphs[end])
        end += 1
    held_out = end // 25
    splits = {
        "test": paragraphs[:held_out],
        "valid": paragraphs[held_out : 2 * held_out],
        "train": paragraphs[2 * held_out : end],
    }
    for split, lines in splits.items():
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _paragraphs(library: Path) -> Iterator[str]:
    for text in _texts(library):
        for paragraph in re.split(r"\n\s*\n", textwrap.dedent(text)):
            line = " ".join(paragraph.split())
            # Prose has words between its signs; tables, code and rulers have not.
            letters = sum(c.isalpha() or c == " " for c in line)
            if len(line) >= 60 and letters > 0.85 * len(line) and line.isascii():
                yield line


def _texts(library: Path) -> Iterator[str]:
    for source in sorted(library.rglob("*.py")):
        if {"site-packages", "test", "tests", "idle_test"} & set(source.parts):
            continue
        try:
            tree = ast.parse(source.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        if source.parent.name == "pydoc_data":
            strings = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
            yield from (s for s in strings if isinstance(s, str))
            continue
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        for node in ast.walk(tree):
            if isinstance(node, documented):
                yield ast.get_docstring(node) or ""
