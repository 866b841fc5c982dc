"""The layers of a checkpoint that can run packed, rebuilt from the names of its tensors alone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_rnnprune.layers import GRU, ClippedRNN, Linear, reason_without_packed_form
from fairseq_rnnprune.pruning import Prunable, find_prunable, last_name


@dataclass(frozen=True)
class BenchLayer:
    """A layer with the weights of the checkpoint, in float32, on the CPU, in eval mode.

    A recurrent one has all its layers and directions, which packed inference runs in one call.
    """

    name: str
    kind: str
    module: GRU | ClippedRNN | Linear

    @property
    def is_recurrent(self) -> bool:
        """Whether it runs over sequences x [B, T, I]; a linear layer is given x [B, I]."""
        return self.module.is_recurrent

    @property
    def input_size(self) -> int:
        """I of its input."""
        return self.module.input_size if self.is_recurrent else self.module.in_features


def find_layers(model: Mapping[str, Tensor]) -> tuple[list[BenchLayer], dict[str, str]]:
    """Recurrent layers, then linear ones; and by name, why others are left out.

    GRUs and the clipped-ReLU RNNs of `rnnprune_deepspeech2`, by torch's names of their tensors. A
    GRUCell is a GRU of one layer. Embeddings are looked up, not multiplied with.
    """
    prunables = find_prunable(model)
    found: list[BenchLayer] = []
    left_out: dict[str, str] = {}
    modules: dict[str, list[Prunable]] = {}
    for p in prunables:
        if p.type in ("recurrent", "input"):
            modules.setdefault(p.name.rpartition("weight_")[0], []).append(p)
    for prefix, members in modules.items():
        name = prefix.rstrip(".") or "model"
        built = _recurrent(name, prefix, members[0].gates, model)
        if isinstance(built, str):
            left_out[name] = built
        else:
            found.append(built)
    for p in prunables:
        if p.type == "linear":
            name = last_name(p.name, model).removesuffix(".weight")
            found.append(_linear(name, model[p.name], model.get(f"{name}.bias")))
    return found, left_out


def _recurrent(name: str, prefix: str, gates: int, model: Mapping[str, Tensor]) -> BenchLayer | str:
    """The layer whose tensors have this prefix, or why there is none."""
    tensors = {
        _torch_name(full.removeprefix(prefix)): tensor.float()
        for full, tensor in model.items()
        if full.startswith((f"{prefix}weight_", f"{prefix}bias_", f"{prefix}norms."))
    }
    if not {"weight_ih_l0", "weight_hh_l0"} <= set(tensors):
        return "has no first layer"
    if reason := reason_without_packed_form(gates, tensors):
        return reason
    layers = 1 + max(int(number) for number in re.findall(r"weight_hh_l(\d+)", " ".join(tensors)))
    both = "weight_hh_l0_reverse" in tensors
    input_size, hidden = (tensors[f"weight_{kind}_l0"].shape[1] for kind in ("ih", "hh"))
    sizes = {"num_layers": layers, "bidirectional": both}
    if gates == 1:
        kind, module = "clipped RNN", ClippedRNN(input_size, hidden, **sizes)
    else:
        kind, module = "GRU", GRU(input_size, hidden, batch_first=True, **sizes)
        # torch quantises no GRU without biases; adding zeros costs next to nothing.
        biases = {key: p for key, p in module.named_parameters() if p.dim() == 1}
        tensors = {key: torch.zeros_like(p) for key, p in biases.items()} | tensors
    try:
        module.load_state_dict(tensors)
    except RuntimeError:
        return f"has tensors that do not make up a {kind} of {layers} layers"
    text = f"{kind} {input_size} to {hidden}"
    text += f", {layers} layers" if layers > 1 else ""
    return BenchLayer(name, text + (", both ways" if both else ""), module.eval())


def _linear(name: str, weight: Tensor, bias: Tensor | None) -> BenchLayer:
    rows, columns = weight.shape
    has_bias = bias is not None and bias.shape == (rows,)
    module = Linear(columns, rows, bias=has_bias)
    tensors = {"weight": weight.float()} | ({"bias": bias.float()} if has_bias else {})
    module.load_state_dict(tensors)
    return BenchLayer(name, f"linear {columns} to {rows}", module.eval())


def _torch_name(name: str) -> str:
    """A tensor's name in a GRU of several layers: a GRUCell's has no number."""
    return f"{name}_l0" if re.fullmatch(r"(weight|bias)_(ih|hh)", name) else name
