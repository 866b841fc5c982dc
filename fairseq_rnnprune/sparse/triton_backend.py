"""Triton kernels on GPUs that torch calls cuda, AMD's among them: launchers, and when they can run.

Values of any dtype are widened and multiplied in float32. Written for
few activations at a time, as in generation; no time was measured on a GPU. A call on contiguous
float32 tensors, after one with the same matrix and as many rows of activations, 1 or more than 1,
waits for nothing and allocates only its result; so it can be captured in a CUDA graph.

With TRITON_INTERPRET=1 in the environment Triton interprets its kernels, slowly, and this backend
takes tensors on the CPU, too, if it is asked for by name.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .matrix import BlockShape, BlockSparseMatrix


@dataclass(frozen=True)
class Config:
    """How a kernel works on panels of one block shape; both numbers are powers of 2."""

    blocks: int
    warps: int

    @property
    def options(self) -> dict[str, Any]:
        """The compiler's; triton 3.9 warns unless it is told whether to fuse a * b + c."""
        return {"num_warps": self.warps, "enable_fp_fusion": True}


# benchmarks/triton_resources.py compiles every entry: with triton 3.7.1, the one of torch 2.13,
# nothing spills. GRU steps with other numbers did, 8 bytes on sm_80: 16 x 1 with 32 blocks, 16 x 16
# with 2, 32 x 32 with 8 warps.
CONFIGS: dict[BlockShape, Config] = {
    (16, 1): Config(blocks=64, warps=8),
    (16, 4): Config(blocks=8, warps=4),
    (8, 8): Config(blocks=8, warps=4),
    (16, 16): Config(blocks=4, warps=8),
    (32, 32): Config(blocks=1, warps=4),
}
# Rows of activations that a program multiplies with every value it reads: one, or up to 8.
BATCH_TILES = (1, 8)
OLDEST_TRITON = (3, 7)


def unavailable_reasons() -> list[str]:
    """Why no call can run in this process: no Triton, an old one, or no GPU."""
    if not _is_installed():
        return ["needs triton, which is not installed"]
    if not (_is_interpreted() or torch.cuda.is_available()):
        return ["needs a GPU, and torch finds none"]
    return _driver_reasons()


def not_supported_reasons(W: BlockSparseMatrix, x: Tensor) -> list[str]:
    """Every reason why this call cannot run."""
    # A tensor on a GPU proves that there is one; asking torch takes longer than that.
    on_gpu = x.is_cuda and _is_installed()
    reasons = _driver_reasons() if on_gpu else unavailable_reasons()
    on_cpu = x.device.type == "cpu" and _is_installed() and _is_interpreted()
    if not (x.is_cuda or on_cpu):
        reasons.append(f"runs on GPUs that torch calls cuda, not on {x.device}")
    if W.block_shape not in CONFIGS:
        shapes = ", ".join(f"{r} x {c}" for r, c in CONFIGS)
        reasons.append(
            f"has kernels for blocks of {shapes}, not {'{} x {}'.format(*W.block_shape)}"
        )
    if W.diagonal is not None:
        reasons.append("has no kernel for a diagonal stored apart")
    return reasons


def matmul(W: BlockSparseMatrix, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """float32 x [B, K] times the transpose of W, plus bias [M]: float32 [B, M], contiguous."""
    y = torch.empty(len(x), W.shape[0], dtype=torch.float32, device=x.device)
    launch_matmul(W, x.contiguous(), None if bias is None else bias.contiguous(), y)
    return y


def gru_sequence(
    W: BlockSparseMatrix, gates_x: Tensor, h: Tensor, bias: Tensor | None = None
) -> Tensor:
    """As `reference.gru_sequence`, with one launch per step; float32 throughout."""
    states = torch.empty(len(gates_x), *h.shape, dtype=torch.float32, device=h.device)
    gates_x, h = gates_x.contiguous(), h.contiguous()
    bias = None if bias is None else bias.contiguous()
    for gates, out in zip(gates_x.unbind(0), states.unbind(0), strict=True):
        launch_gru_step(W, gates, h, bias, out)
        h = out
    return states


def launch_matmul(W: BlockSparseMatrix, x: Tensor, bias: Tensor | None, out: Tensor) -> None:
    """Writes x [B, K] times the transpose of W, plus bias [M], into out [B, M].

    All are float32 and contiguous on W's device. Nothing is allocated and nothing waited for,
    except in the first call with W, which checks the matrix, and to compile for one or several rows
    of x, for sizes that are multiples of 16 or not.
    """
    rows, columns = W.shape
    sizes = {"B": len(x), "M": rows, "K": columns, "gates": W.gates}
    _launch("matmul", W, W.grid[0], x=x, bias=bias, out=out, **sizes)


def launch_gru_step(
    W: BlockSparseMatrix, gates_x: Tensor, h: Tensor, bias: Tensor | None, out: Tensor
) -> None:
    """Writes the state after h [B, H] into out [B, H], another tensor; see `launch_matmul`.

    W [3H, H] and bias [3H] are recurrent, gates_x [B, 3H] is the input's part of the gates.
    ValueError if out is h, which other programs still read.
    """
    if len(h) and out.data_ptr() == h.data_ptr():
        raise ValueError("launch_gru_step: expected out in other memory than h, got the same")
    sizes = {"B": len(h), "H": h.shape[1]}
    _launch("gru_step", W, W.grid[0] // 3, gates_x=gates_x, h=h, bias=bias, out=out, **sizes)


def _launch(kernel: str, W: BlockSparseMatrix, panels: int, **arguments: Any) -> None:
    """One program per panel and tile of the batch."""
    batch = BATCH_TILES[0] if arguments["B"] == 1 else BATCH_TILES[-1]
    programs = panels * -(-arguments["B"] // batch)
    if programs:
        prepared = W.derived("triton", lambda: _prepare(W))
        # Triton launches on torch's current device, whatever the tensors' device is.
        with torch.cuda.device_of(W.values):
            getattr(_kernels(), kernel)[programs,](**arguments, **prepared, BATCH=batch)


def _prepare(W: BlockSparseMatrix) -> dict[str, Any]:
    """A launch's arguments that only depend on the matrix."""
    config, (r, c) = CONFIGS[W.block_shape], W.block_shape
    arrays = dict(zip(("pointers", "columns", "values", "scales"), W.arrays[:4], strict=True))
    return {**arrays, "R": r, "C": c, "BLOCKS": config.blocks, **config.options}


@cache
def _kernels() -> ModuleType:
    """The kernels; importing Triton takes a second, so it is done at the first use only."""
    from . import triton_kernels

    return triton_kernels


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


def _is_interpreted() -> bool:
    """Whether Triton interprets the kernels; they are not imported for no as an answer."""
    return bool(os.environ.get("TRITON_INTERPRET")) and _kernels().INTERPRETED


def _driver_reasons() -> list[str]:
    """Why the Triton that is installed cannot run."""
    return list(_version_reasons() or (() if _is_interpreted() else _start_reasons()))


@cache
def _version_reasons() -> tuple[str, ...]:
    version = _kernels().VERSION
    if tuple(map(int, version.split(".")[:2])) >= OLDEST_TRITON:
        return ()
    oldest = ".".join(map(str, OLDEST_TRITON))
    return (f"needs triton {oldest} or newer, not {version}",)


@cache
def _start_reasons() -> tuple[str, ...]:
    """Why Triton cannot drive the GPU: at first use it compiles C, in images without a compiler."""
    try:
        _kernels().start()
    # A compiler, a driver or a library can be missing in any way there is.
    except Exception as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return (f"cannot start Triton ({line})",)
    return ()
