"""What is compared: torch's dense and CSR products and GRUs, and packed ones of equal size.

All have normal random weights of one size; a mask is random, in blocks of the format's own shape.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from harness import LIMITS, Candidate, block_mask
from torch import Tensor, nn

from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    SparseGRU,
    matmul,
    reference,
    triton_backend,
)

BlockShape = tuple[int, int]
quantize = torch.ao.quantization.quantize_dynamic
# A batch repeats so many different rows or sequences: float64 need only run these.
DISTINCT = 8
# The first of them is what speed-ups are over, the fastest what `over_best` is over.
DENSE = ("dense", "dense-bf16", "dense-int8")


@dataclass(frozen=True)
class Format:
    """A way to store a pruned weight, and the backend that runs it."""

    name: str
    block_shape: BlockShape
    dtype: torch.dtype
    backend: str

    def limit(self, sparsity: float) -> float:
        """The largest error: LIMITS, at 90 % for int8, whose errors add up over kept columns."""
        columns = max(1.0, (1 - sparsity) / 0.1) if self.dtype == torch.int8 else 1.0
        return LIMITS[self.dtype] * columns**0.5


PACKED = (
    Format("csr-int32", (1, 1), torch.float32, "torch_csr"),
    Format("fp32-16x1", (16, 1), torch.float32, "cpu"),
    Format("fp32-4x4", (4, 4), torch.float32, "cpu"),
    Format("fp32-8x4", (8, 4), torch.float32, "cpu"),
    Format("fp32-8x8", (8, 8), torch.float32, "cpu"),
    Format("bf16-16x1", (16, 1), torch.bfloat16, "cpu"),
    Format("bf16-4x4", (4, 4), torch.bfloat16, "cpu"),
    Format("bf16-8x4", (8, 4), torch.bfloat16, "cpu"),
    Format("bf16-8x8", (8, 8), torch.bfloat16, "cpu"),
    Format("int16-16x4", (16, 4), torch.int16, "cpu"),
    Format("int8-16x4", (16, 4), torch.int8, "cpu"),
    Format("int8-8x8", (8, 8), torch.int8, "cpu"),
    Format("int8-8x4", (8, 4), torch.int8, "cpu"),
    Format("int8-4x4", (4, 4), torch.int8, "cpu"),
)
VALUES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "int8": torch.int8,
}
TRITON = tuple(
    Format(f"{name}-{r}x{c}", (r, c), dtype, "triton")
    for name, dtype in VALUES.items()
    for r, c in triton_backend.CONFIGS
)
FORMATS = {"cpu": PACKED, "cuda": TRITON}


@dataclass(frozen=True)
class Subject:
    """A function of x [..., B, K] and what it gives in float64 for DISTINCT rows of a batch."""

    name: str
    run: Callable[[Tensor], Tensor]
    exact: Tensor
    limit: float
    dtype: torch.dtype = torch.float32
    # Of a packed matrix.
    nbytes: int = 0

    def at(self, x: Tensor, batch: int) -> Candidate:
        """The candidate for a batch of the rows of x [..., DISTINCT, K], in steps [T, B, K] or not.

        The conversion of x to the subject's dtype is not timed.
        """
        rows = torch.arange(batch) % DISTINCT
        x = x.index_select(-2, rows).to(self.dtype)
        exact = self.exact[: len(x)] if x.dim() == 3 else self.exact
        call = lambda: self.run(x)  # noqa: E731
        return Candidate(self.name, call, exact.index_select(-2, rows), self.limit)


def dense_products(weight: Tensor, x: Tensor) -> Iterator[Subject]:
    """torch's products with weight [M, K] in float32, bfloat16 and int8 (dynamic)."""
    # Over a mask like all others, a dense product costs the same: zeros are numbers to it.
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight.copy_(weight)
    exact = nn.functional.linear(x.double(), weight.double())
    narrow = copy.deepcopy(linear).bfloat16()
    yield Subject("dense", linear, exact, LIMITS[torch.float32])
    yield Subject("dense-bf16", narrow, exact, LIMITS[torch.bfloat16], torch.bfloat16)
    if weight.is_cuda:
        # torch's dynamic quantisation is for CPUs only.
        return
    quantised = quantize(nn.Sequential(linear), {nn.Linear})
    # Every weight of it is stored, so its error adds up over more columns.
    yield Subject("dense-int8", quantised, exact, 2 * LIMITS[torch.int8])


def packed_product(weight: Tensor, form: Format, sparsity: float, x: Tensor) -> Subject:
    """The product with weight [3H, H], pruned and packed."""
    masked = weight * block_mask(weight.shape, form.block_shape, sparsity)
    W = BlockSparseMatrix.from_dense(masked, form.block_shape, form.dtype, gates=3)
    run = lambda x: matmul(W, x, backend=form.backend)  # noqa: E731
    exact = reference.matmul(W, x.double())
    return Subject(form.name, run, exact, form.limit(sparsity), nbytes=W.nbytes)


def default_csr_product(weight: Tensor, sparsity: float, x: Tensor) -> Subject:
    """torch's own CSR tensor, whose indices are int64 unless one asks for others."""
    masked = weight * block_mask(weight.shape, (1, 1), sparsity)
    exact, csr = nn.functional.linear(x.double(), masked.double()), masked.to_sparse_csr()

    def run(x: Tensor) -> Tensor:
        return (csr @ x[0])[None] if len(x) == 1 else (csr @ x.t()).t()

    return Subject("csr-int64", run, exact, LIMITS[torch.float32])


def grus(hidden: int, sparsity: float, x: Tensor, formats: Sequence[Format]) -> Iterator[Subject]:
    """GRUs over x [T, DISTINCT, I]: torch's in three precisions, then pruned and packed ones."""
    dense = nn.GRU(x.shape[2], hidden)
    nn.init.normal_(dense.weight_hh_l0, std=hidden**-0.5)
    exact = run_exactly(dense, x)
    narrow = copy.deepcopy(dense).bfloat16()
    yield Subject("dense", lambda x: dense(x)[0], exact, LIMITS[torch.float32])
    # Its states are bfloat16, too, and rounded at every step.
    limit = 2 * LIMITS[torch.bfloat16]
    yield Subject("dense-bf16", lambda x: narrow(x)[0], exact, limit, torch.bfloat16)
    if not x.is_cuda:
        # Children are quantised, but never the module itself that is passed.
        quantised = quantize(nn.Sequential(dense), {nn.GRU})
        yield Subject("dense-int8", lambda x: quantised(x)[0], exact, 2 * LIMITS[torch.int8])
    masked: dict[BlockShape, tuple[nn.GRU, Tensor]] = {}
    for form in formats:
        if form.block_shape not in masked:
            pruned = copy.deepcopy(dense)
            pruned.weight_hh_l0 *= block_mask((3 * hidden, hidden), form.block_shape, sparsity)
            masked[form.block_shape] = pruned, run_exactly(pruned, x)
        pruned, exact = masked[form.block_shape]
        sparse = sparse_gru(pruned, form)
        run = lambda x, sparse=sparse: sparse(x)[0]  # noqa: E731
        yield Subject(form.name, run, exact, form.limit(sparsity))


def run_exactly(gru: nn.GRU, x: Tensor) -> Tensor:
    return copy.deepcopy(gru).double()(x.double())[0]


def sparse_gru(gru: nn.GRU, form: Format) -> SparseGRU:
    """The GRU packed; its input weight in blocks of 16 x 1, since it may have a single column."""

    def shape(weight: Tensor, gates: int) -> BlockShape:
        return (16, 1) if weight is gru.weight_ih_l0 else form.block_shape

    sparse = SparseGRU.from_dense(gru, shape, form.dtype, form.backend)
    sparse.layers[0][0].input.backend = None
    return sparse
