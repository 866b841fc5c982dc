"""ClippedRNN and its batch norm against plain loops in float64, dense, padded and packed."""

import copy

import pytest
import torch
from needs import needs_kernels
from sparse_samples import pruned
from tolerances import assert_close
from torch import nn

from fairseq_rnnprune.layers import CEILING, ClippedRNN, FrameBatchNorm, packing
from fairseq_rnnprune.layers.clipped_recurrence import ClippedRecurrence
from fairseq_rnnprune.pruning.prunable import Prunable, find_prunable
from fairseq_rnnprune.sparse import SparseRNN

INPUT, H = 6, 5
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "int8": torch.int8}
LENGTHS = [4, 7, 1, 7]


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv(packing.ENVIRONMENT, raising=False)


def trained_rnn(layers=2, bidirectional=True, **options):
    """Norms have statistics, gains and shifts of their own; units 0 and 1 are mostly cut off."""
    rnn = ClippedRNN(INPUT, H, layers, bidirectional=bidirectional, **options)
    with torch.no_grad():
        for norm in rnn.norms.values():
            norm.weight.uniform_(0.5, 9.0)
            norm.bias.uniform_(-1.0, 3.0)
            norm.bias[:2] = torch.tensor([-20.0, 60.0])
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2.0)
    return pruned(rnn, 3)


def by_definition(rnn, x, hx=None):
    """The class's formula for one sequence [T, I] in float64, norms with their running values."""
    state, outputs, h_n = rnn.double().state_dict(), x.double(), []
    for layer in range(rnn.num_layers):
        directions = []
        for suffix in (f"l{layer}", f"l{layer}_reverse")[: 1 + rnn.bidirectional]:
            W, U = state[f"weight_ih_{suffix}"], state[f"weight_hh_{suffix}"]
            norm = {n: state[f"norms.{suffix}.{n}"] for n in ("running_mean", "running_var")}
            gain, shift = state[f"norms.{suffix}.weight"], state[f"norms.{suffix}.bias"]
            h = torch.zeros(H).double() if hx is None else hx[len(h_n)].double()
            states = []
            for frame in outputs.flip(0) if "reverse" in suffix else outputs:
                normal = (W @ frame - norm["running_mean"]) / (norm["running_var"] + 1e-5).sqrt()
                h = (gain * normal + shift + U @ h).clamp(0, 20)
                states.append(h)
            h_n.append(h)
            states = torch.stack(states)
            directions.append(states.flip(0) if "reverse" in suffix else states)
        outputs = torch.cat(directions, 1)
    return outputs, torch.stack(h_n)


@pytest.mark.parametrize("packed", ["dense", *DTYPES])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS])
def test_same_as_the_definition(packed, layers, bidirectional, lengths):
    rnn = trained_rnn(layers, bidirectional, packed=packed)
    x = torch.randn(4, 7, INPUT)
    hx = torch.rand(layers * (1 + bidirectional), 4, H)
    exact = [
        by_definition(copy.deepcopy(rnn), x[b, :length], hx[:, b])
        for b, length in enumerate(lengths or [7] * 4)
    ]
    rnn.make_generation_fast_()
    assert isinstance(rnn.sparse, SparseRNN) == (packed != "dense")
    padded = x.clone()
    for b, length in enumerate(lengths or [7] * 4):
        padded[b, length:] = 1e4
    with torch.no_grad():
        out, h_n = rnn(padded, hx, None if lengths is None else torch.tensor(lengths))
    for b, (states, last) in enumerate(exact):
        assert_close(out[b, : len(states)], states, DTYPES.get(packed, torch.float32))
        assert_close(h_n[:, b], last, DTYPES.get(packed, torch.float32))
        assert not out[b, len(states) :].any()
    assert out.max() == CEILING and out.min() == 0


def test_without_first_states_they_are_zero():
    rnn = trained_rnn()
    x = torch.randn(1, 7, INPUT)
    exact, _ = by_definition(copy.deepcopy(rnn), x[0])
    with torch.no_grad():
        assert_close(rnn(x)[0][0], exact)
        rnn.pack("fp32")
        assert_close(rnn(x)[0][0], exact)


def test_gradients_of_the_recurrence():
    inputs = 10 * torch.randn(5, 2, 3, H).double()
    U, h_0 = torch.randn(2, H, H).double(), torch.rand(2, 3, H).double()
    arguments = [tensor.requires_grad_() for tensor in (inputs, U, h_0)]
    states = ClippedRecurrence.apply(*arguments)
    assert (states == 0).any() and (states == CEILING).any()
    h, expected = h_0, []
    for step in inputs:
        h = torch.baddbmm(step, h, U.mT).clamp(0, CEILING)
        expected.append(h)
    expected, weights = torch.stack(expected), torch.randn(5, 2, 3, H).double()
    torch.testing.assert_close(states, expected)
    ours = torch.autograd.grad((states * weights).sum(), arguments)
    plain = torch.autograd.grad((expected * weights).sum(), arguments)
    torch.testing.assert_close(ours, plain)


def test_in_training_padding_changes_neither_output_nor_gradient_nor_statistics():
    lengths = torch.tensor(LENGTHS)
    x, rnn = torch.randn(4, 7, INPUT).double(), trained_rnn().double().train()
    longer = copy.deepcopy(rnn)
    out, h_n = rnn(x, lengths=lengths)
    padded = torch.cat([x, torch.full((4, 3, INPUT), 1e3).double()], 1)
    out_longer, h_n_longer = longer(padded, lengths=lengths)
    torch.testing.assert_close(out_longer[:, :7], out)
    torch.testing.assert_close(h_n_longer, h_n)
    out.square().sum().backward()
    out_longer.square().sum().backward()
    for (name, ours), theirs in zip(rnn.named_parameters(), longer.parameters(), strict=True):
        torch.testing.assert_close(theirs.grad, ours.grad)
        assert ours.grad.any(), name
    torch.testing.assert_close(longer.state_dict(), rnn.state_dict())


def test_dropout_acts_between_layers_in_training_only():
    x = torch.randn(2, 7, INPUT)
    certain, rnn = trained_rnn(), trained_rnn(dropout=0.5)
    rnn.load_state_dict(certain.state_dict())
    assert torch.equal(rnn(x)[0], certain(x)[0])
    assert not torch.equal(rnn.train()(x)[0], certain.train()(x)[0])
    one = trained_rnn(layers=1, dropout=0.5).train()
    assert torch.equal(one(x)[0], one(x)[0])


def test_names_are_those_of_torch():
    rnn = ClippedRNN(INPUT, H, 2, bidirectional=True)
    torchs = nn.RNN(INPUT, H, 2, bidirectional=True)
    names = [name for name in torchs.state_dict() if "weight" in name]
    assert [name for name in rnn.state_dict() if "norms" not in name] == names
    assert all(rnn.state_dict()[name].shape == torchs.state_dict()[name].shape for name in names)
    found = find_prunable(rnn.state_dict())
    expected = [Prunable(name, "recurrent" if "hh" in name else "input", 1) for name in names]
    assert found == expected


def test_states_stay_as_large_as_the_input():
    rnn = ClippedRNN(40, 200, 4).train()
    out, _ = rnn(torch.randn(4, 300, 40))
    assert 0.7 < out[:, -50:].square().mean() < 1.4
    assert 0.7 < out[:, 50:100].square().mean() < 1.4


def test_training_and_loading_drop_the_packed_copy():
    rnn = trained_rnn()
    rnn.pack("fp32")
    rnn.load_state_dict(rnn.state_dict())
    assert rnn.sparse is None
    rnn.pack("fp32")
    assert rnn.train().sparse is None


@needs_kernels
def test_auto_judges_it_as_a_recurrent_layer(monkeypatch):
    monkeypatch.setattr(packing, "AUTO_MAX_DENSITY", ())
    monkeypatch.setattr(packing, "AUTO_MAX_STORED_DENSITY", ())
    monkeypatch.setattr(packing, "AUTO_MAX_DENSITY_RECURRENT", ((1, 0.6),))
    # So sparse that a layer without steps would get single elements.
    rnn = pruned(ClippedRNN(64, 64), 10)
    rnn.pack()
    assert rnn.sparse is not None
    assert rnn.sparse.layers[0][0].recurrent.W.block_shape != (1, 1)


def test_bad_input():
    rnn = ClippedRNN(INPUT, H)
    for shape in [(7, INPUT), (2, 0, INPUT), (2, 7, 3)]:
        with pytest.raises(ValueError, match=r"ClippedRNN: expected input \[B, T, 6\] with T of"):
            rnn(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"expected hx \[1, 2, 5\], got \[2, 5\]"):
        rnn(torch.zeros(2, 7, INPUT), torch.zeros(2, H))
    with pytest.raises(ValueError, match="ClippedRNN: expected lengths from 1 to the 7 steps"):
        rnn(torch.zeros(2, 7, INPUT), lengths=torch.tensor([7, 8]))


@pytest.mark.parametrize("values", [1, 3])
def test_batch_norm_sees_valid_frames_only(values):
    norm, x = FrameBatchNorm(4), torch.randn(3, 7, 4 * values)
    valid = torch.arange(7) < torch.tensor([[5], [2], [7]])
    expected = nn.BatchNorm1d(4)
    assert list(norm.state_dict()) == list(expected.state_dict())
    frames = expected(x[valid].view(-1, 4, values)).flatten(1)
    out = norm(x.masked_fill(~valid.unsqueeze(2), float("nan")), valid)
    torch.testing.assert_close(out[valid], frames)
    assert not out[~valid].any()
    torch.testing.assert_close(norm.state_dict(), expected.state_dict())
    norm.eval(), expected.eval()
    whole = expected(x.view(21, 4, values)).view(3, 7, -1)
    torch.testing.assert_close(norm(x), whole)
    torch.testing.assert_close(norm(x, valid)[valid], whole[valid])


def test_batch_norm_of_one_frame_takes_the_running_statistics():
    norm, x = FrameBatchNorm(4), torch.randn(2, 7, 4)
    norm(3 * x + 1)
    before = copy.deepcopy(norm.state_dict())
    valid = torch.zeros(2, 7, dtype=torch.bool)
    valid[1, 0] = True
    out = norm(x, valid)
    torch.testing.assert_close(norm.state_dict(), before)
    torch.testing.assert_close(out, norm.eval()(x, valid))


def test_mixed_precision():
    rnn, x = trained_rnn().train(), torch.randn(4, 7, INPUT)
    expected, _ = copy.deepcopy(rnn)(x)
    with torch.autocast("cpu", torch.bfloat16):
        out, _ = rnn(x, lengths=torch.tensor([7, 7, 7, 6]))
        assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in rnn.parameters())
    whole, _ = copy.deepcopy(rnn).eval().half()(x.half())
    assert whole.dtype == torch.float16 and expected.dtype == torch.float32
