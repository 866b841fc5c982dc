"""How much more of a dense model blocks could keep if its units stood in another order.

    python examples/comparison/permutation.py CHECKPOINT

The units of a recurrent layer may stand in any order: one permutation of the rows of every gate and
of the columns changes nothing that the network computes. This looks for the order in which the
best blocks at a sparsity hold the most of a recurrent weight's squares, by exchanging random pairs
of units, and does the same with weights shuffled within each gate: what it finds there is chance.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import fmean as mean

import torch
from torch import Tensor

from fairseq_rnnprune.checkpoint import read_checkpoint
from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.pruning.prunable import find_prunable

SHAPES = ((1, 1), (4, 4), (8, 8), (16, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--exchanges", type=int, default=20_000, help="pairs that are tried")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--name", required=True, help="of the model, in the result's name")
    folder = Path(__file__).parent / "results" / "permutation"
    parser.add_argument("--out", type=Path, default=folder)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    squares = recurrent_squares(args.checkpoint)
    command = (
        f"python examples/comparison/permutation.py CHECKPOINT --sparsity {args.sparsity:g} "
        f"--exchanges {args.exchanges} --seed {args.seed} --name {args.name}"
    )
    for shape in SHAPES:
        figures = measure(squares, shape, args.sparsity, args.exchanges)
        text = "{}x{}".format(*shape)
        more = {"model": args.name, "shape": text, "sparsity": args.sparsity}
        save_result(args.out, f"{args.name}-{text}", args.seed, command, figures, **more)
        print(text, *(f"{name} {value:.3f}" for name, value in figures.items()), flush=True)


def recurrent_squares(checkpoint: Path) -> list[Tensor]:
    """The squares of every recurrent weight, as [gates, H, H]."""
    model = read_checkpoint(checkpoint).model
    found = [prunable for prunable in find_prunable(model) if prunable.type == "recurrent"]
    if not found:
        raise SystemExit(f"permutation: expected recurrent weights, got none in {checkpoint}")
    weights = [(prunable, model[prunable.name].double()) for prunable in found]
    return [w.square().view(p.gates, w.shape[1], w.shape[1]) for p, w in weights]


def measure(
    squares: list[Tensor], shape: tuple[int, int], sparsity: float, exchanges: int
) -> dict[str, float]:
    """Parts of all squares that the best blocks hold, means over the weights."""
    shuffled = [w.flatten(1)[:, torch.randperm(w[0].numel())].view_as(w) for w in squares]
    return {
        "kept": mean(kept(w, shape, sparsity) for w in squares),
        "kept_in_the_best_order": mean(search(w, shape, sparsity, exchanges)[0] for w in squares),
        "shuffled": mean(kept(w, shape, sparsity) for w in shuffled),
        "shuffled_in_the_best_order": mean(
            search(w, shape, sparsity, exchanges)[0] for w in shuffled
        ),
    }


def kept(squares: Tensor, shape: tuple[int, int], sparsity: float) -> float:
    """The part of the squares [gates, H, W] in the best blocks; they fit into H and W."""
    (r, c), (gates, H, W) = shape, squares.shape
    blocks = squares.view(gates, H // r, r, W // c, c).sum((2, 4)).flatten()
    count = round((1 - sparsity) * blocks.numel())
    return float(blocks.topk(count).values.sum() / blocks.sum())


def search(
    squares: Tensor, shape: tuple[int, int], sparsity: float, exchanges: int
) -> tuple[float, Tensor]:
    """Exchanges the pairs of units, of as many at random, that keep more.

    Units are rows of the squares [gates, H, W] and their first H columns. Returns what is kept in
    the best order and that order, as [H] indices.
    """
    best, order = kept(squares, shape, sparsity), torch.arange(squares.shape[1])
    if shape == (1, 1):
        return best, order
    for i, j in torch.randint(len(order), (exchanges, 2)).tolist():
        tried = order.clone()
        tried[i], tried[j] = order[j], order[i]
        found = kept(in_order(squares, tried), shape, sparsity)
        if found > best:
            best, order = found, tried
    return best, order


def in_order(squares: Tensor, order: Tensor) -> Tensor:
    """[gates, H, W] with its rows and its first H columns in this order."""
    others = torch.arange(len(order), squares.shape[2])
    return squares[:, order][:, :, torch.cat([order, others])]


if __name__ == "__main__":
    main()
