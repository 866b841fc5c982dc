"""What a weight is worth by its gradients: Adam's second moment, which is there anyway.

The mean of a weight's squared gradients, v, estimates the diagonal of the Fisher information, and
w^2 v what the loss rises by without the weight: Optimal Brain Damage (LeCun, Denker and Solla,
1990, section 2) with the Fisher information in the place of the second derivative. |w| v^0.5 has
the same order. A power of 0.25 lies half way between that and the magnitude alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from .masked_weight import MaskedWeight

# Adam's second moment in the state of torch's and fairseq's optimizers, and what it is to be
# multiplied with where apex keeps it in half precision.
_SECOND_MOMENT, _SCALE = "exp_avg_sq", "exp_avg_sq_scale"


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

    A matrix that has had no gradient so far, such as one that is frozen for a while, gets the mean
    of all others' v: nothing is known of it but magnitudes.
    """
    known, unknown = {}, []
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
        if moment is None or not moment.any():
            unknown.append(w)
        else:
            known[w.name] = moment.float() * state[_SCALE] if _SCALE in state else moment
    count = sum(v.numel() for v in known.values())
    mean = sum(float(v.sum()) for v in known.values()) / count if count else 1.0
    factors = {name: v.pow(power) for name, v in known.items()}
    return factors | {w.name: torch.full_like(w.weight, mean**power) for w in unknown}


def _is_other(moment: Tensor | None, w: MaskedWeight) -> bool:
    return moment is not None and moment.shape != w.weight.shape
