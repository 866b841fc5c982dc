"""What every test can rely on: one thread, one seed, few but reproducible hypothesis examples."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent

# Examples that change between runs make a failure hard to see again.
hypothesis.settings.register_profile(
    "rnnprune", max_examples=40, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("rnnprune")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed() -> int:
    """Seed every generator before every test."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    return 0


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Callable[[str], Path]:
    """Return a function from the name of a corpus to its folder, which skips where it is absent."""

    def find(name: str) -> Path:
        folder = ROOT.parent / "shared" / "data" / name
        if not folder.is_dir():
            where = f"../shared/data/{name}, beside this checkout"
            pytest.skip(f"needs the corpus {where}; its recipe says where it comes from")
        return folder

    return find


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a small binarised text for fairseq's commands."""
    # Importing fairseq takes seconds, which most tests can do without.
    from fairseq_runs import make_data

    return make_data(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="session")
def pruned(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Return the folder and last checkpoint of ten pruned updates; *_5.pt holds the first five."""
    from fairseq_runs import PRUNED, run_train

    folder = tmp_path_factory.mktemp("pruned")
    return folder, run_train(data, folder, *PRUNED)
