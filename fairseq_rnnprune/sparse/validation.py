"""What may be packed, and what a packed matrix must hold so that kernels may trust its arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .matrix import BlockSparseMatrix

WEIGHT_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
VALUE_DTYPES = (*WEIGHT_DTYPES, torch.int16, torch.int8)
# Beside int16 activations have so many levels on either side of 0 (csrc/integers.h); times these,
# the sum of a row's values fits 32 bits.
INT16_LEVELS = 4095
MAX_INT16_ROW = (2**31 - 1) // INT16_LEVELS

# Pointers are int32.
MAX_ELEMENTS = 2**31 - 1


def column_dtype(block_columns: int) -> torch.dtype:
    """The narrowest unsigned dtype for indices of that many block columns."""
    return torch.uint16 if block_columns <= 2**16 else torch.uint32


def check_weight(weight: Any, dtype: torch.dtype) -> None:
    """Raises TypeError or ValueError unless `weight` is a finite matrix and `dtype` can hold it."""
    where = "BlockSparseMatrix.from_dense"
    if not isinstance(weight, Tensor):
        raise TypeError(
            f"{where}: expected weight to be a tensor, got {type(weight).__name__}; "
            "convert it with torch.as_tensor"
        )
    if dtype not in VALUE_DTYPES:
        raise ValueError(
            f"{where}: expected dtype in {names(VALUE_DTYPES)}, got {dtype!r}; give a torch.dtype"
        )
    if weight.dtype not in WEIGHT_DTYPES:
        raise ValueError(
            f"{where}: expected weight in {names(WEIGHT_DTYPES)}, got {weight.dtype}; "
            "convert it with .float()"
        )
    if weight.dim() != 2:
        raise ValueError(
            f"{where}: expected weight [M, K], got {weight.dim()} dimensions; pack each matrix"
        )
    if weight.numel() > MAX_ELEMENTS:
        raise ValueError(
            f"{where}: expected at most {MAX_ELEMENTS:,} elements, got {weight.numel():,}; "
            "split the matrix by rows"
        )
    # Some rows at a time, for isfinite makes copies.
    if not all(rows.isfinite().all() for rows in weight.split(256)):
        raise ValueError(
            f"{where}: expected finite weights, got NaN or inf; "
            "the training diverged, take an earlier checkpoint"
        )


def check_values_finite(values: Tensor) -> None:
    """Raises ValueError if finite weights overflowed on their way to a narrower dtype."""
    if not values.isfinite().all():
        raise ValueError(
            f"BlockSparseMatrix.from_dense: expected weights within the range of {values.dtype}, "
            f"+-{torch.finfo(values.dtype).max:.4g}, got larger ones; pack as torch.float32"
        )


def check_block_shape(shape: tuple[int, int], block_shape: Any, gates: int) -> None:
    """Raises ValueError unless `gates` divides the rows and a block fits into one gate."""
    is_pair = isinstance(shape, tuple) and len(shape) == 2
    if not is_pair or not all(isinstance(size, int) for size in shape):
        raise ValueError(
            f"BlockSparseMatrix: expected a shape (rows, columns) of two ints, got {shape!r}"
        )
    if not isinstance(gates, int) or gates < 1 or shape[0] % gates:
        raise ValueError(
            f"BlockSparseMatrix: expected gates that divide the {shape[0]} rows, got {gates!r}; "
            "a GRU has 3, a plain matrix 1"
        )
    rows, columns = shape[0] // gates, shape[1]
    fits = (
        isinstance(block_shape, (tuple, list))
        and len(block_shape) == 2
        and all(isinstance(size, int) for size in block_shape)
        and 1 <= block_shape[0] <= rows
        and 1 <= block_shape[1] <= columns
    )
    if not fits:
        raise ValueError(
            f"BlockSparseMatrix: expected block_shape (rows, columns) from (1, 1) to "
            f"({rows}, {columns}), one gate, got {block_shape!r}; choose a smaller block"
        )


def check_has_diagonal(shape: tuple[int, int], gates: int) -> None:
    """Raises ValueError unless every gate is square."""
    if shape[0] != gates * shape[1]:
        raise ValueError(
            f"BlockSparseMatrix: expected square gates for a diagonal stored apart, got {gates} in "
            f"{list(shape)}; only recurrent weights have them"
        )


def check_state(state: Any, numbers: tuple[str, ...], arrays: tuple[str, ...]) -> None:
    """Raises ValueError for anything else than a dict of these numbers, and arrays or None."""
    has_names = isinstance(state, dict) and state.keys() == {*numbers, *arrays}
    if not has_names or not all(isinstance(state[n], Tensor | None) for n in arrays):
        raise ValueError(
            f"BlockSparseMatrix: expected a state of {', '.join((*numbers, *arrays))}, got "
            f"{', '.join(map(str, state)) if isinstance(state, dict) else type(state).__name__}"
        )


def check_arrays(matrix: BlockSparseMatrix) -> None:
    """Raises ValueError at the first rule of BlockSparseMatrix's layout that is broken."""
    check_block_shape(matrix.shape, matrix.block_shape, matrix.gates)
    pointers, columns, values, scales, diagonal = matrix.arrays
    for name, array in (("pointers", pointers), ("columns", columns), ("values", values)):
        _expect(isinstance(array, Tensor), f"{name} as a tensor", type(array).__name__)
    panels, block_columns = matrix.grid
    blocks = columns.numel()
    _expect(values.dtype in VALUE_DTYPES, f"values in {names(VALUE_DTYPES)}", values.dtype)
    _expect_array("pointers", pointers, torch.int32, (panels + 1,), values.device)
    _expect_array("columns", columns, column_dtype(block_columns), (blocks,), values.device)
    _expect_array("values", values, values.dtype, (blocks, *matrix.block_shape), values.device)

    ends = (int(pointers[0]), int(pointers[-1]))
    _expect(bool((pointers.diff() >= 0).all()), "pointers that never fall", pointers.tolist())
    _expect(ends == (0, blocks), f"pointers from 0 to {blocks}", f"{ends[0]} to {ends[1]}")
    index = columns.long()
    highest = int(index.max()) if blocks else -1
    _expect(highest < block_columns, f"columns below {block_columns}", highest)
    position = matrix.panel_of_block * block_columns + index
    _expect(bool((position.diff() > 0).all()), "ascending columns in each panel", "another order")

    _expect(bool(values.isfinite().all()), "finite values", "NaN or inf")
    if values.dtype == torch.int8:
        # -128 has no opposite: AVX2 moves the signs of activations to the weights.
        _expect(not bool((values == -128).any()), "values from -127 to 127", -128)
    padding = bool(values[_outside(matrix)].any())
    _expect(not padding, "zeros where a block leaves the matrix", "others")
    is_integer = not values.dtype.is_floating_point
    has_scales = scales is not None
    _expect(is_integer == has_scales, "scales with integers, and only then", values.dtype)
    if values.dtype == torch.int16:
        rows = values.int().abs().sum(2)
        sums = rows.new_zeros(panels, matrix.block_shape[0])
        largest = int(sums.index_add_(0, matrix.panel_of_block, rows).max())
        _expect(largest <= MAX_INT16_ROW, f"rows that add up to {MAX_INT16_ROW:,} at most", largest)
    if scales is not None:
        shape = (panels, matrix.block_shape[0])
        _expect_array("scales", scales, torch.float32, shape, values.device)
        valid = bool((scales.isfinite() & (scales > 0)).all())
        _expect(valid, "finite scales above 0", scales.min().item())
    if diagonal is not None:
        check_has_diagonal(matrix.shape, matrix.gates)
        _expect_array("diagonal", diagonal, torch.float32, matrix.shape[:1], values.device)
        _expect(bool(diagonal.isfinite().all()), "a finite diagonal", "NaN or inf")


def _outside(matrix: BlockSparseMatrix) -> Tensor:
    """Bool [blocks, r, c]: the elements that are padding."""
    (rows, columns), (r, c) = matrix.shape, matrix.block_shape
    panels, block_columns = matrix.grid
    gate_rows = torch.arange(panels // matrix.gates * r, device=matrix.device)
    below = (gate_rows >= rows // matrix.gates).view(-1, r).repeat(matrix.gates, 1)
    beyond = (torch.arange(block_columns * c, device=matrix.device) >= columns).view(-1, c)
    return below[matrix.panel_of_block][:, :, None] | beyond[matrix.columns.long()][:, None, :]


def _expect_array(
    name: str, array: Tensor, dtype: torch.dtype, shape: tuple[int, ...], device: torch.device
) -> None:
    _expect(array.dtype == dtype, f"{name} in {names((dtype,))}", array.dtype)
    _expect(array.shape == shape, f"{name} of shape {list(shape)}", list(array.shape))
    _expect(array.is_contiguous(), f"contiguous {name}", f"strides {array.stride()}")
    _expect(not array.is_neg(), f"{name} in memory as they are", "a view of their negatives")
    _expect(array.device == device, f"{name} on {device} like the values", array.device)


def _expect(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(
            f"BlockSparseMatrix: expected {rule}, got {value}; "
            "the arrays are damaged, pack the weight again"
        )


def names(dtypes: tuple[torch.dtype, ...]) -> str:
    """Dtypes as a reader writes them: float32, int8."""
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
