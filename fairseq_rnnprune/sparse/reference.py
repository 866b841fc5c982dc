"""The definition of every operation of this package in plain torch; backends must agree with it.

Arithmetic is done in the dtype of the activations, so float64 activations give an oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import torch
from torch import Tensor

from .arguments import without_autocast
from .matrix import BlockSparseMatrix

Matmul = Callable[[BlockSparseMatrix, Tensor, Tensor | None], Tensor]


def unavailable_reasons() -> list[str]:
    """Why no call can run in this process: there is no reason, the reference always can."""
    return []


def not_supported_reasons(W: BlockSparseMatrix, x: Tensor) -> list[str]:
    """Why this call cannot run: there is no reason, the reference takes everything."""
    return []


@without_autocast
def matmul(W: BlockSparseMatrix, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [B, K] times the transpose of W [M, K], plus bias [M]: [B, M]."""
    # Unpacked once: every call would take much longer, and on a GPU wait for it.
    y = x @ W.derived("dense", W.to_dense).to(x.dtype).t()
    return y if bias is None else y + bias.to(x.dtype)


def gru_step(gates_x: Tensor, gates_h: Tensor, h: Tensor) -> Tensor:
    """The next hidden state [B, H] of a GRU, from its gates' two products [B, 3H] and h [B, H].

    The variant of torch.nn.GRU and cuDNN, with gates in the order r, z, n and the reset gate
    applied after the recurrent product (in arXiv 1406.1078v3, eq. 8, it is applied before):
    r = sigmoid(x_r + h_r), z = sigmoid(x_z + h_z), n = tanh(x_n + r * h_n), n + z * (h - n).
    The biases are part of the products.
    """
    H = h.shape[1]
    x_rz, x_n = gates_x.split((2 * H, H), dim=1)
    h_rz, h_n = gates_h.split((2 * H, H), dim=1)
    r, z = torch.sigmoid(x_rz + h_rz).chunk(2, dim=1)
    n = torch.tanh(x_n + r * h_n)
    return torch.lerp(n, h, z)


def rnn_step(gates_x: Tensor, gates_h: Tensor, nonlinearity: str, ceiling: float) -> Tensor:
    """The next hidden state [B, H] of torch.nn.RNN, from its two products [B, H].

    With "relu" it is cut off at `ceiling`, as in Deep Speech (arXiv 1412.5567, section 2, with 20).
    """
    if nonlinearity == "tanh":
        return torch.tanh(gates_x + gates_h)
    return torch.relu(gates_x + gates_h).clamp(max=ceiling)


def gru_sequence(
    W: BlockSparseMatrix,
    gates_x: Tensor,
    h: Tensor,
    bias: Tensor | None = None,
    matmul: Matmul = matmul,
) -> Tensor:
    """The hidden states [T, B, H] after each of the steps gates_x [T, B, 3H], from h [B, H].

    W [3H, H] and bias [3H] are the recurrent weight and bias. A backend without a fused GRU runs
    this loop with its own `matmul`.
    """
    states = []
    for gates in gates_x.unbind(0):
        h = gru_step(gates, matmul(W, h, bias), h)
        states.append(h)
    return torch.stack(states)


def rnn_sequence(
    W: BlockSparseMatrix,
    gates_x: Tensor,
    h: Tensor,
    bias: Tensor | None = None,
    nonlinearity: str = "relu",
    ceiling: float = inf,
    matmul: Matmul = matmul,
) -> Tensor:
    """As `gru_sequence`, of `rnn_step`: W [H, H], gates_x [T, B, H], bias [H]."""
    states = []
    for gates in gates_x.unbind(0):
        h = rnn_step(gates, matmul(W, h, bias), nonlinearity, ceiling)
        states.append(h)
    return torch.stack(states)
