"""A small model with zeros in known places, and reports of it."""

from pathlib import Path

import torch

from fairseq_rnnprune.checkpoint import Checkpoint
from fairseq_rnnprune.report import table


def model():
    """A GRU with H = 2 and I = 4 between an embedding and an output layer; 113 elements."""
    ones = torch.ones
    weights = {
        "embed_tokens.weight": ones(5, 4),
        "conv.weight": ones(2, 2, 3),
        "gru.weight_ih_l0": ones(6, 4),
        "gru.weight_hh_l0": ones(6, 2),
        "gru.bias_ih_l0": torch.zeros(6),
        "gru.bias_hh_l0": torch.zeros(6),
        "out.weight": ones(11, 2),
        "out.bias": ones(11),
    }
    weights["gru.weight_ih_l0"][0:2, 0:2] = 0.0  # one of the two 2 x 2 blocks of gate r
    weights["gru.weight_ih_l0"][2, 0] = 0.0  # a quarter of a block of gate z
    weights["gru.weight_hh_l0"][2:6] = 0.0  # gates z and n
    weights["out.weight"][0] = 0.0
    return weights


def checkpoint(tensors=None, path="run/c.pt", block_shapes=None, config=None):
    shapes = block_shapes or {}
    return Checkpoint(Path(path), tensors or model(), config or {}, 93, 3.0, None, shapes)


def two_reports():
    small = {"gru.weight_hh_l0": torch.ones(3, 1), "gru.weight_ih_l0": torch.ones(3, 4)}
    return [
        table.report_checkpoint(checkpoint(), label="large [1]"),
        table.report_checkpoint(checkpoint(small), label="small"),
    ]
