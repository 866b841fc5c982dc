"""Small runs of the scripts of benchmarks/ in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
QUICK = "--rounds 3 --seconds 0 --turn 0.0001".split()

Load = Callable[[str], ModuleType]


def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Body of a fixture: a function that imports a script by name, for one test only."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    threads, before = torch.get_num_threads(), set(sys.modules)
    yield __import__
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in str(getattr(sys.modules[name], "__file__", None)):
            del sys.modules[name]


def run(
    load: Load, monkeypatch: pytest.MonkeyPatch, folder: Path, script: str, *options: str
) -> dict[str, dict]:
    """Runs a script's `main` and returns the results in its folder, by name."""
    monkeypatch.setattr(sys, "argv", [script, *options, "--out", str(folder)])
    load(script).main()
    results = [json.loads(path.read_text()) for path in folder.iterdir()]
    return {result["name"]: result for result in results}
