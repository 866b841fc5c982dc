"""L1 and group lasso as proximal steps: they follow an update and shrink weights towards zero."""

from __future__ import annotations

import torch

from .mask import expand_mask
from .masked_weight import MaskedWeight

PENALTIES = ("l1", "group-lasso")


@torch.no_grad()
def shrink(w: MaskedWeight, penalty: str, amount: float) -> None:
    """Takes `amount` from every |weight| (l1) or from the root mean square of every block.

    That of group-lasso is the proximal operator of lambda_g times the sum of the blocks' L2 norms,
    each times the root of its size (arXiv 1711.02782, section 3.2; the factor makes one strength
    fit all shapes), for amount = learning rate times lambda_g; with blocks of one element it is l1,
    soft thresholding. What would fall below zero becomes zero; masks do not change. A diagonal that
    is kept is not shrunk.
    """
    if penalty not in PENALTIES:
        raise ValueError(f"shrink: expected a penalty among {PENALTIES}, got {penalty!r}")
    block_shape = (1, 1) if penalty == "l1" else w.block_shape
    size = w.weight.abs() if penalty == "l1" else w.magnitudes("l2")
    # A block of zeros stays one: 0 / 0 must not make it nan.
    factor = (1 - amount / size.clamp(min=torch.finfo(size.dtype).tiny)).clamp(min=0)
    factor = expand_mask(factor, tuple(w.weight.shape), block_shape, w.gates)
    w.weight.mul_(factor if w.diagonal is None else factor.masked_fill(w.diagonal, 1.0))
