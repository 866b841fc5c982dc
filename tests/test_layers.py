"""GRU and Linear: torch's own layers until they are packed."""

import copy

import pytest
import torch
from sparse_samples import pruned
from tolerances import assert_close
from torch import nn

from fairseq_rnnprune.layers import GRU, Linear, make_packable, packing
from fairseq_rnnprune.sparse import SparseGRU, SparseLinear

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv(packing.ENVIRONMENT, raising=False)


def dense_of(layer):
    """The same layer of torch, in float64."""
    dense = copy.deepcopy(layer).double()
    dense.pack("dense")
    return dense


@pytest.mark.parametrize(
    ("ours", "torchs", "arguments", "options"),
    [
        (GRU, nn.GRU, (6, 5, 2), {"batch_first": True, "bidirectional": True, "dropout": 0.0}),
        (Linear, nn.Linear, (6, 5), {"bias": False}),
    ],
)
def test_until_packed_it_is_torch_s_layer(ours, torchs, arguments, options):
    torch.manual_seed(0)
    layer = ours(*arguments, **options)
    torch.manual_seed(0)
    expected = torchs(*arguments, **options)
    assert list(layer.state_dict()) == list(expected.state_dict())
    for name, parameter in expected.state_dict().items():
        assert torch.equal(layer.state_dict()[name], parameter)
    x = torch.randn(2, 3, 6)
    results, expectations = layer(x), expected(x)
    if ours is Linear:
        results, expectations = (results,), (expectations,)
    for result, expectation in zip(results, expectations, strict=True):
        assert torch.equal(result, expectation)
    results[0].sum().backward()
    assert all(parameter.grad is not None for parameter in layer.parameters())


@pytest.mark.parametrize("choice", list(DTYPES))
def test_a_packed_gru_runs_packed(choice):
    gru = pruned(GRU(6, 5, 2, batch_first=True, packed=choice))
    state = copy.deepcopy(gru.state_dict())
    gru.make_generation_fast_(name="decoder.gru", beamable_mm_beam_size=None, need_attn=False)
    assert isinstance(gru.sparse, SparseGRU)
    assert gru.sparse.layers[1][0].recurrent.W.dtype == DTYPES[choice]
    assert gru.sparse.layers[1][0].recurrent.W.gates == 3
    x, h_0 = torch.randn(4, 3, 6), torch.randn(2, 4, 5)
    with torch.no_grad():
        results = gru(x, h_0)
        oracle = dense_of(gru)(x.double(), h_0.double())
    for result, expected in zip(results, oracle, strict=True):
        assert_close(result, expected, DTYPES[choice])
    assert {"cpu", "torch_csr"} & set(gru.sparse.layers[0][0].recurrent.W.cache)
    assert list(gru.state_dict()) == list(state)
    assert all(torch.equal(gru.state_dict()[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("choice", list(DTYPES))
def test_a_packed_linear_runs_packed(choice):
    linear = pruned(Linear(6, 5, packed=choice))
    linear.make_generation_fast_()
    assert isinstance(linear.sparse, SparseLinear)
    assert linear.sparse.W.dtype == DTYPES[choice]
    x = torch.randn(2, 3, 6)
    with torch.no_grad():
        assert_close(linear(x), dense_of(linear)(x.double()), DTYPES[choice])
    assert "torch_csr" in linear.sparse.W.cache
    assert sorted(linear.state_dict()) == ["bias", "weight"]


def test_training_drops_the_packed_copy():
    gru = pruned(GRU(6, 5, packed="fp32"))
    gru.pack()
    gru.eval()
    assert gru.sparse is not None
    gru.train()
    assert gru.sparse is None


def test_loading_weights_drops_the_packed_copy():
    linear = pruned(Linear(6, 5, packed="fp32"))
    linear.pack()
    linear.load_state_dict(Linear(6, 5).state_dict())
    assert linear.sparse is None


def test_tied_weight_stays_tied_and_dense():
    embedding, linear = nn.Embedding(10, 6), Linear(6, 10, bias=False, packed="fp32")
    linear.weight = embedding.weight
    linear.pack()
    assert linear.weight is embedding.weight
    assert embedding(torch.tensor([3])).shape == (1, 6)


def test_half_layer_packs_exactly():
    gru = pruned(GRU(6, 5)).half()
    gru.pack("fp32")
    assert torch.equal(
        gru.sparse.layers[0][0].input.W.to_dense(), gru.weight_ih_l0.detach().float() + 0.0
    )
    with torch.no_grad():
        out, h_n = gru(torch.randn(4, 3, 6).half())
    assert out.dtype == h_n.dtype == torch.float16


def test_a_packed_layer_can_be_copied():
    gru = pruned(GRU(6, 5))
    gru.pack("fp32")
    x = torch.randn(4, 3, 6)
    with torch.no_grad():
        assert torch.equal(gru(x)[0], copy.deepcopy(gru)(x)[0])


def test_a_packed_layer_refuses_gradients():
    linear = pruned(Linear(6, 5))
    linear.pack("fp32")
    with pytest.raises(ValueError, match="packed weights are for inference, use torch.no_grad"):
        linear(torch.ones(1, 6, requires_grad=True))


def test_weights_with_nan_are_refused():
    linear = Linear(6, 5)
    linear.weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="expected finite weights, got NaN or inf"):
        linear.pack("fp32")


def test_made_packable_a_module_keeps_its_parameters_and_draws_nothing():
    module = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU()))
    parameters, drawn = list(module.parameters()), torch.get_rng_state()
    make_packable(module, "fp32")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(p is q for p, q in zip(module.parameters(), parameters, strict=True))
    assert [type(module[0]), type(module[1][0])] == [Linear, Linear] and module[0].packed == "fp32"


def test_first_states_of_another_shape_are_refused_with_lengths():
    gru, x, lengths = GRU(4, 6), torch.randn(5, 2, 4), torch.tensor([5, 3])
    with pytest.raises(ValueError, match=r"GRU: expected hx \[1, 2, 6\], got \[3, 2, 6\]"):
        gru(x, torch.zeros(3, 2, 6), lengths)
    packed = torch.nn.utils.rnn.pack_sequence([x[:, 0]])
    with pytest.raises(ValueError, match="three dimensions with lengths, got PackedSequence"):
        gru(packed, None, lengths[:1])


@pytest.mark.parametrize("training", [True, False])
def test_what_is_made_packable_keeps_its_mode(training):
    module = nn.Sequential(nn.Linear(4, 4)).train(training)
    make_packable(module)
    assert type(module[0]) is Linear and module[0].training == training
