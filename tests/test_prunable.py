"""Types and gates are read off names and shapes."""

import warnings

import pytest
import torch
from torch import nn

from fairseq_rnnprune.pruning import (
    Prunable,
    find_prunable,
    prunable_parameters,
    read_tag,
    tag_prunable,
)


class Model(nn.Module):
    def __init__(self, tied):
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 6)
        self.gru = nn.GRU(6, 6, num_layers=2, bidirectional=True)
        self.rnn = nn.RNN(12, 5)
        self.norm = nn.BatchNorm1d(5)
        self.conv = nn.Conv1d(5, 6, 3)
        self.output_projection = nn.Linear(6, 11)
        if tied:
            self.output_projection.weight = self.embed_tokens.weight


def test_types_and_gates():
    found = {p.name: (p.type, p.gates) for p in find_prunable(Model(tied=False).state_dict())}
    assert found["embed_tokens.weight"] == ("embedding", 1)
    assert found["gru.weight_ih_l0"] == ("input", 3)
    assert found["gru.weight_hh_l1_reverse"] == ("recurrent", 3)
    assert found["gru.weight_ih_l1"] == ("input", 3)
    assert found["rnn.weight_hh_l0"] == ("recurrent", 1)
    assert found["output_projection.weight"] == ("linear", 1)
    assert not [n for n in found if "bias" in n or "norm" in n or "conv" in n]


@pytest.mark.parametrize("projected", [0, 4, 6])
def test_a_projection_is_no_gate(projected):
    lstm = nn.LSTM(5, 9, bidirectional=True, proj_size=projected)
    found = find_prunable(lstm.state_dict())
    assert {p.gates for p in found if "_hr_" not in p.name} == {4}
    assert {(p.type, p.gates) for p in found if "_hr_" in p.name} <= {("linear", 1)}


@pytest.mark.parametrize("source", ["parameters", "state dict"])
def test_a_tied_matrix_counts_once_as_linear(source):
    model = Model(tied=True)
    tensors = dict(model.named_parameters(remove_duplicate=False))
    if source == "state dict":
        tensors = model.state_dict()
    vocabulary = [p for p in find_prunable(tensors) if tensors[p.name].shape == (11, 6)]
    assert vocabulary == [Prunable("embed_tokens.weight", "linear", 1)]


def test_tags_survive_on_the_parameter():
    model = Model(tied=False)
    model.gru.weight_hh_l0.optim_overrides = {"optimizer": {"lr_scale": 2}}
    tag_prunable(model)
    assert read_tag(model.gru.weight_hh_l0) == Prunable("gru.weight_hh_l0", "recurrent", 3)
    assert model.gru.weight_hh_l0.optim_overrides["optimizer"] == {"lr_scale": 2}
    assert read_tag(model.gru.bias_hh_l0) is None
    assert read_tag(torch.zeros(1)) is None


def test_a_module_knows_better_than_its_name():
    model = nn.ModuleDict(
        {
            "wte": nn.Embedding(11, 6, padding_idx=1),
            "embed_bag": nn.EmbeddingBag(11, 6),
            "embed_out": nn.Linear(6, 11),
        }
    )
    assert tag_prunable(model) == [
        Prunable("wte.weight", "embedding", padding=1),
        Prunable("embed_bag.weight", "embedding"),
        Prunable("embed_out.weight", "linear"),
    ]
    assert tag_prunable(nn.Embedding(11, 6)) == [Prunable("weight", "embedding")]
    model["embed_out"].weight = model["wte"].weight
    assert tag_prunable(model)[0] == Prunable("wte.weight", "linear", padding=1)
    assert read_tag(model["wte"].weight).padding == 1


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="a type among .* got 'conv'"):
        Prunable("x", "conv")


@pytest.mark.parametrize("sizes", [{}, {"kdim": 6, "vdim": 4}])
def test_every_matrix_of_attention_is_found(sizes):
    model = nn.ModuleDict({"a": nn.MultiheadAttention(8, 2, **sizes), "b": nn.Linear(8, 8)})
    matrices = {name for name, p in model.named_parameters() if p.dim() == 2}
    found = dict((p.name, p) for p, _ in prunable_parameters(model))
    assert found.keys() == matrices
    assert {p.type for p in found.values()} == {"linear"}
    assert sizes or found["a.in_proj_weight"].gates == 3


def test_norms_are_never_prunable():
    model = nn.Sequential(nn.LayerNorm([5, 6]), nn.RMSNorm([5, 6]), nn.Linear(6, 6))
    assert [p.name for p, _ in prunable_parameters(model)] == ["2.weight"]


def test_parametrised_modules_are_told(caplog):
    def old(module, name="weight"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            return nn.utils.weight_norm(module, name)

    model = nn.ModuleDict(
        {
            "new": nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)),
            "old": old(nn.Linear(4, 4)),
            "gru": old(nn.GRU(4, 4), "weight_hh_l0"),
            "spectral": nn.utils.spectral_norm(nn.Linear(4, 4)),
            "plain": nn.Linear(4, 4),
            "convolution": old(nn.Conv1d(4, 4, 3)),
        }
    )
    assert [p.name for p, _ in prunable_parameters(model)] == ["plain.weight"]
    told = [r.getMessage().split(" ")[0] for r in caplog.records]
    assert told == ["new", "old", "gru", "spectral"]


def test_what_has_no_memory_is_not_taken_for_tied():
    model = nn.Sequential(*(nn.Linear(8, 8, device="meta") for _ in range(3)))
    assert len(prunable_parameters(model)) == 3
