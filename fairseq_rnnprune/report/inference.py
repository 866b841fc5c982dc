"""How the layers of a checkpoint would run on this machine: packed or dense, where and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from fairseq_rnnprune.layers import explain_packing, reason_without_packed_form
from fairseq_rnnprune.pruning import Prunable, last_name

# An embedding is looked up, not multiplied with: it stays dense.
PACKED_TYPES = ("recurrent", "input", "linear")


def explain_inference(model: Mapping[str, Tensor], prunables: Iterable[Prunable]) -> dict[str, str]:
    """By layer with prunable weights, what it would log when packed with the option auto."""
    layers: dict[str, list[Prunable]] = {}
    for p in prunables:
        if p.type in PACKED_TYPES:
            name = last_name(p.name, model) if p.type == "linear" else p.name
            layers.setdefault(name.rpartition(".")[0], []).append(p)
    found = {}
    for layer, members in layers.items():
        weights = [model[p.name].float() for p in members]
        first = members[0]
        recurrent = first.type in ("recurrent", "input")
        prefix = f"{layer}." if layer else ""
        names = [name.removeprefix(prefix) for name in model if name.startswith(prefix)]
        if recurrent and (reason := reason_without_packed_form(first.gates, names)):
            found[layer] = f"stays dense, {reason}"
        else:
            found[layer] = explain_packing(weights, first.gates, recurrent)[1]
    return found
