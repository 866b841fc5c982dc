"""The block shape in which a pruned weight runs fastest, read from its zeros."""

from __future__ import annotations

import torch
from torch import Tensor

from . import cpu, torch_csr, triton_backend
from .blocks import BlockShape, cut, diagonals, rows_of_panels
from .triton_backend import CONFIGS
from .validation import check_block_shape

SINGLE_ELEMENTS: BlockShape = (1, 1)
# Time of a nonzero in torch's CSR product, of a value in a block of the native kernels 1: from 2.4
# to 10.5 for sizes of 384 to 3584 and batches of 1 to 64 (benchmarks/results/matmul).
CSR_COST = 4.0
# In the same unit, what a step costs a recurrent layer that is not one call of the native kernels.
# So up to about H = 1000, panels that store most of an unstructured mask are faster than CSR
# (benchmarks/results/auto).
CSR_STEP_COST = 800_000
# Those kernels that take activations as integers, too, at a batch of 1: int8 for H = 384 and 656
# (benchmarks/results/native_emerald_rapids), int16 for the same (native_intel).
INTEGER_COSTS = {
    torch.int8: {(16, 4): 0.4, (8, 8): 0.45, (8, 4): 0.55, (4, 4): 0.75},
    torch.int16: {(16, 4): 0.55, (8, 8): 0.65, (8, 4): 0.7, (4, 4): 1.0},
}


def choose_block_shape(
    weight: Tensor,
    gates: int = 1,
    dtype: torch.dtype = torch.float32,
    recurrent: bool | None = None,
) -> BlockShape:
    """The block shape to pack `weight` [M, K] with, from how many values each would store.

    A mask in blocks is found again, with little or no fill-in. On a CPU, unstructured masks get
    (1, 1), for which torch's CSR product is the backend, unless this torch has none or a recurrent
    layer is so small that the native kernels are faster even if they store most of it. On a GPU
    nothing fast runs (1, 1): the best of Triton's shapes is chosen. Of equal shapes the larger one
    is chosen, because it has fewer column indices. `recurrent` says whether a recurrent layer asks;
    None: if it has gates.
    """
    recurrent = gates > 1 if recurrent is None else recurrent
    if weight.is_cuda:
        # No time was measured on a GPU.
        costs = {} if triton_backend.unavailable_reasons() else dict.fromkeys(CONFIGS, 1.0)
    elif weight.device.type != "cpu" or cpu.unavailable_reasons() or dtype not in cpu.DTYPES:
        costs = {}
    else:
        costs = {} if torch_csr.unavailable_reasons() else {SINGLE_ELEMENTS: CSR_COST}
        costs |= dict.fromkeys(cpu.BLOCK_SHAPES, 1.0)
        costs |= INTEGER_COSTS.get(dtype, {})
    fitting = {}
    for (r, c), cost in costs.items():
        if r <= weight.shape[0] // gates and c <= weight.shape[1]:
            is_csr_step = (r, c) == SINGLE_ELEMENTS and recurrent
            fitting[r, c] = cost * _least_stored_values(weight, (r, c), gates)
            fitting[r, c] += CSR_STEP_COST if is_csr_step else 0
    return min(fitting, key=lambda rc: (fitting[rc], -rc[0] * rc[1]), default=SINGLE_ELEMENTS)


def keeps_diagonal(weight: Tensor, block_shape: BlockShape, gates: int = 1) -> bool:
    """Whether a weight [G * H, H] should be stored with its diagonals apart: where that is less.

    Triton has no kernel for it, so not on GPUs. ValueError for blocks that do not fit a gate.
    """
    check_block_shape(tuple(weight.shape), block_shape, gates)
    whole = stored_values(weight, block_shape, gates)
    return _least_stored_values(weight, block_shape, gates) < whole


def _least_stored_values(weight: Tensor, block_shape: BlockShape, gates: int) -> int:
    whole = stored_values(weight, block_shape, gates)
    if weight.shape[0] != gates * weight.shape[1] or weight.device.type != "cpu":
        return whole
    rest = weight.detach().ne(0)
    diagonals(rest, gates).zero_()
    return min(whole, stored_values(rest, block_shape, gates) + weight.shape[0])


def stored_values(weight: Tensor, block_shape: BlockShape, gates: int = 1) -> int:
    """How many values a packed `weight` stores: of every block with a nonzero, all of them."""
    some_panels = rows_of_panels(weight.detach(), block_shape, gates)
    blocks = sum(int(cut(rows.ne(0), block_shape).any(3).any(2).sum()) for rows in some_panels)
    return blocks * block_shape[0] * block_shape[1]
