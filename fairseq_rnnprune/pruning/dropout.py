"""Dropout that becomes less with the weights that are left."""

from __future__ import annotations

import math

from torch import nn


class FollowingDropout:
    """Every dropout rate of a model, times density ** power.

    A network with fewer connections overfits less, so a rate that suits the dense one is too high
    for the pruned one; a power of 0.5 is the rule of Han et al. (arXiv 1506.02626, section 3.2),
    who apply it to each layer by its own density; here all have the density of the whole model.
    Rates are those of dropout modules (`p`) and of recurrent layers (`dropout`) as they are when
    this is made, so make it before training. ValueError for a power that is negative or no number.
    """

    def __init__(self, model: nn.Module, power: float):
        if not (power >= 0 and math.isfinite(power)):
            raise ValueError(f"expected a power that is 0 or more, got {power}")
        self.power = power
        self.rates = [
            (module, attribute, rate)
            for module in model.modules()
            for attribute in ("p", "dropout")
            if (rate := _rate(module, attribute)) > 0
        ]

    def follow(self, density: float) -> None:
        """Sets every rate to what it is at a density in [0, 1]."""
        for module, attribute, rate in self.rates:
            setattr(module, attribute, rate * density**self.power)


def _rate(module: nn.Module, attribute: str) -> float:
    """The dropout rate that a module has under this name; 0 for none."""
    # By the name of its class: fairseq has a dropout module of its own.
    if attribute == "p" and "Dropout" not in type(module).__name__:
        return 0.0
    rate = getattr(module, attribute, 0.0)
    return rate if isinstance(rate, float) else 0.0
