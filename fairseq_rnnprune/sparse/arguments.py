"""What an operation on a packed matrix may be called with, checked before any backend runs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .matrix import BlockSparseMatrix
from .validation import WEIGHT_DTYPES, names

Operation = Callable[..., Tensor]


def not_compiled(forward: Callable) -> Callable:
    """Keeps torch.compile out, which would trace the checks and not see the kernels."""

    @functools.wraps(forward)
    def run(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling():
            # Imported here, as it takes seconds, and there by now.
            return torch._dynamo.disable(forward)(*args, **kwargs)
        return forward(*args, **kwargs)

    return run


def check_sequence(
    function: str, gates: int, W: BlockSparseMatrix, gates_x: Tensor, h: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """gates_x, h and bias as float32, for a cell of so many gates, or an error as below."""
    check_matrix(function, W)
    h = check_activations(function, "h", h, ("B", W.shape[1]), W)
    gates_x = check_activations(function, "gates_x", gates_x, ("T", len(h), W.shape[0]), W)
    if W.shape[0] != gates * W.shape[1] or W.gates != gates or not len(gates_x):
        rows = f"{gates}H" if gates > 1 else "H"
        raise ValueError(
            f"{function}: expected W [{rows}, H] packed with gates={gates} and at least one step, "
            f"got W {list(W.shape)} with gates={W.gates} and gates_x {list(gates_x.shape)}"
        )
    return gates_x, h, check_bias(function, bias, W)


def check_matrix(function: str, W: BlockSparseMatrix) -> None:
    """Raises TypeError for anything else than a packed matrix."""
    if not isinstance(W, BlockSparseMatrix):
        raise TypeError(
            f"{function}: expected W to be a BlockSparseMatrix, got {type(W).__name__}; "
            "pack it with BlockSparseMatrix.from_dense"
        )


def check_bias(function: str, bias: Tensor | None, W: BlockSparseMatrix) -> Tensor | None:
    """The bias [M] as float32, or None."""
    return None if bias is None else check_activations(function, "bias", bias, (W.shape[0],), W)


def check_activations(
    function: str, name: str, x: Tensor, shape: tuple[int | str, ...], W: BlockSparseMatrix
) -> Tensor:
    """The tensor as float32; a letter in `shape` stands for any size.

    TypeError or ValueError for what W cannot be multiplied by.
    """
    if is_plain(x) and _fits(x, shape, W):
        return x
    check_float_tensor(function, name, x)
    fits = x.dim() == len(shape) and all(
        isinstance(size, str) or size == actual for size, actual in zip(shape, x.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in shape)
        raise ValueError(f"{function}: expected {name} [{wanted}], got {list(x.shape)}")
    if x.device != W.device:
        raise ValueError(
            f"{function}: expected {name} on {W.device} like W, got {x.device}; move one with .to()"
        )
    if x.requires_grad and torch.is_grad_enabled():
        raise ValueError(
            f"{function}: expected no gradient, got {name} that requires one; packed weights are "
            "for inference, use torch.no_grad()"
        )
    return as_floats(x)


def as_floats(x: Tensor) -> Tensor:
    """x in float32, as its memory has it; most are so already, and asking costs less than torch."""
    return x if x.dtype is torch.float32 and not x.is_neg() else x.float().resolve_neg()


def reasons_off_cpu(W: BlockSparseMatrix, x: Tensor) -> list[str]:
    """Why a backend for CPUs cannot multiply x by W, where one of them is elsewhere."""
    elsewhere = [device for device in {x.device, W.device} if device.type != "cpu"]
    return [f"runs on the CPU, not on {device}" for device in elsewhere]


def without_autocast(operation: Operation) -> Operation:
    """The operation, whose first argument is W, in the dtypes of x and W even in torch.autocast.

    Narrower products would break the promise of float32, and torch has none of CSR matrices.
    """

    @functools.wraps(operation)
    def run(W: BlockSparseMatrix, *args: Any, **kwargs: Any) -> Tensor:
        device = W.device.type
        if not torch.is_autocast_enabled(device):
            return operation(W, *args, **kwargs)
        with torch.autocast(device, enabled=False):
            return operation(W, *args, **kwargs)

    return run


def check_float_tensor(function: str, name: str, x: Any) -> None:
    """Raises TypeError or ValueError for anything else than a tensor of floats."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{function}: expected {name} to be a tensor, got {type(x).__name__}")
    if x.dtype not in WEIGHT_DTYPES:
        raise ValueError(
            f"{function}: expected {name} in {names(WEIGHT_DTYPES)}, got {x.dtype}; "
            "convert it with .float()"
        )
    if x.layout is not torch.strided:
        raise ValueError(
            f"{function}: expected {name} to be dense, got layout {str(x.layout)}; "
            "convert it with .to_dense()"
        )


def is_plain(x: Any) -> bool:
    """Whether x is in order and nothing to convert: a kernel may read it, once contiguous."""
    return (
        isinstance(x, Tensor)
        and x.dtype is torch.float32
        and x.layout is torch.strided
        and not x.is_neg()
        and not (x.requires_grad and torch.is_grad_enabled())
    )


def _fits(x: Tensor, shape: tuple[int | str, ...], W: BlockSparseMatrix) -> bool:
    """The quick answer to most calls."""
    return (
        x.dim() == len(shape)
        # Whatever a letter stands for comes before the sizes.
        and x.shape[-1] == shape[-1]
        and (len(shape) < 3 or x.shape[1] == shape[1])
        and x.device == W.values.device
    )
