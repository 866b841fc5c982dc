"""Packed layers as modules among others: freed, compiled, given what is no memory."""

import gc
import weakref

import pytest
import torch
from needs import needs_kernels

from fairseq_rnnprune.sparse import SparseGRU, SparseLinear


def test_it_is_freed_when_nobody_has_it():
    sparse = SparseGRU.from_dense(torch.nn.GRU(8, 16), (4, 4))
    with torch.no_grad():
        sparse(torch.randn(3, 1, 8))
    matrix = weakref.ref(sparse.layers[0][0].recurrent.W)
    gc.disable()
    try:
        del sparse
        assert matrix() is None
    finally:
        gc.enable()


def test_a_compiled_model_runs_it_as_it_is():
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = SparseGRU.from_dense(torch.nn.GRU(8, 16), (4, 4))
            self.linear = SparseLinear.from_dense(torch.nn.Linear(16, 4), (4, 4))

        def forward(self, x):
            return self.linear(torch.relu(self.gru(x)[0]))

    model = Model().eval()
    compiled = torch.compile(model, backend="eager")
    with torch.no_grad():
        for steps in (3, 5):
            x = torch.randn(steps, 1, 8)
            assert torch.equal(compiled(x), model(x))


@needs_kernels
def test_tensors_without_memory_do_not_reach_the_kernels():
    sparse = SparseGRU.from_dense(torch.nn.GRU(8, 16), (4, 4))
    linear = SparseLinear.from_dense(torch.nn.Linear(8, 16), (4, 4))
    x = torch._efficientzerotensor((3, 8))
    with torch.no_grad():
        for layer in (sparse, linear):
            with pytest.raises(ValueError, match="expected activations in memory, got a Tensor"):
                layer(x)
