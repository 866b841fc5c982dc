"""Layers packed as `auto` would pack them, against dense ones: what its limits rest on.

    OMP_NUM_THREADS=1 python benchmarks/auto.py

GRUs and linear layers of several sizes, pruned element by element and in blocks of 4 x 4, at small
and large batches: speed-up over torch's layer with the same weights, for the block shape that
`choose_block_shape` finds and for torch's CSR.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from harness import LIMITS, RESULTS, Candidate, block_mask, parser, timed
from torch import Tensor, nn

from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.layers import explain_packing
from fairseq_rnnprune.sparse import SparseGRU, SparseLinear, choose_block_shape

HIDDEN, INPUT = (64, 128, 256, 384, 768, 1504), 128
LINEAR = ((256, 128), (512, 256), (1024, 256), (10_000, 512))
MASKS = (((1, 1), 0.8), ((1, 1), 0.9), ((1, 1), 0.95), ((4, 4), 0.5), ((4, 4), 0.9))
# Steps and batch of a GRU, batch of a linear layer.
SEQUENCES, BATCHES = ((1, 1), (64, 1), (16, 32)), (1, 5, 64)
CSR = (1, 1)


def main() -> None:
    options = parser(__doc__, out=RESULTS / "auto", rounds=7, seconds=0.5, turn=0.01)
    options.add_argument("--hidden", type=int, nargs="*", default=list(HIDDEN))
    options.add_argument("--linear", type=int, default=len(LINEAR), help="how many of the sizes")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    layers: list[nn.Module] = [nn.GRU(INPUT, hidden) for hidden in arguments.hidden]
    layers += [nn.Linear(columns, rows) for rows, columns in LINEAR[: arguments.linear]]
    with torch.no_grad():
        for layer in layers:
            for block_shape, sparsity in MASKS:
                record(arguments, layer, block_shape, sparsity)


def record(arguments: Any, dense: nn.Module, block_shape: tuple[int, int], sparsity: float) -> None:
    """Measures one layer under one mask, and writes the result."""
    pruned = copy.deepcopy(dense)
    weights = [p for p in pruned.parameters() if p.dim() == 2]
    for weight in weights:
        weight *= block_mask(weight.shape, block_shape, sparsity)
    is_gru = isinstance(dense, nn.GRU)
    gates = 3 if is_gru else 1
    packs, why = explain_packing(weights, gates, is_gru)
    chosen = [choose_block_shape(weight, gates) for weight in weights]
    figures: dict[str, Any] = {
        "auto": "packs" if packs else "dense",
        "chosen": ", ".join("{} x {}".format(*shape) for shape in chosen),
        "why": why,
    }
    for name, candidates in calls(pruned, chosen):
        rows = timed(candidates, arguments)
        figures[name] = {row: rows[row]["speedup"] for row in ("chosen", "csr")}
    ratios = [figures[name]["chosen"] for name, value in figures.items() if isinstance(value, dict)]
    figures["least"] = min(ratios)
    size = f"gru-h{dense.hidden_size}" if is_gru else "linear-{}x{}".format(*dense.weight.shape)
    mask = "{}x{}".format(*block_shape)
    path = save_result(
        arguments.out,
        f"{size}-{mask}-p{100 * sparsity:.0f}",
        arguments.seed,
        f"python benchmarks/auto.py --seed {arguments.seed}",
        figures,
        layer=size,
        mask=mask,
        sparsity=sparsity,
    )
    print(f"{path.stem:32} {figures['auto']:5} least {figures['least']:.2f}", flush=True)


def calls(
    pruned: nn.Module, chosen: list[tuple[int, int]]
) -> Iterator[tuple[str, list[Candidate]]]:
    """By batch, the layer dense, packed in the chosen shapes and as CSR."""
    wide = copy.deepcopy(pruned).double()
    if isinstance(pruned, nn.GRU):
        by_kind = dict(zip((INPUT, pruned.hidden_size), chosen, strict=True))
        packed = SparseGRU.from_dense(pruned, lambda w, gates: by_kind[w.shape[1]])
        csr = SparseGRU.from_dense(pruned, CSR)
        inputs = {f"t{t}-b{b}": torch.randn(t, b, INPUT) for t, b in SEQUENCES}
        layers, run = {"dense": pruned, "chosen": packed, "csr": csr}, lambda f, x: f(x)[0]
    else:
        packed = SparseLinear.from_dense(pruned, chosen[0])
        csr = SparseLinear.from_dense(pruned, CSR)
        inputs = {f"b{b}": torch.randn(b, pruned.in_features) for b in BATCHES}
        layers, run = {"dense": pruned, "chosen": packed, "csr": csr}, lambda f, x: f(x)
    for name, x in inputs.items():
        exact: Tensor = run(wide, x.double())
        yield (
            name,
            [
                Candidate(kind, partial(run, layer, x), exact, LIMITS[torch.float32])
                for kind, layer in layers.items()
            ],
        )


if __name__ == "__main__":
    main()
