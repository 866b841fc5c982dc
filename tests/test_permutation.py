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
    assert script.search(squares, (4, 4), 0.75, 300)[0] == 1.0
    assert script.search(squares, (1, 1), 0.75, 300)[0] == 1.0


@pytest.mark.parametrize("is_bidirectional", [False, True])
def test_a_reordered_model_computes_the_same(is_bidirectional):
    reorder = load_script("comparison/reorder.py").reorder
    torch.manual_seed(0)
    gru = torch.nn.GRU(6, 8, num_layers=2, bidirectional=is_bidirectional)
    output = torch.nn.Linear(8 * (1 + is_bidirectional), 5)
    model = torch.nn.ModuleDict({"rnn": gru, "output": output})
    x = torch.randn(7, 2, 6)
    expected = output(gru(x)[0])
    before = {name: w.clone() for name, w in model.state_dict().items()}
    seen = []

    def order_of(squares):
        seen.append(squares.shape)
        return torch.randperm(squares.shape[1])

    model.load_state_dict(reorder(before, order_of))
    torch.testing.assert_close(output(gru(x)[0]), expected)
    directions = 1 + is_bidirectional
    assert seen == [(3, 8, 8 + 6)] * directions + [(3, 8, 8 + 8 * directions)] * directions
    assert not torch.equal(model.state_dict()["rnn.weight_hh_l1"], before["rnn.weight_hh_l1"])


def test_only_known_models_are_reordered():
    reorder = load_script("comparison/reorder.py").reorder
    with pytest.raises(SystemExit, match="expected a GRU and output.weight, got embedding"):
        reorder({"embedding": torch.zeros(2, 2)}, torch.randperm)
