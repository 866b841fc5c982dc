"""The row convolution against its sum, and its place in pruning."""

import torch

from fairseq_rnnprune.layers import Lookahead
from fairseq_rnnprune.pruning import tag_prunable


def test_same_as_the_sum():
    lookahead = Lookahead(3, 2).double()
    torch.nn.init.normal_(lookahead.weight)
    x = torch.randn(2, 5, 3).double()
    y = lookahead(x)
    assert y.shape == x.shape
    for t in range(5):
        terms = [lookahead.weight[:, 0, j] * x[:, t + j] for j in range(3) if t + j < 5]
        torch.testing.assert_close(y[:, t], sum(terms))
    torch.testing.assert_close(lookahead.convolve(x), y[:, :3])


def test_at_first_it_changes_nothing():
    lookahead, x = Lookahead(3, 4), torch.randn(2, 9, 3)
    assert torch.equal(lookahead(x), x)
    lookahead(x).square().sum().backward()
    assert lookahead.weight.grad.ne(0).all()


def test_it_is_never_pruned():
    assert tag_prunable(Lookahead(3, 2)) == []
