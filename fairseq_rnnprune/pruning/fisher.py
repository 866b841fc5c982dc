"""What the score `fisher` needs: the mean squares of gradients, which Adam keeps anyway.

The mean of a weight's squared gradients, v, estimates the diagonal of the Fisher information, and
w^2 v what the loss rises by without the weight: Optimal Brain Damage (LeCun, Denker and Solla,
1990, section 2) with the Fisher information in the place of the second derivative.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from .masked_weight import MaskedWeight

# Adam's second moment in the state of torch's and fairseq's optimizers.
_SECOND_MOMENT = "exp_avg_sq"


def second_moments(
    weights: Iterable[MaskedWeight], optimizer_state: Mapping[Tensor, Mapping[str, Any]]
) -> dict[str, Tensor]:
    """Adam's second moment [M, K] of every weight by its name; ValueError if one has none."""
    moments = {}
    for w in weights:
        moment = optimizer_state.get(w.weight, {}).get(_SECOND_MOMENT)
        if moment is None or moment.shape != w.weight.shape:
            raise ValueError(
                f"Pruner: expected the mean squares of the gradients of {w.name} for the score "
                "fisher, as Adam keeps them, got an optimizer without; optimise with adam, or take "
                "max, mean or l2"
            )
        moments[w.name] = moment
    return moments
