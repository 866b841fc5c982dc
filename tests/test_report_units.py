"""Dead units, constant gates and recurrent diagonals of masks that are written by hand."""

import math

import pytest
import torch
from report_samples import checkpoint

from fairseq_rnnprune.report.cells import find_cells, sources
from fairseq_rnnprune.report.survivors import find_survivors
from fairseq_rnnprune.report.units import count_units, density_image

BLANK = {"rnn.weight_ih_l0": torch.zeros(3, 2), "rnn.weight_hh_l0": torch.zeros(3, 3)}


def gru(hidden=3, inputs=2):
    """A dense GRU whose biases are those of unit 0: r 0, z log 3 (sigmoid: 0.75), n 0."""
    bias = torch.zeros(3 * hidden)
    bias[hidden] = math.log(3) / 2
    return {
        "gru.weight_ih_l0": torch.ones(3 * hidden, inputs),
        "gru.weight_hh_l0": torch.ones(3 * hidden, hidden),
        "gru.bias_ih_l0": bias,
        "gru.bias_hh_l0": bias.clone(),
    }


def test_a_dense_layer_has_nothing_to_report():
    (units,) = count_units(gru() | {"out.weight": torch.ones(5, 3)})
    assert (units.layer, units.units) == ("gru.l0", 3)
    assert (units.no_input, units.no_output, units.dead) == (0, 0, 0)
    assert units.constant == {"r": 0, "z": 0, "n": 0} and units.constant_values == {}
    assert units.kept == [15, 15, 15] and units.weights == 15
    assert units.diagonals["z"].times_density == 1.0


def test_constant_gates_by_hand():
    model = gru()
    for row in (0, 3, 4):  # r of unit 0, z of units 0 and 1
        model["gru.weight_ih_l0"][row] = 0.0
        model["gru.weight_hh_l0"][row] = 0.0
    model["gru.weight_ih_l0"][8] = 0.0  # n of unit 2, which its recurrent weights still move
    (units,) = count_units(model)
    assert units.constant == {"r": 1, "z": 2, "n": 0}
    assert units.constant_values["r"] == (0.5, 0.5, 0.5)
    assert units.constant_values["z"] == pytest.approx((0.5, 0.625, 0.75))
    assert units.kept == [5, 10, 13]
    assert units.no_input == 0


def test_a_constant_gate_counts_its_own_diagonal():
    model = gru()
    model["gru.weight_ih_l0"][3] = 0.0
    model["gru.weight_hh_l0"][3] = torch.tensor([1.0, 0.0, 0.0])
    (units,) = count_units(model)
    assert units.constant["z"] == 0


def test_dead_units_of_a_network_without_gates():
    W, U = torch.zeros(4, 2), torch.zeros(4, 4)
    W[0, 0] = W[3, 1] = 1.0  # units 0 and 3 read inputs
    U[1, 0] = U[2, 2] = U[3, 3] = 1.0  # unit 1 reads unit 0, units 2 and 3 themselves
    model = {"rnn.weight_ih_l0": W, "rnn.weight_hh_l0": U}
    (units,) = count_units(model)
    # Unit 2 has its own diagonal only. Nobody is known to read the network.
    assert (units.no_input, units.no_output, units.dead) == (1, None, 1)
    assert units.constant == {"h": 0}

    out = torch.zeros(5, 4)
    out[4, 1] = 1.0
    (units,) = count_units(model | {"out.weight": out})
    # Units 2 and 3 are read by themselves alone, 0 by unit 1, which the output layer reads.
    assert (units.no_input, units.no_output, units.dead) == (1, 2, 2)
    (units,) = count_units(model | {"out.weight": torch.ones(5, 4)})
    assert (units.no_output, units.dead) == (0, 1)
    (units,) = count_units(model | {"out.weight": torch.ones(5, 3)})
    assert units.no_output is None


def test_a_constant_state():
    (units,) = count_units(BLANK | {"rnn.weight_ih_l0": torch.tensor([[0, 0], [1, 0], [0, 2.0]])})
    assert units.constant == {"h": 1} and units.no_input == 1
    assert units.diagonals["h"].times_density is None


def test_both_directions_are_read_by_the_layer_above():
    model = {}
    for layer, width in enumerate((1, 4)):
        for end in ("", "_reverse"):
            model[f"rnn.weight_ih_l{layer}{end}"] = torch.zeros(2, width)
            model[f"rnn.weight_hh_l{layer}{end}"] = torch.zeros(2, 2)
    model["rnn.weight_ih_l1"][0, 1] = 1.0  # reads unit 1 of l0
    model["rnn.weight_ih_l1_reverse"][0, 2] = 1.0  # reads unit 0 of l0_reverse
    model["rnn.weight_ih_l1"][0, 0] = 1.0  # and unit 0 of l0
    units = {u.layer: u.no_output for u in count_units(model | {"output.weight": torch.eye(3, 4)})}
    assert units == {"rnn.l0": 0, "rnn.l0_reverse": 1, "rnn.l1": 0, "rnn.l1_reverse": 1}


def test_who_reads_the_top_layer_of_two_networks_is_not_known():
    model = {f"{part}.{name}": t for part in ("encoder", "decoder") for name, t in gru().items()}
    model["decoder.out.weight"] = torch.ones(5, 3)
    assert [u.no_output for u in count_units(model)] == [None, None]


def test_a_cell_without_a_layer_number_and_cells_that_are_none():
    model = {"weight_ih": torch.ones(8, 3), "weight_hh": torch.ones(8, 2)}
    (units,) = count_units(model)
    assert (units.layer, list(units.constant)) == ("", ["i", "f", "g", "o"])
    assert find_cells({"weight_hh_l0": torch.ones(4, 3), "weight_ih_l0": torch.ones(4, 3)}) == []
    assert find_cells({"weight_hh_l0": torch.ones(3, 3)}) == []


def test_diagonals_by_hand():
    U = torch.zeros(4, 4)
    U[0, 0] = U[1, 1] = U[2, 2] = U[3, 0] = 1.0
    (units,) = count_units({"rnn.weight_ih_l0": torch.ones(4, 2), "rnn.weight_hh_l0": U})
    diagonal = units.diagonals["h"]
    assert (diagonal.kept, diagonal.share, diagonal.density) == (3, 0.75, 0.25)
    assert diagonal.times_density == 3.0


def test_density_images():
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)
    # Rows are cut into 1 + 2, columns into 2 + 3.
    expected = torch.tensor([[2 / 2, 0 / 3], [1 / 4, 2 / 6]])
    assert torch.equal(density_image(mask, cells=2), expected)
    assert torch.equal(density_image(mask), mask.float())


@pytest.mark.parametrize(
    "more, expected",
    [
        ({}, [("features", 4)]),
        ({"front.0.weight": torch.ones(4, 2, 3)}, [("channels", 4)]),
        ({"front.0.weight": torch.ones(2, 1, 3, 3)}, [("channels x bands", 4)]),
        ({"dec.embed_tokens.weight": torch.ones(9, 4)}, [("embedding", 4)]),
        ({"dec.embed.weight": torch.ones(9, 3)}, [("embedding", 3), ("fed beside it", 1)]),
        ({"enc.embed_tokens.weight": torch.ones(9, 4)}, [("features", 4)]),
        ({"dec.embed_tokens.weight": torch.ones(9, 5)}, [("features", 4)]),
    ],
)
def test_what_the_inputs_of_the_first_layer_are(more, expected):
    model = more | {"dec.rnn.weight_ih_l0": torch.ones(2, 4), "dec.rnn.weight_hh_l0": torch.eye(2)}
    # What comes after the layer, such as a row convolution, is not its input.
    model["lookahead.weight"] = torch.ones(2, 1, 3)
    cells = find_cells(model)
    assert sources(cells[0], cells, model) == expected


def test_only_recurrent_weights_have_units():
    assert find_survivors(checkpoint(), ["input"]).units == []
    (units,) = find_survivors(checkpoint(), ["recurrent"]).units
    # Both rows of gates z and n of U are pruned, of W they are not.
    assert (units.no_input, units.no_output, units.constant) == (0, 0, {"r": 0, "z": 0, "n": 0})
