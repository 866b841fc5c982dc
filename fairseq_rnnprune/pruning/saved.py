"""Whether saved masks are those of the weights that a run goes on with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from .masked_weight import MaskedWeight

logger = logging.getLogger(__name__)


def check_saved(
    state: Mapping[str, Any], weights: Sequence[MaskedWeight], keeps_diagonal: bool
) -> None:
    """Raises ValueError if `Pruner.state_dict()` is of other weights or block shapes."""
    ours = {w.name for w in weights}
    if ours != set(state["masks"]):
        raise ValueError(
            "Pruner.load_state_dict: expected the masks of the same weights, got differences "
            f"in {sorted(ours ^ set(state['masks']))}; keep --prune-types, or give "
            "--reset-optimizer to rebuild the masks of its types from their zeros"
        )
    # A checkpoint from before the option has no entry: it kept none.
    if state.get("keep_diagonal", False) != keeps_diagonal:
        raise ValueError(
            "Pruner.load_state_dict: expected diagonals "
            f"{'pruned' if keeps_diagonal else 'kept'} as in the checkpoint, got the "
            "opposite; use --prune-keep-diagonal as before, or give --reset-optimizer to "
            "rebuild the masks from the zeros"
        )
    for w in weights:
        size = tuple(state["masks"][w.name].shape)
        saved = tuple(state["block_shape"][w.type])
        if saved == w.block_shape and size != tuple(w.block_mask.shape):
            raise ValueError(
                f"Pruner.load_state_dict: expected masks of {w.name} of "
                f"{tuple(w.block_mask.shape)} blocks, got {size}: they are of a model of another "
                "size"
            )
        if saved != w.block_shape:
            raise ValueError(
                f"Pruner.load_state_dict: expected block shape {saved} for {w.type} weights "
                f"as in the checkpoint, got {w.block_shape}; keep --prune-block-shape, or give "
                "--reset-optimizer to rebuild the masks from the zeros"
            )


def warn_of_other_choice(state: Mapping[str, Any], choice: Mapping[str, Any]) -> None:
    """Warns where `Pruner.choice`, by which blocks are chosen, differs from that of the state.

    Unlike what `check_saved` refuses this can be meant. An older state does not say what it was;
    for long nothing but magnitudes counted.
    """
    if "choice" not in state:
        if power := choice["fisher_power"]:
            logger.warning(
                "the checkpoint does not say by what its masks were chosen, from here on "
                f"--prune-fisher-power {power} counts; if it was magnitude, give 0"
            )
        return
    for name, before in state["choice"].items():
        if before != choice[name]:
            option = f"--prune-{name.replace('_', '-')}"
            logger.warning(
                f"masks were made with {option} {before} so far, from here on {choice[name]} "
                f"counts; to go on as before give {option} {before}"
            )
