"""Writes a checkpoint whose recurrent units stand in another order, one that suits blocks.

    python examples/comparison/reorder.py CHECKPOINT OUT --block-shape 4,4

For GRUs whose layers read one another, and a linear layer that reads the last one, such as those
of an4.yaml. The order is that of permutation.py, of recurrent and input weights; it is folded into
the rows of every gate and into the columns of what reads the units, so the model computes what it
did. A training that is to prune it begins with `fairseq-train --finetune-from-model OUT`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import torch
from permutation import kept, search
from torch import Tensor

from fairseq_rnnprune.checkpoint import checkpoint_globals

GATES = 3
RECURRENT = re.compile(r"(.*)weight_hh_l(\d+)(_reverse)?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--block-shape", default="4,4", help="rows,columns")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--exchanges", type=int, default=20_000, help="pairs that are tried")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    rows, columns = map(int, args.block_shape.split(","))

    def order_of(squares: Tensor) -> Tensor:
        shape = rows, columns
        best, order = search(squares, shape, args.sparsity, args.exchanges)
        before = kept(squares, shape, args.sparsity)
        print(f"the best blocks keep {best:.3f} of the squares, not {before:.3f}", flush=True)
        return order

    with torch.serialization.safe_globals(checkpoint_globals()):
        state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
    state["model"] = reorder(state["model"], order_of)
    torch.save(state, args.out)


def reorder(
    model: dict[str, Tensor], order_of: Callable[[Tensor], Tensor], output: str = "output.weight"
) -> dict[str, Tensor]:
    """The state of a model with its units in other orders.

    `order_of` gets the squares of a layer's recurrent and input weights, [gates, H, H + I], and
    returns indices [H]. `output` is what reads the last layer.
    """
    model = dict(model)
    found = [match for name in model if (match := RECURRENT.fullmatch(name))]
    last = max((int(match[2]) for match in found), default=None)
    if last is None or output not in model:
        raise SystemExit(f"reorder: expected a GRU and {output}, got {', '.join(sorted(model))}")
    # Layer by layer, so that one is ordered when the next one's columns are; forward, then reverse.
    for match in sorted(found, key=lambda match: (int(match[2]), match[3] or "")):
        prefix, layer, reverse = match[1], int(match[2]), match[3] or ""
        end = f"_l{layer}{reverse}"
        hidden, read = model[f"{prefix}weight_hh{end}"], model[f"{prefix}weight_ih{end}"]
        H = hidden.shape[1]
        squares = torch.cat([w.double().square().view(GATES, H, -1) for w in (hidden, read)], 2)
        order = order_of(squares)
        rows = torch.cat([gate * H + order for gate in range(GATES)])
        for kind in ("weight_hh", "weight_ih", "bias_hh", "bias_ih"):
            model[f"{prefix}{kind}{end}"] = model[f"{prefix}{kind}{end}"][rows]
        model[f"{prefix}weight_hh{end}"] = model[f"{prefix}weight_hh{end}"][:, order]
        readers = [f"{prefix}weight_ih_l{layer + 1}{r}" for r in ("", "_reverse")]
        for name in [output] if layer == last else [r for r in readers if r in model]:
            columns = torch.arange(model[name].shape[1])
            start = H if reverse else 0
            columns[start : start + H] = start + order
            model[name] = model[name][:, columns]
    return model


if __name__ == "__main__":
    main()
