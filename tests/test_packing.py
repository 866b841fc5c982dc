"""How a layer decides to pack, and what it says."""

import logging
import re

import pytest
import torch
from sparse_samples import pruned

from fairseq_rnnprune.layers import (
    GRU,
    PACKED_CHOICES,
    Linear,
    packing,
    release_dense,
)
from fairseq_rnnprune.sparse import choose_block_shape, cpu_library, explain


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv(packing.ENVIRONMENT, raising=False)


@pytest.fixture
def any_size(monkeypatch):
    """`auto` packs layers of every size up to a density of 0.3, in blocks as well."""
    monkeypatch.setattr(packing, "AUTO_MAX_DENSITY", ((1, 0.3),))
    monkeypatch.setattr(packing, "AUTO_MAX_STORED_DENSITY", ((1, 0.3),))
    monkeypatch.setattr(packing, "AUTO_MAX_DENSITY_RECURRENT", ((1, 0.3),))


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, logger="fairseq_rnnprune")
    return lambda: [record.getMessage() for record in caplog.records]


def test_dense_choice_stays_dense(log):
    gru = pruned(GRU(6, 5, packed="dense"))
    gru.make_generation_fast_("gru")
    assert gru.sparse is None
    assert log() == ["gru (packed=dense): stays dense"]


def test_a_packed_copy_is_no_part_of_the_state_dict():
    model = torch.nn.Sequential(pruned(GRU(6, 5)), pruned(Linear(6, 5)))
    names = list(model.state_dict())
    for layer in model:
        layer.pack("fp32")
    assert list(model.state_dict()) == names
    assert list(model.state_dict(prefix="a.")) == [f"a.{name}" for name in names]
    model.load_state_dict(model.state_dict())
    assert all(layer.sparse is None for layer in model)


def test_pack_takes_a_choice_of_its_own_and_can_undo():
    linear = pruned(Linear(6, 5, packed="int8"))
    linear.pack("fp32")
    assert linear.sparse.W.dtype == torch.float32
    linear.pack("dense")
    assert linear.sparse is None


@pytest.mark.parametrize("dropout, told", [(0.5, True), (0.0, False)])
def test_dropout_that_is_not_retained_is_told(log, dropout, told):
    # What --retain-dropout makes fairseq ask of every module.
    gru = GRU(6, 5, num_layers=2, dropout=dropout)
    gru.make_generation_fast_("decoder.gru", retain_dropout=True)
    warning = "decoder.gru: --retain-dropout keeps the dropout around recurrent layers, not that"
    assert any(line.startswith(warning) for line in log()) == told
    gru.make_generation_fast_("decoder.gru")
    assert sum(line.startswith(warning) for line in log()) == told


def test_a_layer_that_moves_is_packed_anew(log):
    gru = pruned(GRU(6, 5)).eval()
    gru.pack("bf16", "decoder.gru")
    first = gru.sparse
    gru.half().float()
    assert gru.sparse is first
    # As if it had been packed on another device.
    gru._packed_as = ("bf16", "decoder.gru", torch.device("cuda"))
    gru.to("cpu")
    assert gru.sparse is not first
    assert gru.sparse.layers[0][0].recurrent.W.dtype == torch.bfloat16
    said = log()
    assert len(said) == 2 and said[0] == said[1]


def test_a_layer_that_moves_without_its_dense_weights_says_so(log):
    gru = pruned(GRU(6, 5)).eval()
    gru.pack("fp32", "decoder.gru")
    first = gru.sparse
    release_dense(gru)
    gru._packed_as = ("fp32", "decoder.gru", torch.device("cuda"))
    gru.to("cpu")
    gru.to("cpu")
    assert gru.sparse is first
    warning = "decoder.gru: packed on cuda, where its dense weights were released, and moved to cpu"
    assert [line.startswith(warning) for line in log()] == [False, True]


def test_auto_packs_fp32_where_the_weights_are_sparse(any_size, log):
    gru, linear = pruned(GRU(6, 5)), pruned(Linear(6, 5))
    gru.pack(name="decoder.gru")
    linear.pack()
    assert gru.sparse.layers[0][0].recurrent.W.dtype == torch.float32
    assert linear.sparse.W.block_shape == (1, 1)
    why = ", ".join(explain(linear.sparse.W, torch.ones(1, 6))["cpu"])
    on_csr = f"in blocks of 1 x 1 on torch_csr (cpu {why})"
    of_gru, of_linear = log()
    assert re.fullmatch(
        r"decoder\.gru \(packed=auto\): packed, density 0\.200, stored [\d.]+, [\d,]+ bytes "
        r"\(dense fp32 660\); 15 x 6 in blocks of \d x \d on (cpu|torch_csr .*); 15 x 5 in .*",
        of_gru,
    )
    assert of_linear == (
        "Linear (packed=auto): packed, density 0.200, stored 0.200, "
        f"60 bytes (dense fp32 120); 5 x 6 {on_csr}"
    )


def test_reports_say_what_packing_logs(any_size, log):
    gru = GRU(32, 32)
    with torch.no_grad():
        for weight in gru.weights():
            # Single weights of blocks that a diagonal apart need not store.
            weight.zero_()
            for gate in weight.chunk(3):
                gate.fill_diagonal_(1.0)
                gate[0, 5] = 1.0
    gru.pack(name="gru")
    assert gru.sparse.layers[0][0].recurrent.W.diagonal is not None
    is_packed, line = packing.explain_packing(gru.weights(), 3, True)
    assert is_packed and log() == [f"gru (packed=auto): {line}"]
    assert line.startswith(f"packed, density {33 / 1024:.3f}, ")


def test_auto_leaves_dense_weights_dense(any_size, log):
    linear = pruned(Linear(60, 50), keep_every=3)
    linear.pack(name="out")
    assert linear.sparse is None
    [line] = log()
    assert line.startswith("out (packed=auto): stays dense, ")
    assert line.endswith(" is too high, packing pays up to 0.3")


def test_auto_leaves_small_layers_dense(log):
    linear = pruned(Linear(6, 5), keep_every=29)
    linear.pack()
    assert linear.sparse is None
    assert log() == [
        "Linear (packed=auto): stays dense, 30 weights are too few, packing pays from 524,288"
    ]


def test_auto_stays_dense_without_a_fast_backend(any_size, monkeypatch, log):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    # Without MKL the native kernels would run it.
    monkeypatch.setattr(cpu_library, "load", lambda: None)
    linear = pruned(Linear(6, 5))
    linear.pack()
    assert linear.sparse is None
    assert log() == ["Linear (packed=auto): stays dense, no fast backend runs on cpu"]
    linear.pack("fp32")
    assert "5 x 6 in blocks of 1 x 1 on reference (cpu " in log()[1]
    assert "; torch_csr needs a torch built with MKL; triton " in log()[1]


@pytest.mark.parametrize(
    ("shape", "density", "packs"),
    [
        ((512, 512), 0.0501, False),
        ((512, 1023), 0.01, False),
        ((512, 1024), 0.1001, True),
        ((512, 1024), 0.12, False),
        ((1024, 1024), 0.1501, True),
        ((1024, 1024), 0.17, False),
        ((2048, 2048), 0.2001, True),
        ((2048, 2048), 0.22, False),
    ],
)
def test_limits_of_auto(shape, density, packs):
    # Scattered, so that single elements are the shape to pack.
    weight = torch.zeros(shape)
    weight.view(-1)[torch.randperm(weight.numel())[: int(density * weight.numel())]] = 1.0
    assert (packing.reason_to_stay_dense([weight], 1, False) is None) == packs


def test_density_is_that_of_all_weights_together(any_size):
    # Blocks of 8 x 8 fit without padding, so that as much is stored as there is.
    sparse, dense = torch.zeros(16, 16), torch.ones(16, 16)
    assert "density 0.500" in packing.reason_to_stay_dense([sparse, dense], 1, False)
    assert packing.reason_to_stay_dense([sparse, sparse, sparse, dense], 1, False) is None


def test_environment_takes_the_place_of_auto(monkeypatch):
    monkeypatch.setenv(packing.ENVIRONMENT, "bf16")
    linear = pruned(Linear(6, 5))
    linear.make_generation_fast_()
    assert linear.sparse.W.dtype == torch.bfloat16


def test_an_explicit_option_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv(packing.ENVIRONMENT, "bf16")
    linear = pruned(Linear(6, 5, packed="dense"))
    linear.make_generation_fast_()
    assert linear.sparse is None


def test_an_empty_environment_variable_is_none(monkeypatch):
    monkeypatch.setenv(packing.ENVIRONMENT, "")
    assert packing.resolve_choice("auto") == "auto"


def test_unknown_choices_name_their_source(monkeypatch):
    choices = "among auto, dense, fp32, bf16, int16, int8"
    for layer in (GRU, Linear):
        with pytest.raises(ValueError, match=f"the option packed {choices}, got 'fp8'"):
            layer(6, 5, packed="fp8")
    with pytest.raises(ValueError, match=f"choice {choices}, got 'sparse'"):
        Linear(6, 5).pack("sparse")
    monkeypatch.setenv("RNNPRUNE_PACKED", "16")
    with pytest.raises(ValueError, match=f"RNNPRUNE_PACKED {choices}, got '16'"):
        Linear(6, 5).make_generation_fast_()


def test_block_shape_and_choices():
    assert choose_block_shape(torch.ones(6, 2), 3) == (1, 1)
    assert PACKED_CHOICES == ("auto", "dense", "fp32", "bf16", "int16", "int8")
