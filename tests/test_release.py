"""Releasing the dense weights of packed layers."""

import pytest
import torch
from sparse_samples import pruned
from torch import nn

from fairseq_rnnprune.layers import GRU, ClippedRNN, Linear, release_dense

X = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self, layer, tied=False):
        super().__init__()
        self.layer = pruned(layer).eval()
        self.embedding = nn.Embedding(8, 6)
        self.output = Linear(6, 8, packed="fp32")
        if tied:
            self.output.weight = self.embedding.weight
        self.output.pack()


@pytest.mark.parametrize("choice", ["fp32", "bf16", "int8"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: GRU(6, 5, 2, bidirectional=True, batch_first=True),
        lambda: ClippedRNN(6, 5, 2, bidirectional=True),
        lambda: Linear(6, 5),
    ],
    ids=["gru", "rnn", "linear"],
)
def test_a_released_layer_runs_as_before(make, choice):
    net = Net(make())
    net.layer.pack(choice)
    with torch.no_grad():
        before = net.layer(X)
        weights = [p for name, p in net.layer.named_parameters(recurse=False) if "weight" in name]
        size = sum(p.nbytes for p in weights) + net.output.weight.nbytes
        assert release_dense(net) == size
        after = net.layer(X)
    assert all(p.numel() == 0 for p in weights) and net.output.weight.numel() == 0
    pairs = zip(before, after, strict=True) if isinstance(before, tuple) else [(before, after)]
    assert all(torch.equal(a, b) for a, b in pairs)
    assert release_dense(net) == 0


def test_tied_and_dense_weights_stay():
    net = Net(GRU(6, 5, packed="dense"), tied=True)
    net.layer.pack()
    saved = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert release_dense(net) == 0
    assert all(torch.equal(saved[name], tensor) for name, tensor in net.state_dict().items())
    net.output.train()


@pytest.mark.parametrize(
    ("action", "name"),
    [
        (lambda net, _: net.state_dict(), "state_dict"),
        (lambda net, _: net.layer.pack("bf16"), "pack"),
        (lambda net, _: net.train(), "train"),
        (lambda net, saved: net.load_state_dict(saved), "load_state_dict"),
    ],
)
def test_what_needs_dense_weights_is_refused(action, name):
    net = Net(GRU(6, 5))
    net.layer.pack("fp32")
    saved = net.state_dict()
    release_dense(net)
    with pytest.raises(ValueError, match=f"^{name}: expected a layer with its dense weights, got"):
        action(net, saved)
