"""GRUs with `lengths`, dense and packed, against torch's PackedSequence in float64."""

import copy

import pytest
import torch
from needs import needs_kernels
from sparse_samples import pruned
from tolerances import assert_close
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fairseq_rnnprune.layers import GRU, packing
from fairseq_rnnprune.sparse import SparseGRU, last_valid, reverse_valid, valid_frames

INPUT, H, STEPS = 6, 5, 7
LENGTHS = [[4, 7, 1, 7], [3, 5, 3, 3], [7, 7, 7, 7], [1, 1, 1, 1]]
CHOICES = {"dense": torch.float32, "fp32": torch.float32, "int8": torch.int8}


@pytest.fixture(autouse=True)
def no_environment(monkeypatch):
    monkeypatch.delenv(packing.ENVIRONMENT, raising=False)


def torchs(gru, x, hx, lengths):
    """What torch.nn.GRU makes of the batch as a PackedSequence."""
    sequence = pack_padded_sequence(x, lengths, gru.batch_first, enforce_sorted=False)
    out, h_n = nn.GRU.forward(gru, sequence, hx)
    return pad_packed_sequence(out, gru.batch_first, total_length=STEPS)[0], h_n


def one_by_one(gru, x, hx, lengths):
    """What a GRU makes of each sequence alone, without padding."""
    x = x if gru.batch_first else x.transpose(0, 1)
    hx = torch.zeros(gru.num_layers * (1 + gru.bidirectional), len(x), H) if hx is None else hx
    out, h_n = torch.zeros(len(x), STEPS, H * (1 + gru.bidirectional)), torch.empty_like(hx)
    for i, length in enumerate(lengths.tolist()):
        alone = x[i : i + 1, :length]
        found, last = gru(alone if gru.batch_first else alone.transpose(0, 1), hx[:, i : i + 1])
        out[i, :length], h_n[:, i : i + 1] = found.view(length, -1), last
    return (out if gru.batch_first else out.transpose(0, 1)), h_n


def batch(gru):
    x = torch.randn(4, STEPS, INPUT)
    hx = torch.randn(gru.num_layers * (1 + gru.bidirectional), 4, H)
    return (x if gru.batch_first else x.transpose(0, 1)), hx


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("options", [{"batch_first": True}, {"bidirectional": True}], ids=str)
def test_a_packed_sequence_gives_one(options, enforce_sorted):
    gru = pruned(nn.GRU(INPUT, H, **options), 3)
    lengths = torch.tensor([7, 5, 5, 1] if enforce_sorted else [5, 7, 1, 5])
    x, hx = batch(gru)
    sequence = pack_padded_sequence(x, lengths, gru.batch_first, enforce_sorted)
    with torch.no_grad():
        expected, last = gru(sequence, hx)
    sparse = SparseGRU.from_dense(gru, (4, 4))
    out, h_n = sparse(sequence, hx)
    assert_close(out.data, expected.data.double())
    assert_close(h_n, last.double())
    for name in ("batch_sizes", "sorted_indices", "unsorted_indices"):
        found, wanted = getattr(out, name), getattr(expected, name)
        assert (found is wanted is None) or torch.equal(found, wanted)
    with pytest.raises(ValueError, match="expected no lengths beside a PackedSequence"):
        sparse(sequence, hx, lengths)


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {"batch_first": True},
        {"bidirectional": True, "num_layers": 2, "bias": False},
        {"bidirectional": True, "num_layers": 2, "batch_first": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("has_states", [True, False])
def test_same_as_a_packed_sequence(choice, lengths, options, has_states):
    gru, lengths = pruned(GRU(INPUT, H, packed=choice, **options), 3), torch.tensor(lengths)
    x, hx = batch(gru)
    hx = hx if has_states else None
    with torch.no_grad():
        exact = torchs(
            copy.deepcopy(gru).double(), x.double(), hx.double() if has_states else None, lengths
        )
    gru.pack()
    assert isinstance(gru.sparse, SparseGRU) == (choice != "dense")
    garbage = ~valid_frames(lengths, STEPS)
    x = x.masked_fill((garbage if gru.batch_first else garbage.t()).unsqueeze(2), 1e4)
    with torch.no_grad():
        results = gru(x, hx, lengths)
    if choice == "int8":
        # Which rounds activations as well, in blocks that these few weights get: how far that may
        # go is for test_cpu_kernels.py; here padding must change nothing at all.
        exact = one_by_one(gru, x, hx, lengths)
    for actual, expected in zip(results, exact, strict=True):
        if choice == "int8":
            assert torch.equal(actual, expected)
        else:
            assert_close(actual, expected, CHOICES[choice])
    out = results[0] if gru.batch_first else results[0].transpose(0, 1)
    assert not out[garbage].any()


@pytest.mark.parametrize("run", ["_run_padded", "_run_packed"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients(run, bidirectional):
    lengths = torch.tensor([4, 7, 1, 7])
    gru = GRU(INPUT, H, 2, bidirectional=bidirectional, batch_first=True).double()
    x, hx = (tensor.double().requires_grad_() for tensor in batch(gru))
    inputs = [x, hx, *gru.parameters()]
    weights = torch.randn(4, STEPS, H * (1 + bidirectional)).double()
    gradients = []
    for out, h_n in (getattr(gru, run)(x, hx, lengths), torchs(gru, x, hx, lengths)):
        total = (out * weights).sum() + h_n.square().sum()
        gradients.append(torch.autograd.grad(total, inputs))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_dropout_acts_between_layers_in_training_only():
    lengths = torch.tensor([4, 7, 1, 7])
    gru = GRU(INPUT, H, 2, dropout=0.5)
    x, _ = batch(gru)
    (out, h_n), (other, _) = gru(x, None, lengths), gru(x, None, lengths)
    assert not torch.equal(out, other)
    sure, sure_h_n = gru.eval()(x, None, lengths)
    assert torch.equal(sure, gru(x, None, lengths)[0])
    # What enters the first layer is never dropped.
    assert torch.equal(h_n[0], sure_h_n[0]) and not torch.equal(h_n[1], sure_h_n[1])


def test_equal_lengths_take_torch_s_whole_call(monkeypatch):
    gru = GRU(INPUT, H)
    x, _ = batch(gru)
    monkeypatch.setattr(torch, "gru", None)
    assert torch.equal(gru(x, None, torch.full((4,), STEPS))[0], gru(x)[0])


@pytest.mark.parametrize("choice", ["dense", "fp32"])
def test_bad_lengths(choice):
    gru = pruned(GRU(INPUT, H, packed=choice))
    gru.pack()
    owner = "GRU" if choice == "dense" else "SparseGRU"
    x, _ = batch(gru)
    for lengths in ([1, 2, 3, 8], [0, 1, 2, 3]):
        with pytest.raises(ValueError, match=f"{owner}: expected lengths from 1 to the 7 steps"):
            gru(x, None, torch.tensor(lengths))
    for lengths in (torch.ones(3, dtype=torch.long), torch.ones(4)):
        with pytest.raises(ValueError, match=rf"{owner}: expected integer lengths \[4\]"):
            gru(x, None, lengths)
    with pytest.raises(TypeError, match=f"{owner}: expected lengths to be a tensor, got list"):
        gru(x, None, [7, 7, 7, 7])


def test_a_sequence_alone_has_no_lengths():
    with pytest.raises(ValueError, match="GRU: expected a batch of three dimensions with lengths"):
        GRU(INPUT, H)(torch.zeros(STEPS, INPUT), None, torch.tensor([STEPS]))


def test_frames_in_reverse():
    x, lengths = torch.arange(8).view(4, 2), torch.tensor([4, 2])
    assert reverse_valid(x, lengths).tolist() == [[6, 3], [4, 1], [2, 5], [0, 7]]
    assert torch.equal(reverse_valid(x, None), x.flip(0))
    assert last_valid(x, lengths).tolist() == [6, 3]
    assert torch.equal(last_valid(x, None), x[-1])
    assert valid_frames(lengths, 3).tolist() == [[True] * 3, [True, True, False]]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_all_at_once_is_as_by_length(lengths):
    gru = pruned(nn.GRU(INPUT, H, 2, bidirectional=True))
    sparse, (x, hx), lengths = SparseGRU.from_dense(gru, (1, 1)), batch(gru), torch.tensor(lengths)
    with torch.no_grad():
        for found, expected in zip(
            sparse._run_padded(x, hx, lengths), sparse._run_by_length(x, hx, lengths), strict=True
        ):
            assert_close(found, expected.double())


@needs_kernels
@pytest.mark.parametrize(
    "block_shape, backend, way",
    [((4, 4), "cpu", "_run_by_length"), ((1, 1), "torch_csr", "_run_padded")],
)
def test_only_the_native_kernels_take_one_length_at_a_time(monkeypatch, block_shape, backend, way):
    sparse = SparseGRU.from_dense(pruned(nn.GRU(INPUT, H)), block_shape, backend=backend)
    x, hx = batch(nn.GRU(INPUT, H))
    other = {"_run_by_length": "_run_padded", "_run_padded": "_run_by_length"}[way]
    monkeypatch.setattr(SparseGRU, other, None)
    with torch.no_grad():
        sparse(x, hx, torch.tensor(LENGTHS[0]))
