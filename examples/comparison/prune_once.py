"""What a trained dense model loses if it is pruned once, by every score: minutes, no training.

    python examples/comparison/prune_once.py CHECKPOINT --data DATA --name ptb

For each allocation, power of the gradients' mean squares (--prune-fisher-power), block shape and
sparsity: the loss on the first batches of the validation set, in nats per token. It asks which
weights are worth least, not what a training makes of the rest.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils, utils

from fairseq_rnnprune.provenance import environment
from fairseq_rnnprune.pruning import TYPES, OneShotSchedule, Pruner, read_tag

ALLOCATIONS = ("uniform", "global")
POWERS = (0, 0.125, 0.25, 0.375, 0.5, 0.75)
SHAPES = ((1, 1), (4, 4))
SPARSITIES = (0.5, 0.7, 0.8)
USER_DIR = Path(__file__).resolve().parent.parent.parent / "user_dir"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path, help="of a dense training by Adam")
    parser.add_argument("--data", type=Path, required=True, help="what fairseq-train was given")
    parser.add_argument("--name", required=True, help="of the model, in the results")
    parser.add_argument("--seed", type=int, default=1, help="of the dense training")
    parser.add_argument("--types", default="recurrent,input,linear", help="as --prune-types")
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--batch-size", type=int, default=16)
    default = Path(__file__).parent / "results" / "prune-once.jsonl"
    parser.add_argument("--results", type=Path, default=default, help="rows are appended")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("fairseq_rnnprune").setLevel(logging.ERROR)
    trained = TrainedModel(args)
    command = (
        f"python examples/comparison/prune_once.py CHECKPOINT --data DATA --name {args.name} "
        f"--seed {args.seed} --types {args.types} --batches {args.batches} "
        f"--batch-size {args.batch_size}"
    )
    with args.results.open("a", encoding="utf-8") as file:
        for axes, losses in measure(trained):
            axes = {"model": args.name, **axes, "seed": args.seed}
            name = "-".join(map(str, axes.values()))
            row = {
                "name": name,
                "axes": axes,
                "figures": losses,
                "commands": [command],
                **environment(),
            }
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(*axes.values(), *(f"{key} {value:.3f}" for key, value in losses.items()))


class TrainedModel:
    """A model, its weights to prune, its optimizer's state and some of its validation set."""

    def __init__(self, args: argparse.Namespace):
        utils.import_user_module(argparse.Namespace(user_dir=str(USER_DIR)))
        models, cfg, task = checkpoint_utils.load_model_ensemble_and_task(
            [str(args.checkpoint)], arg_overrides={"data": str(args.data)}
        )
        self.model = models[0].eval()
        parameters = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        saved = checkpoint_utils.load_checkpoint_to_cpu(str(args.checkpoint))
        # Without one the pruner says what it lacks.
        states = (saved.get("last_optimizer_state") or {}).get("state", {})
        self.state = {p: states.get(i, {}) for i, (_, p) in enumerate(parameters)}
        types = args.types.split(",")
        tagged = ((read_tag(p), p) for _, p in parameters)
        self.weights = [(tag, p) for tag, p in tagged if tag is not None and tag.type in types]
        self._dense = [p.detach().clone() for _, p in self.weights]
        task.load_dataset("valid")
        batches = task.get_batch_iterator(
            task.dataset("valid"), max_sentences=args.batch_size, num_workers=0
        ).next_epoch_itr(shuffle=False)
        self.batches = list(itertools.islice(batches, args.batches))
        self.criterion = task.build_criterion(cfg.criterion).eval()

    @torch.no_grad()
    def loss(self) -> float:
        """Nats per token."""
        logs = [self.criterion(self.model, batch)[2] for batch in self.batches]
        total = sum(float(log.get("nll_loss", log["loss"])) for log in logs)
        return total / sum(log["ntokens"] for log in logs)

    @torch.no_grad()
    def prune(self, sparsity: float, shape: tuple[int, int], **options: Any) -> None:
        """Prunes the dense weights once."""
        for (_, weight), dense in zip(self.weights, self._dense, strict=True):
            weight.copy_(dense)
        schedules = dict.fromkeys(TYPES, OneShotSchedule(0, sparsity))
        shapes = dict.fromkeys(TYPES, shape)
        pruner = Pruner(self.weights, schedules, shapes, score="l2", **options)
        # The pruner masks moments as well.
        pruner.step({p: copy.deepcopy(moments) for p, moments in self.state.items()})


def measure(trained: TrainedModel) -> Iterator[tuple[dict[str, Any], dict[str, float]]]:
    """Settings, and losses by sparsity in per cent."""
    dense = trained.loss()
    for shape, allocation, power in itertools.product(SHAPES, ALLOCATIONS, POWERS):
        losses = {"loss_0": dense}
        for sparsity in SPARSITIES:
            trained.prune(sparsity, shape, allocation=allocation, fisher_power=power)
            losses[f"loss_{100 * sparsity:.0f}"] = trained.loss()
        yield {"blocks": "{}x{}".format(*shape), "allocation": allocation, "power": power}, losses


if __name__ == "__main__":
    main()
