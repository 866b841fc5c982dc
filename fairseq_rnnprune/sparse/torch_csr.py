"""Unstructured sparsity on CPUs with nothing but torch: MKL's CSR product with int32 indices.

Backend for every block shape and dtype, since a CSR copy of the nonzeros in float32 is kept
beside the matrix: the numbers of the packed values, not their bytes.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from .arguments import reasons_off_cpu, without_autocast
from .matrix import BlockSparseMatrix


def unavailable_reasons() -> list[str]:
    """Why no call can run in this process: torch was built without MKL."""
    return [] if torch.backends.mkl.is_available() else ["needs a torch built with MKL"]


def not_supported_reasons(W: BlockSparseMatrix, x: Tensor) -> list[str]:
    """Every reason why this call cannot run."""
    return unavailable_reasons() + reasons_off_cpu(W, x)


@without_autocast
def matmul(W: BlockSparseMatrix, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """float32 x [B, K] times the transpose of W, plus bias [M]: float32 [B, M], contiguous.

    Equivalent to: torch.nn.functional.linear(x, W.to_dense(), bias), for finite x.
    """
    csr = W.derived("torch_csr", lambda: _csr(W))
    if len(x) == 1:
        # MKL's matrix-vector product takes half the time of its matrix-matrix product, B = 1.
        y = csr @ x[0] if bias is None else torch.addmv(bias, csr, x[0])
        return y[None]
    y = (csr @ x.t()).t()
    return (y if bias is None else y + bias).contiguous()


def _csr(W: BlockSparseMatrix) -> Tensor:
    """A float32 CSR copy of W."""
    with warnings.catch_warnings():
        # torch says so once per process, of every layout but this backend's own use of it.
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        csr = W.to_dense().to_sparse_csr()
        # torch makes int64 indices; with int32 the product is 3 to 4 times as fast.
        return torch.sparse_csr_tensor(
            csr.crow_indices().int(),
            csr.col_indices().int(),
            csr.values(),
            size=W.shape,
            device=W.device,
            check_invariants=False,
        )
