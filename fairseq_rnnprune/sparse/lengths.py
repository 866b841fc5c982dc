"""What the lengths of a padded batch must be."""

from __future__ import annotations

from torch import Tensor


def check_lengths(lengths: Tensor, batch: int, steps: int, owner: str) -> None:
    """ValueError unless `lengths` are integers [batch] from 1 to `steps`; `owner` asks."""
    if not isinstance(lengths, Tensor):
        raise TypeError(
            f"{owner}: expected lengths to be a tensor, got {type(lengths).__name__}; "
            "convert them with torch.as_tensor"
        )
    is_integer = not (lengths.is_floating_point() or lengths.is_complex())
    if lengths.shape != (batch,) or not is_integer:
        raise ValueError(
            f"{owner}: expected integer lengths [{batch}], one for each sequence, "
            f"got {list(lengths.shape)} of {lengths.dtype}"
        )
    if batch and not 1 <= int(lengths.min()) <= int(lengths.max()) <= steps:
        raise ValueError(
            f"{owner}: expected lengths from 1 to the {steps} steps of the input, "
            f"got {lengths.tolist()}"
        )
