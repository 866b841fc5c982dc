"""What must be known to read the tables of `rnnprune report --survivors`."""

from __future__ import annotations

from collections.abc import Sequence

_CONSTANTS = {
    "h": "h (no gates): the state is a constant, f(bias)",
    "r": "r = sigmoid(bias) weighs the old states in n by a fixed factor",
    "z": "z = sigmoid(bias), always on, is the fixed share of the old state that each step keeps",
    "n": "n = tanh(bias + r * recurrent bias): the new state reads no input",
    "i": "i = sigmoid(bias) lets a fixed share of g in",
    "f": "f = sigmoid(bias), always on, is the fixed share of the old cell that each step keeps",
    "g": "g = tanh(bias): the cell reads no input but through i, f",
    "o": "o = sigmoid(bias) lets a fixed share of the cell out",
}

DIAGONAL_LEGEND = [
    "kept: of the weights by which units read themselves; x density: their share over the density "
    "of the gate's whole recurrent matrix, 1 if the mask does not favour the diagonal"
]
INPUTS_LEGEND = [
    "pruned: columns without a kept weight, inputs that the layer does not see; lowest to highest: "
    "kept weights of a column, of all its weights",
    "channels: of the convolution before the layer, which mixes the features; fed beside it: in "
    "rnnprune_gru_seq2seq the attentional vector of the step before",
]
SYMBOLS_LEGEND = ["pruned: rows without a kept weight; that of padding is zero from the beginning"]
OVERLAP_LEGEND = [
    "Jaccard: kept by both / kept by either; chance: that of random masks of the same densities",
    "contained: kept by both / kept by the sparser mask, 100 % if it is a part of the other",
]


def units_legend(gates: Sequence[str]) -> list[str]:
    """The columns of the table of units of networks with these gates."""
    return [
        "no input: no weight is kept by which an input or another unit reaches the unit",
        "no output: none by which it reaches another unit, the layer above or, if the model has "
        "one recurrent network, a linear layer as wide as its output; -: its readers are not known",
        "dead: no input or no output, nothing passes through; a unit's own diagonal counts for "
        "neither",
        "constant: all weights of the unit in this gate are pruned, its biases are left:",
        *(f"  {_CONSTANTS[gate]}" for gate in gates if gate in _CONSTANTS),
    ]
