"""Random shapes and masks through the native kernels; `tests/native/check.sh` adds a sanitizer."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from needs import needs_kernels
from tolerances import assert_close
from torch import nn

from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    SparseGRU,
    SparseRNN,
    cpu,
    cpu_library,
    gru_sequence,
    matmul,
    reference,
)
from fairseq_rnnprune.sparse.cpu_library import activation_levels

pytestmark = needs_kernels


@pytest.fixture(scope="module", autouse=True)
def best_instruction_set_afterwards():
    yield
    use(0)


def use(instruction_set):
    names = cpu_library.instruction_sets()
    cpu_library.use_instruction_set(names[instruction_set % len(names)])


@some.composite
def matrices(draw, recurrent=False):
    """A packed matrix whose panels hold anything from no block to all of them."""
    r, c = draw(some.sampled_from(cpu.BLOCK_SHAPES))
    dtype = draw(some.sampled_from(list(cpu.DTYPES)))
    gates = 3 if recurrent else draw(some.integers(1, 4))
    height = draw(some.integers(max(r, c), 60))
    columns = height if recurrent else draw(some.integers(c, 90))
    generator = torch.Generator().manual_seed(draw(some.integers(0, 2**32)))
    weight = torch.randn(gates * height, columns, generator=generator)
    # Each row has a density of its own, and many rows are empty.
    density = torch.rand(gates * height, 1, generator=generator) * 2 - 1
    weight *= torch.rand(weight.shape, generator=generator) < density
    apart = recurrent and draw(some.booleans())
    return BlockSparseMatrix.from_dense(weight, (r, c), dtype, gates, apart)


def tolerance(W):
    # With activations in integers a row of few weights may carry all of their rounding.
    return None if activation_levels(W) else torch.float32


@given(W=matrices(), batch=some.integers(0, 70), instruction_set=some.integers(0, 3))
def test_matmul(W, batch, instruction_set):
    use(instruction_set)
    x = torch.randn(batch, W.shape[1])
    y = matmul(W, x, backend="cpu")
    assert y.shape == (batch, W.shape[0])
    exact = reference.matmul(W, x.double())
    if dtype := tolerance(W):
        assert_close(y, exact, dtype) if batch else None
    else:
        # Half a level of each activation, times the sum of a row's weights.
        level = x.abs().amax(1, keepdim=True) / 127
        bound = 0.51 * level * W.to_dense().abs().sum(1) + 1e-4
        assert ((y - exact).abs() <= bound).all()


@given(
    W=matrices(recurrent=True),
    batch=some.integers(1, 20),
    steps=some.integers(1, 4),
    instruction_set=some.integers(0, 3),
)
def test_gru_sequence(W, batch, steps, instruction_set):
    use(instruction_set)
    gates_x, h = torch.randn(steps, batch, W.shape[0]), torch.rand(batch, W.shape[1])
    states = gru_sequence(W, gates_x, h, backend="cpu")
    assert states.shape == (steps, batch, W.shape[1])
    exact = reference.gru_sequence(W, gates_x.double(), h.double())
    if dtype := tolerance(W):
        assert_close(states, exact, dtype)
    else:
        assert states.isfinite().all()


@given(
    sizes=some.tuples(some.integers(8, 40), some.integers(16, 40), some.integers(1, 3)),
    bidirectional=some.booleans(),
    kind=some.sampled_from(["gru", "relu", "tanh"]),
    dtype=some.sampled_from(list(cpu.DTYPES)),
    block_shape=some.sampled_from(cpu.BLOCK_SHAPES),
    steps=some.integers(1, 70),
    batch=some.integers(1, 70),
    instruction_set=some.integers(0, 3),
)
def test_network(sizes, bidirectional, kind, dtype, block_shape, steps, batch, instruction_set):
    use(instruction_set)
    inputs, hidden, layers = sizes
    # Few products in the reference: float64 would take most of the time.
    steps = min(steps, max(1, 200 // batch))
    options = {"num_layers": layers, "bidirectional": bidirectional}
    if kind == "gru":
        dense, pack = nn.GRU(inputs, hidden, **options), SparseGRU.from_dense
    else:
        dense, pack = nn.RNN(inputs, hidden, nonlinearity=kind, **options), SparseRNN.from_dense
    with torch.no_grad():
        for parameter in dense.parameters():
            if parameter.dim() == 2:
                parameter *= torch.rand(len(parameter), 1) > torch.rand(parameter.shape)
        sparse = pack(dense, block_shape, dtype)
        x = torch.randn(steps, batch, inputs)
        h_0 = torch.rand(layers * (1 + bidirectional), batch, hidden)
        results, by_layer = sparse(x, h_0), sparse._run(x, h_0)
    assert sparse._network(x) is not None
    for result, expected in zip(results, by_layer, strict=True):
        if not dtype.is_floating_point:
            # Levels differ with the scale, and small differences grow over layers and steps.
            assert result.shape == expected.shape and result.isfinite().all()
        else:
            assert_close(result, expected.double(), tolerance=2e-5)
