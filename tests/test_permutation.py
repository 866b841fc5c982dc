"""The search for an order of units in which blocks keep more."""

import pytest
import torch
from example_scripts import load_script


@pytest.fixture(scope="module")
def script():
    return load_script("comparison/permutation.py")


def test_blocks_keep_what_is_in_them(script):
    squares = torch.zeros(3, 8, 8, dtype=torch.float64)
    squares[0, :4, :4] = 1.0
    # One block of twelve, then the one weight of 192 that a sparsity leaves.
    assert script.kept(squares, (4, 4), 11 / 12) == 1.0
    assert script.kept(squares, (1, 1), 191 / 192) == 1 / 16


def test_search_finds_a_better_order(script):
    torch.manual_seed(0)
    squares = torch.zeros(3, 8, 8, dtype=torch.float64)
    # Blocks of 4 x 4, if the units were sorted by the last bit.
    squares[:, ::2, ::2] = 1.0
    before = script.kept(squares, (4, 4), 0.75)
    assert before == 0.25
    assert script.search(squares, (4, 4), 0.75, 300) == 1.0
    assert script.search(squares, (1, 1), 0.75, 300) == 1.0
