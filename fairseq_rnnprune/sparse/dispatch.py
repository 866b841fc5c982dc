"""Which backend runs an operation, or every reason why it cannot.

A backend is one row of `BACKENDS`, and the first that can run a call is its default. So the order
is the order of preference: cpu (native kernels for some block shapes), torch_csr (CPU), triton
(some block shapes on GPUs), reference (anywhere, but it keeps a dense copy).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from torch import Tensor

from . import cpu, reference, torch_csr, triton_backend
from .arguments import check_activations, check_bias, check_matrix, check_sequence
from .matrix import BlockSparseMatrix
from .validation import names


@dataclass(frozen=True)
class Backend:
    """One way to run every operation; the operations have the signatures of `reference`."""

    name: str
    unavailable_reasons: Callable[[], list[str]]
    not_supported_reasons: Callable[[BlockSparseMatrix, Tensor], list[str]]
    matmul: Callable[..., Tensor]
    gru_sequence: Callable[..., Tensor]
    rnn_sequence: Callable[..., Tensor]


BACKENDS = (
    Backend(
        "cpu",
        cpu.unavailable_reasons,
        cpu.not_supported_reasons,
        cpu.matmul,
        cpu.gru_sequence,
        cpu.rnn_sequence,
    ),
    Backend(
        "torch_csr",
        torch_csr.unavailable_reasons,
        torch_csr.not_supported_reasons,
        torch_csr.matmul,
        partial(reference.gru_sequence, matmul=torch_csr.matmul),
        partial(reference.rnn_sequence, matmul=torch_csr.matmul),
    ),
    Backend(
        "triton",
        triton_backend.unavailable_reasons,
        triton_backend.not_supported_reasons,
        triton_backend.matmul,
        triton_backend.gru_sequence,
        partial(reference.rnn_sequence, matmul=triton_backend.matmul),
    ),
    Backend(
        "reference",
        reference.unavailable_reasons,
        reference.not_supported_reasons,
        reference.matmul,
        reference.gru_sequence,
        reference.rnn_sequence,
    ),
)


def available_backends() -> list[str]:
    """Names of the backends that can run something in this process, in order of preference."""
    return [backend.name for backend in BACKENDS if not backend.unavailable_reasons()]


def explain(W: BlockSparseMatrix, x: Tensor) -> dict[str, list[str]]:
    """By backend, in order of preference, why it cannot multiply x [B, K]; [] where it can."""
    return {backend.name: backend.not_supported_reasons(W, x) for backend in BACKENDS}


def choose_backend(W: BlockSparseMatrix, x: Tensor, backend: str | None = None) -> Backend:
    """The first backend that can multiply x [B, K], or the one asked for by name.

    ValueError if that name is unknown or its backend cannot run this call: nothing else is tried.
    """
    if backend is None:
        return next(b for b in BACKENDS if not b.not_supported_reasons(W, x))
    named = {b.name: b for b in BACKENDS}
    if backend not in named:
        raise ValueError(
            f"choose_backend: expected backend among {', '.join(named)}, got {backend!r}; "
            "None chooses one"
        )
    reasons = named[backend].not_supported_reasons(W, x)
    if reasons:
        raise ValueError(
            f"choose_backend: expected a call that {backend} can run, got {W!r} and "
            f"x {list(x.shape)} {names((x.dtype,))} on {x.device}, but {backend} "
            f"{', '.join(reasons)}; backend=None chooses another"
        )
    return named[backend]


def _backend_for(W: BlockSparseMatrix, x: Tensor, backend: str | None) -> Backend:
    """As `choose_backend`, for x on the device of W; kept, as reasons take longer than products."""
    key = f"backend {backend}"
    if key not in W.cache:
        W.cache[key] = choose_backend(W, x, backend)
    return W.cache[key]


def matmul(
    W: BlockSparseMatrix, x: Tensor, bias: Tensor | None = None, backend: str | None = None
) -> Tensor:
    """x [B, K] times the transpose of W [M, K], plus bias [M]: float32 [B, M].

    x and bias may have any strides and be float32, float16 or bfloat16; the arithmetic is float32.
    NaN and inf in x reach the outputs that have a weight there, others not necessarily. TypeError
    or ValueError for a wrong type, dtype, shape or device, for a backend that cannot run, and where
    a gradient is asked for: packed weights are for inference.
    """
    check_matrix("matmul", W)
    x = check_activations("matmul", "x", x, ("B", W.shape[1]), W)
    bias = check_bias("matmul", bias, W)
    return _backend_for(W, x, backend).matmul(W, x, bias)


def gru_sequence(
    W: BlockSparseMatrix,
    gates_x: Tensor,
    h: Tensor,
    bias: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The hidden states float32 [T, B, H] of a GRU, as `reference.gru_sequence` defines them.

    W [3H, H] is the recurrent weight, gates_x [T, B, 3H] the input's part of the gates, h [B, H]
    the first state, bias [3H] the recurrent bias; T is at least 1. Dtypes and errors: see `matmul`.
    """
    gates_x, h, bias = check_sequence("gru_sequence", 3, W, gates_x, h, bias)
    return _backend_for(W, h, backend).gru_sequence(W, gates_x, h, bias)


def rnn_sequence(
    W: BlockSparseMatrix,
    gates_x: Tensor,
    h: Tensor,
    bias: Tensor | None = None,
    nonlinearity: str = "relu",
    ceiling: float = inf,
    backend: str | None = None,
) -> Tensor:
    """The hidden states float32 [T, B, H] of an RNN, as `reference.rnn_sequence` defines them.

    W [H, H], gates_x [T, B, H], h [B, H], bias [H]; nonlinearity "tanh" or "relu", which is cut off
    at `ceiling`. Dtypes and errors: see `matmul`.
    """
    if nonlinearity not in ("relu", "tanh") or not ceiling > 0:
        raise ValueError(
            'rnn_sequence: expected nonlinearity "relu" or "tanh" and a ceiling above 0, '
            f"got {nonlinearity!r} and {ceiling}"
        )
    gates_x, h, bias = check_sequence("rnn_sequence", 1, W, gates_x, h, bias)
    chosen = _backend_for(W, h, backend)
    return chosen.rnn_sequence(W, gates_x, h, bias, nonlinearity, ceiling)
