"""The ways to run a layer, and what each of them multiplies, stores and reads per time step."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_rnnprune.layers import GRU, ClippedRNN, Linear
from fairseq_rnnprune.layers.packing import placement
from fairseq_rnnprune.sparse import BlockSparseMatrix, SparseLinear
from fairseq_rnnprune.sparse.cpu_library import has_offsets

from .layers import BenchLayer

VALUES = ("fp32", "bf16", "int16", "int8")
# The first of them is what ratios are over, the fastest what `over_best` is over.
DENSE = ("dense", "dense-bf16", "dense-int8")


@dataclass(frozen=True)
class Cost:
    """What one time step of one sequence takes of the weights; nothing else is counted.

    `multiply_adds`: what is computed, fill-in and padding of blocks included. `stored_bytes`:
    values and indices. `read_bytes`: those that the backend reads in a step.
    """

    multiply_adds: int
    stored_bytes: int
    read_bytes: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.multiply_adds + other.multiply_adds,
            self.stored_bytes + other.stored_bytes,
            self.read_bytes + other.read_bytes,
        )


@dataclass(frozen=True)
class Variant:
    """A way to run a layer: `run` takes x in `dtype` to the output, `runs_on` names backends."""

    name: str
    runs_on: str
    cost: Cost
    run: Callable[[Tensor], Tensor]
    dtype: torch.dtype = torch.float32
    matrices: list[dict[str, Any]] = field(default_factory=list)


def dense_variants(layer: BenchLayer) -> list[Variant]:
    """torch's own layer in float32, bfloat16 and, where torch has it, dynamic int8."""
    module = plain_layer(layer.module)
    elements = sum(weight.numel() for weight in layer.module.weights())
    run = _first if layer.is_recurrent else _only
    found = []
    for name, bytes_each, dtype, prepared in (
        ("dense", 4, torch.float32, module),
        ("dense-bf16", 2, torch.bfloat16, copy.deepcopy(module).bfloat16()),
        ("dense-int8", 1, torch.float32, _quantise(module)),
    ):
        if prepared is not None:
            cost = Cost(elements, bytes_each * elements, bytes_each * elements)
            found.append(Variant(name, "torch", cost, run(prepared), dtype))
    return found


def packed_variants(layer: BenchLayer, values: Sequence[str]) -> list[Variant]:
    """The layer packed as `packed=VALUE` packs it at inference."""
    found = []
    for value in values:
        layer.module.pack(value)
        sparse = layer.module.sparse
        matrices = [part.W for part in sparse.modules() if isinstance(part, SparseLinear)]
        backends = [placement(matrix)[0] for matrix in matrices]
        cost = sum(map(packed_cost, matrices, backends), Cost(0, 0, 0))
        found.append(
            Variant(
                value,
                ", ".join(dict.fromkeys(backends)),
                cost,
                (_first if layer.is_recurrent else _only)(sparse),
                matrices=[_describe(*pair) for pair in zip(matrices, backends, strict=True)],
            )
        )
    layer.module.pack("dense")
    return found


def packed_cost(W: BlockSparseMatrix, backend: str) -> Cost:
    """What a backend makes of a packed matrix."""
    rows, columns = W.shape
    if backend == "torch_csr":
        # It computes with a copy: a float32 and an int32 of each nonzero, an int32 of each row.
        nonzeros = int(W.to_dense().count_nonzero())
        return Cost(nonzeros, W.nbytes, 8 * nonzeros + 4 * (rows + 1))
    if backend == "reference":
        # It computes with a dense copy.
        return Cost(rows * columns, W.nbytes, 4 * rows * columns)
    apart = 0 if W.diagonal is None else W.diagonal.numel()
    offsets = 4 * W.scales.numel() if W.scales is not None and has_offsets(W) else 0
    return Cost(W.values.numel() + apart, W.nbytes, W.nbytes + offsets)


def plain_layer(module: GRU | ClippedRNN | Linear) -> nn.Module:
    """torch's own layer, of the very type that it quantises; its ReLU is not clipped."""
    if isinstance(module, ClippedRNN):
        return module.folded()
    if isinstance(module, GRU):
        found = nn.GRU(
            module.input_size,
            module.hidden_size,
            module.num_layers,
            batch_first=module.batch_first,
            bidirectional=module.bidirectional,
        )
    else:
        found = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    found.load_state_dict(module.state_dict())
    return found.eval()


def _quantise(module: nn.Module) -> nn.Module | None:
    """The module in torch's dynamic int8; None where torch has none: of a ReLU RNN, for one."""
    quantisation = getattr(torch.ao, "quantization", None)
    if isinstance(module, nn.RNN) or torch.backends.quantized.engine == "none":
        return None
    if not hasattr(quantisation, "quantize_dynamic"):
        return None
    # Children are quantised, but never the module itself that is passed.
    return quantisation.quantize_dynamic(nn.Sequential(module), {type(module)})[0]


def _first(module: nn.Module) -> Callable[[Tensor], Tensor]:
    """The outputs alone of a recurrent layer."""
    return lambda x: module(x)[0]


def _only(module: nn.Module) -> Callable[[Tensor], Tensor]:
    return module


def _describe(W: BlockSparseMatrix, backend: str) -> dict[str, Any]:
    return {
        "shape": list(W.shape),
        "block_shape": list(W.block_shape),
        "diagonal_apart": W.diagonal is not None,
        "density": W.density,
        "stored_density": W.stored_density,
        "nbytes": W.nbytes,
        "backend": backend,
    }
