"""How far a packed result may be from float64 arithmetic on the weights before packing."""

import torch
from torch import Tensor

# Largest error / root mean square of the exact result, by dtype of the packed values: rounding of
# the weights (float32: of the arithmetic) with a margin of 2 to 4 over what these tests measure.
TOLERANCES = {
    torch.float32: 5e-6,
    torch.float16: 4e-3,
    torch.bfloat16: 3e-2,
    torch.int16: 4e-3,
    torch.int8: 8e-2,
}
# The gates of kernels that take activations as integers: the promise of csrc/recurrent.h.
COARSE_GATES = 1e-4


def relative_error(actual: Tensor, exact: Tensor) -> float:
    """Largest error over the root mean square of the exact result, which is float64."""
    assert exact.dtype == torch.float64
    assert actual.shape == exact.shape
    error = (actual.double() - exact).abs().max()
    return float(error / exact.square().mean().sqrt().clamp(min=1e-30))


def assert_close(
    actual: Tensor,
    exact: Tensor,
    dtype: torch.dtype = torch.float32,
    tolerance: float | None = None,
) -> None:
    """Fails unless `actual` is as near as it must be with values of `dtype`, or in `tolerance`."""
    error, limit = relative_error(actual, exact), tolerance or TOLERANCES[dtype]
    assert error <= limit, f"error {error:.2e} beyond {limit:.0e}"
