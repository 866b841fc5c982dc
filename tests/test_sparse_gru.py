"""SparseGRU against torch.nn.GRU in float64."""

import copy
import math

import pytest
import torch
from tolerances import TOLERANCES, assert_close
from torch import nn

from fairseq_rnnprune.sparse import SparseGRU, SparseLinear, gru_sequence, reference


def test_it_has_what_models_ask_a_torch_layer_for():
    gru = nn.GRU(3, 4, 2, bias=False, batch_first=True, bidirectional=True)
    sparse = SparseGRU.from_dense(gru, (1, 1))
    sparse.flatten_parameters()
    for name in ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "bidirectional"):
        assert getattr(sparse, name) == getattr(gru, name)


INPUT, H, T, B = 7, 5, 4, 3


def pruned_gru(*arguments, density=0.4, **options):
    torch.manual_seed(0)
    gru = nn.GRU(*(arguments or (INPUT, H)), **options).eval()
    with torch.no_grad():
        for name, parameter in gru.named_parameters():
            if "weight" in name:
                parameter *= torch.rand_like(parameter) < density
    return gru


def inputs(gru, batch=B, steps=T):
    torch.manual_seed(1)
    cells = gru.num_layers * (2 if gru.bidirectional else 1)
    shape = (batch, steps) if gru.batch_first else (steps, batch)
    return torch.randn(*shape, gru.input_size), torch.randn(cells, batch, gru.hidden_size)


def exact(gru, x, h_0=None):
    """What torch computes from the same weights in float64."""
    with torch.no_grad():
        return copy.deepcopy(gru).double()(x.double(), None if h_0 is None else h_0.double())


def assert_same(results, oracle, dtype=torch.float32):
    for result, expected in zip(results, oracle, strict=True):
        assert_close(result, expected, dtype)


def test_one_step_by_hand():
    # One unit. r = sigmoid(1 + 1), z = sigmoid(-1 + 0), n = tanh(0.5 + r * 2), from h = 3.
    gates_x, gates_h = torch.tensor([[1.0, -1.0, 0.5]]), torch.tensor([[1.0, 0.0, 2.0]])
    r, z = 1 / (1 + math.exp(-2)), 1 / (1 + math.exp(1))
    n = math.tanh(0.5 + r * 2)
    h = reference.gru_step(gates_x.double(), gates_h.double(), torch.tensor([[3.0]]).double())
    assert h.item() == pytest.approx((1 - z) * n + z * 3.0, rel=1e-12)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_same_as_torch(layers, bidirectional, batch_first, bias):
    options = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias}
    gru = pruned_gru(INPUT, H, layers, **options)
    x, h_0 = inputs(gru)
    # 2 x 3 is ragged at both edges of a gate.
    sparse = SparseGRU.from_dense(gru, (2, 3))
    assert_same(sparse(x, h_0), exact(gru, x, h_0))
    assert_same(sparse(x), exact(gru, x))
    # By torch's names.
    assert_same(sparse(input=x, hx=h_0), exact(gru, x, h_0))


@pytest.mark.parametrize("backend", ["torch_csr", "reference"])
@pytest.mark.parametrize("dtype", list(TOLERANCES))
@pytest.mark.parametrize("batch", [1, 3])
def test_every_backend_and_dtype(backend, dtype, batch):
    gru = pruned_gru(33, 35)
    x, h_0 = inputs(gru, batch, steps=9)
    sparse = SparseGRU.from_dense(gru, (16, 1), dtype, backend)
    assert_same(sparse(x, h_0), exact(gru, x, h_0), dtype)
    matrices = [part.W for part in sparse.modules() if isinstance(part, SparseLinear)]
    assert [matrix.dtype for matrix in matrices] == [dtype] * 2
    assert all(("torch_csr" in matrix.cache) == (backend == "torch_csr") for matrix in matrices)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_without_a_batch(bidirectional):
    gru = pruned_gru(INPUT, H, 2, bidirectional=bidirectional, batch_first=True)
    x, h_0 = inputs(gru, 1)
    x, h_0 = x.squeeze(0), h_0.squeeze(1)
    sparse = SparseGRU.from_dense(gru, (1, 1))
    assert_same(sparse(x, h_0), exact(gru, x, h_0))
    assert_same(sparse(x), exact(gru, x))


def test_states_carry_a_sequence_on():
    gru = pruned_gru(INPUT, H, 2)
    x, h_0 = inputs(gru)
    sparse = SparseGRU.from_dense(gru, (1, 1))
    whole, last = sparse(x, h_0)
    h, steps = h_0, []
    for t in range(T):
        out, h = sparse(x[t : t + 1], h)
        steps.append(out)
    torch.testing.assert_close(torch.cat(steps), whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(h, last, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_all_zero_and_all_dense(density):
    gru = pruned_gru(density=density)
    x, h_0 = inputs(gru)
    assert_same(SparseGRU.from_dense(gru, (2, 2))(x, h_0), exact(gru, x, h_0))


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_saturated_gates(sign):
    gru = pruned_gru(density=1.0)
    with torch.no_grad():
        gru.bias_ih_l0[:] = sign * 1e4
        gru.bias_ih_l0[2 * H :] *= -1
    x, h_0 = inputs(gru)
    out, h_n = SparseGRU.from_dense(gru, (1, 1))(x, h_0)
    assert_same((out, h_n), exact(gru, x, h_0))
    # z = 1 keeps the first state to the last bit, z = 0 takes tanh's limit.
    assert torch.equal(out, h_0.expand_as(out) if sign > 0 else torch.ones_like(out))


def test_strided_inputs_amid_nan():
    gru = pruned_gru()
    x, h_0 = inputs(gru)
    poisoned = torch.full((INPUT, 2 * B, T), float("nan"))
    strided = poisoned.permute(2, 1, 0)[:, ::2]
    strided.copy_(x)
    assert_same(SparseGRU.from_dense(gru, (1, 1))(strided, h_0), exact(gru, x, h_0))


def test_reference_sequence_in_float64():
    gru = pruned_gru()
    x, h_0 = inputs(gru)
    sparse = SparseGRU.from_dense(gru, (1, 1)).layers[0][0]
    gates_x = reference.matmul(sparse.input.W, x.flatten(0, 1).double(), sparse.input.bias)
    states = reference.gru_sequence(
        sparse.recurrent.W, gates_x.view(T, B, -1), h_0[0].double(), sparse.recurrent.bias
    )
    torch.testing.assert_close(states, exact(gru, x, h_0)[0], rtol=1e-12, atol=1e-12)
    assert_close(
        gru_sequence(
            sparse.recurrent.W, gates_x.view(T, B, -1).float(), h_0[0], sparse.recurrent.bias
        ),
        states,
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_outputs_have_the_dtype_of_the_input(dtype):
    gru = pruned_gru().to(dtype)
    x, h_0 = (tensor.to(dtype) for tensor in inputs(gru))
    sparse = SparseGRU.from_dense(gru, (1, 1))
    out, h_n = sparse(x, h_0)
    assert_same((out, h_n), exact(gru, x, h_0), dtype)
    # Narrow weights are exact in float32, and only the results are rounded.
    for result, wide in zip((out, h_n), sparse(x.float(), h_0.float()), strict=True):
        assert torch.equal(result, wide.to(dtype))


def test_block_shape_may_depend_on_the_weight():
    gru = pruned_gru()
    sparse = SparseGRU.from_dense(gru, lambda weight, gates: (gates, weight.shape[1]))
    direction = sparse.layers[0][0]
    assert direction.input.W.block_shape == (3, INPUT)
    assert direction.recurrent.W.block_shape == (3, H)
    assert direction.recurrent.W.gates == 3


def test_a_state_dict_is_what_another_one_runs_with(tmp_path):
    first, second = pruned_gru(INPUT, H, 2), pruned_gru(INPUT, H, 2)
    second.load_state_dict({n: 2 * p for n, p in first.state_dict().items()})
    x, h_0 = inputs(first)
    # Blocks and values are the state's, not those of the layer that it is loaded into.
    saved = SparseGRU.from_dense(first, (4, 4), torch.int8)
    torch.save(saved.state_dict(), tmp_path / "gru.pt")
    loaded = SparseGRU.from_dense(second, (1, 1))
    before = loaded(x, h_0)[0]
    loaded.load_state_dict(torch.load(tmp_path / "gru.pt", weights_only=True))
    assert torch.equal(loaded(x, h_0)[0], saved(x, h_0)[0])
    assert not torch.equal(loaded(x, h_0)[0], before)
    with pytest.raises(RuntimeError, match="Missing key"):
        loaded.load_state_dict(first.state_dict())
    other = SparseGRU.from_dense(pruned_gru(INPUT, H + 1, 2), (1, 1))
    with pytest.raises(
        ValueError, match=r"expected a state of \[18, 7\] in 3 gates with bias, got"
    ):
        other.load_state_dict(saved.state_dict())


def test_casts_leave_the_values():
    gru = pruned_gru()
    x, h_0 = inputs(gru)
    sparse = SparseGRU.from_dense(gru, (1, 1))
    out, _ = sparse(x, h_0)
    assert not list(sparse.parameters()) + list(sparse.buffers())
    assert torch.equal(sparse.half().to("cpu")(x, h_0)[0], out)


def test_empty_batch_as_in_torch():
    gru = pruned_gru()
    x = torch.empty(2, 0, INPUT)
    out, h_n = SparseGRU.from_dense(gru, (1, 1))(x)
    assert [out.shape, h_n.shape] == [tensor.shape for tensor in gru(x)]


def test_no_dropout_even_in_training_mode():
    gru = pruned_gru(INPUT, H, 2, dropout=0.5)
    x, h_0 = inputs(gru)
    assert_same(SparseGRU.from_dense(gru, (1, 1)).train()(x, h_0), exact(gru, x, h_0))


@pytest.mark.parametrize(
    ("x", "h_0", "error", "message"),
    [
        ([[1.0]], None, TypeError, "expected input to be a tensor, got list"),
        (
            torch.ones(T, B, INPUT).double(),
            None,
            ValueError,
            "input in float32, .*got torch.float64",
        ),
        (
            torch.ones(T, B, INPUT + 1),
            None,
            ValueError,
            r"input \[T, B, 7\] or \[T, 7\], got \[4, 3, 8\]",
        ),
        (torch.ones(INPUT), None, ValueError, r"input \[T, B, 7\] or \[T, 7\], got \[7\]"),
        (torch.ones(0, B, INPUT), None, ValueError, r"at least one step, got input \[0, 3, 7\]"),
        (torch.ones(0, INPUT), None, ValueError, r"at least one step, got input \[0, 7\]"),
        (
            torch.ones(T, B, INPUT),
            torch.ones(2, B, H),
            ValueError,
            r"hx \[1, 3, 5\], got \[2, 3, 5\]",
        ),
        (torch.ones(T, INPUT), torch.ones(1, 1, H), ValueError, r"hx \[1, 5\], got \[1, 1, 5\]"),
        (
            torch.ones(T, B, INPUT),
            torch.ones(1, B, H).long(),
            ValueError,
            "expected hx in float32",
        ),
        (torch.ones(T, B, INPUT, requires_grad=True), None, ValueError, "use torch.no_grad"),
    ],
)
def test_bad_input(x, h_0, error, message):
    with pytest.raises(error, match=message):
        SparseGRU.from_dense(pruned_gru(), (1, 1))(x, h_0)


def test_batch_first_names_its_layout():
    sparse = SparseGRU.from_dense(pruned_gru(batch_first=True), (1, 1))
    with pytest.raises(ValueError, match=r"expected input \[B, T, 7\] or \[T, 7\]"):
        sparse(torch.ones(1, 1, 1))
    with pytest.raises(ValueError, match=r"at least one step, got input \[3, 0, 7\]"):
        sparse(torch.ones(3, 0, 7))


@pytest.mark.parametrize("block_shape", [(0, 1), 16, "auto", (6, 1)])
def test_blocks_that_do_not_fit(block_shape):
    with pytest.raises(ValueError, match=r"expected block_shape \(rows, columns\) from"):
        SparseGRU.from_dense(pruned_gru(), block_shape)


def test_only_a_gru_is_packed():
    with pytest.raises(TypeError, match="expected a torch.nn.GRU, got LSTM"):
        SparseGRU.from_dense(nn.LSTM(2, 2))
