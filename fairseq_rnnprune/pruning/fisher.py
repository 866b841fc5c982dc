"""What a weight is worth by its gradients: Adam's second moment, which is there anyway.

The mean of a weight's squared gradients, v, estimates the diagonal of the Fisher information, and
w^2 v what the loss rises by without the weight: Optimal Brain Damage (LeCun, Denker and Solla,
1990, section 2) with the Fisher information in the place of the second derivative. |w| v^0.5 has
the same order. A power of 0.25 lies half way between that and the magnitude alone.

Adam's gradients are means over a batch, clipped. So v is proportional to the Fisher information
only where what differs from batch to batch outweighs what is common to all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .masked_weight import MaskedWeight

# Adam's second moment in the state of torch's and fairseq's optimizers, and what it is to be
# multiplied with where apex keeps it in half precision.
_SECOND_MOMENT, _SCALE = "exp_avg_sq", "exp_avg_sq_scale"
# Updates after which Adam's v, which begins at 0, is about what it will be (betas of 0.999).
_ENOUGH = 1000


def check_power(power: float, score: str, has_ramp: bool) -> None:
    """Raises ValueError for a power of v that is out of range, or that nothing would come of."""
    if not 0 <= power <= 1:
        raise ValueError(f"Pruner: expected a fisher_power in [0, 1], got {power}")
    if power and (score == "random" or has_ramp):
        got = "random scores" if score == "random" else "a ramp, whose threshold is a |weight|"
        raise ValueError(
            f"Pruner: expected a fisher_power of 0 with {got}, got {power}; leave it out, or take "
            "magnitudes and a schedule with targets such as cubic"
        )


def fisher_factors(
    weights: Iterable[MaskedWeight],
    optimizer_state: Mapping[Tensor, Mapping[str, Any]],
    power: float,
) -> dict[str, Tensor]:
    """v ** power [M, K] of every weight by its name; ValueError if the optimizer keeps no v.

    A matrix that has had no gradient so far, or few beside the others, such as one that was frozen
    for a while, gets the mean of all others: nothing is known of it but magnitudes.
    """
    known, unknown = {}, []
    weights = list(weights)
    most = max((_updates(optimizer_state.get(w.weight, {})) for w in weights), default=0)
    keeps_moments = any(_SECOND_MOMENT in state for state in optimizer_state.values())
    for w in weights:
        state = optimizer_state.get(w.weight, {})
        moment = state.get(_SECOND_MOMENT)
        if moment is None and (state or not keeps_moments) or _is_other(moment, w):
            raise ValueError(
                f"Pruner: expected the mean squares of the gradients of {w.name} for a "
                f"fisher_power of {power}, as Adam keeps them, got an optimizer without; optimise "
                "with adam, or leave fisher_power at 0"
            )
        is_young = _updates(state) < min(_ENOUGH, most / 2)
        if moment is None or is_young or not moment.any():
            unknown.append(w)
        else:
            v = moment.float() * state[_SCALE] if _SCALE in state else moment
            known[w.name] = v.pow(power)
    if not unknown:
        return known
    # Moments of what is pruned are zeros.
    count = sum(w.kept for w in weights if w.name in known)
    mean = sum(float(factor.sum()) for factor in known.values()) / count if count else 1.0
    return known | {w.name: torch.full_like(w.weight, mean) for w in unknown}


def _updates(state: Mapping[str, Any]) -> float:
    """How many gradients are in a weight's moments; many where the optimizer does not say."""
    return float(state.get("step", math.inf if state else 0))


def _is_other(moment: Tensor | None, w: MaskedWeight) -> bool:
    return moment is not None and moment.shape != w.weight.shape
