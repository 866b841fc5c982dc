"""What pruning costs per update against dense training: medians over interleaved updates.

    OMP_NUM_THREADS=1 python benchmarks/pruning_cost.py

Two models with the same weights take turns, update by update, on the same batches: one with
fairseq's optimizer, one with `--optimizer pruned` around it. Change of masks included: it falls on
one update in `freq`, and its cost is spread over them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from fairseq.data import Dictionary
from fairseq.optim import FairseqOptimizer, build_optimizer
from omegaconf import OmegaConf

import fairseq_rnnprune.plugin  # noqa: F401
from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.models.gru_lm import GRULanguageModel, GRULanguageModelConfig
from fairseq_rnnprune.optim.pruned import PrunedOptimizerConfig

FREQ = 100
RESULTS = Path(__file__).parent / "results" / "pruning_cost"


class Trainee:
    """A language model with its optimizer; `update` does what fairseq's Trainer does in fp32."""

    def __init__(self, hidden: int, vocabulary: int, pruned: bool, updates: int):
        class Task:
            target_dictionary = Dictionary()

        for i in range(vocabulary):
            Task.target_dictionary.add_symbol(str(i))
        torch.manual_seed(0)
        config = GRULanguageModelConfig(
            decoder_embed_dim=hidden, decoder_hidden_size=hidden, tokens_per_sample=64
        )
        self.model = GRULanguageModel.build_model(config, Task)
        self.optimizer = self._optimizer(pruned, updates)

    def _optimizer(self, pruned: bool, updates: int) -> FairseqOptimizer:
        shared = {"lr": [1e-3], "tpu": False}
        if not pruned:
            cfg = OmegaConf.create({"_name": "adam", **shared})
        else:
            # Half of the updates lie in the pruning window, as with the default options.
            schedule = {"prune_start": "0", "prune_end": str(updates // 2), "prune_freq": FREQ}
            limits = {"max_update": updates, "max_epoch": 0}
            cfg = OmegaConf.merge(
                OmegaConf.structured(PrunedOptimizerConfig),
                {"_name": "pruned", **shared, **schedule, **limits},
            )
        return build_optimizer(cfg, list(self.model.parameters()))

    def update(self, tokens: torch.Tensor) -> float:
        """Makes one update on tokens [B, T + 1] and returns its seconds."""
        started = time.perf_counter()
        self.optimizer.zero_grad()
        logits, _ = self.model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        self.optimizer.backward(loss)
        self.optimizer.clip_grad_norm(1.0)
        self.optimizer.step()
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=2000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--time", type=int, default=64, help="tokens per sample")
    parser.add_argument("--updates", type=int, default=40, help="counted, of each model")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args()

    # The masks change after updates FREQ, 2 FREQ, ...: two of them are timed by themselves.
    dense = Trainee(args.hidden, args.vocabulary, False, 8 * FREQ)
    pruned = Trainee(args.hidden, args.vocabulary, True, 8 * FREQ)
    batches = torch.randint(4, args.vocabulary, (args.updates + 3, args.batch, args.time + 1))
    times: dict[str, list[float]] = {"dense": [], "pruned": []}
    for i, tokens in enumerate(batches):
        order = [("dense", dense), ("pruned", pruned)]
        for name, trainee in order if i % 2 else order[::-1]:
            seconds = trainee.update(tokens)
            if i >= 3:
                times[name].append(seconds)
    change = statistics.median(mask_update_seconds(pruned) for _ in range(3))
    medians = {name: statistics.median(values) for name, values in times.items()}
    # One update in FREQ changes the masks, as long as the window is open: half of the training.
    amortised = medians["pruned"] + change / FREQ / 2
    figures = {
        "dense_ms": 1e3 * medians["dense"],
        "pruned_ms": 1e3 * medians["pruned"],
        "mask_change_ms": 1e3 * change,
        "cost_percent": 100 * (amortised / medians["dense"] - 1),
        "updates": args.updates,
        "hidden": args.hidden,
        "tokens_per_update": args.batch * args.time,
    }
    path = save_result(
        args.results,
        f"h{args.hidden}-b{args.batch}",
        0,
        f"python benchmarks/pruning_cost.py --hidden {args.hidden} --batch {args.batch}",
        figures,
    )
    print(f"{figures['cost_percent']:+.2f} % per update; written to {path}")


def mask_update_seconds(trainee: Trainee) -> float:
    """Seconds of one change of all masks, which the timed updates did not contain."""
    pruner = trainee.optimizer.pruner
    pruner.updates = FREQ
    started = time.perf_counter()
    if not pruner.step(trainee.optimizer.optimizer.state):
        raise RuntimeError(f"mask_update_seconds: expected a change of masks at update {FREQ}")
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
