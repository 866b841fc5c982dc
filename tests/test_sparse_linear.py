"""SparseLinear against torch.nn.Linear in float64."""

import copy

import pytest
import torch
from tolerances import assert_close
from torch import nn

from fairseq_rnnprune.sparse import SparseLinear


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(6,), (2, 6), (2, 3, 6), (0, 6)])
def test_same_as_torch(bias, shape):
    torch.manual_seed(0)
    linear = nn.Linear(6, 9, bias)
    x = torch.randn(shape)
    y = SparseLinear.from_dense(linear, (4, 4))(x)
    with torch.no_grad():
        expected = copy.deepcopy(linear).double()(x.double())
    if expected.numel():
        assert_close(y, expected)
    assert y.shape == expected.shape


def test_keeps_the_dtype_of_its_input():
    linear = SparseLinear.from_dense(nn.Linear(6, 9), (1, 1))
    assert linear(torch.ones(2, 6).half()).dtype == torch.float16


def test_moving_moves_every_array(monkeypatch):
    linear = SparseLinear.from_dense(nn.Linear(4, 4), (1, 1))
    moved = []
    monkeypatch.setattr(type(linear.W), "to", lambda self, device: moved.append(device) or self)
    linear.to("meta")
    assert moved == [torch.device("meta")]
    assert linear.bias.device.type == "meta"


def test_a_state_is_copied():
    first, x = SparseLinear.from_dense(nn.Linear(6, 9), (1, 1)), torch.randn(2, 6)
    second = SparseLinear.from_dense(nn.Linear(6, 9), (1, 1))
    second.load_state_dict(first.state_dict())
    before = second(x)
    first.W.values.zero_()
    first.bias.zero_()
    assert torch.equal(second(x), before) and not first(x).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weight": None}, "BlockSparseMatrix: expected a state of shape, .* got NoneType"),
        ({"bias": None}, r"of \[9, 6\] in 1 gates with bias, got .* without bias"),
        ({"bias": torch.ones(8)}, r"expected bias \[9\], got \[8\]"),
        ({"more": 1}, "expected the state of a SparseLinear, got another"),
        ({"columns": torch.full((54,), 65536)}, "expected columns within the matrix, got others"),
        ({"columns": torch.full((54,), 6)}, "expected columns below 6, got 6"),
        ({"values": torch.ones(1, 1, 1)}, "values"),
        ({"block_shape": (0, 1)}, "expected block_shape"),
        ({"pointers": [0]}, "expected a state of"),
        ({"values": None}, "expected values as a tensor, got NoneType"),
        ({"columns": None}, "expected columns as a tensor, got NoneType"),
        ({"shape": 9}, r"expected a shape \(rows, columns\) of two ints, got 9"),
        ({"shape": (9.0, 6)}, r"expected a shape \(rows, columns\) of two ints"),
        ({"shape": (9, 6, 1)}, r"expected a shape \(rows, columns\) of two ints"),
        ({"block_shape": 4}, "expected block_shape .* got 4"),
    ],
)
def test_a_broken_state_changes_nothing(change, message):
    linear = SparseLinear.from_dense(nn.Linear(6, 9), (1, 1))
    assert not list(linear.parameters()) + list(linear.buffers())
    state, x = linear.get_extra_state(), torch.randn(2, 6)
    before = linear(x)
    inner = {n: v for n, v in change.items() if n in state["weight"]}
    outer = {n: v for n, v in change.items() if n not in inner}
    with pytest.raises(ValueError, match=message):
        linear.set_extra_state({**state, "weight": {**state["weight"], **inner}, **outer})
    assert torch.equal(linear(x), before)


@pytest.mark.parametrize(
    ("x", "message"),
    [([1.0], "expected x to be a tensor, got list"), (torch.ones(()), r"expected x \[B, 6\], got")],
)
def test_what_is_no_input_is_refused(x, message):
    with pytest.raises((TypeError, ValueError), match=message):
        SparseLinear.from_dense(nn.Linear(6, 9), (1, 1))(x)


def test_only_a_linear_is_packed():
    with pytest.raises(TypeError, match="expected a torch.nn.Linear, got Embedding"):
        SparseLinear.from_dense(nn.Embedding(2, 2))


def test_a_weight_that_was_not_packed():
    with pytest.raises(
        TypeError, match="SparseLinear: expected W to be a BlockSparseMatrix, got T"
    ):
        SparseLinear(torch.ones(16, 4))
