"""What pruning costs per update against dense training: medians over interleaved updates.

    OMP_NUM_THREADS=1 python benchmarks/pruning_cost.py [--methods cubic ramp ...]

Models with the same weights take turns, update by update, on the same batches: one with fairseq's
optimizer, the others with `--optimizer pruned` around it, in turn while masks change and after the
last change, each of which is half of a training. A change of masks falls on one update in `freq`;
its cost is spread over them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.optim import FairseqOptimizer, build_optimizer
from omegaconf import OmegaConf

import fairseq_rnnprune.plugin  # noqa: F401
from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.models.gru_lm import GRULanguageModel, GRULanguageModelConfig
from fairseq_rnnprune.optim.pruned import PrunedOptimizerConfig

FREQ = 100
# Half of the updates lie in the pruning window, as with the default options.
UPDATES, END = 8 * FREQ, 4 * FREQ
# As in examples/comparison: those that differ in what they do at an update. Magnitudes alone, where
# a method does not say otherwise; `fisher` is the default.
_MAGNITUDE: dict[str, str | float] = {"prune_fisher_power": 0.0}
_RAMP = {**_MAGNITUDE, "prune_schedule": "ramp"}
_FISHER = {"prune_fisher_power": 0.25, "prune_allocation": "global"}
_BLOCKS = {"prune_block_shape": "4,4", "prune_score": "l2"}
METHODS: dict[str, dict[str, str | float]] = {
    "cubic": _MAGNITUDE,
    "ramp": _RAMP,
    "global": {**_MAGNITUDE, "prune_allocation": "global"},
    "lamp": {**_MAGNITUDE, "prune_allocation": "lamp"},
    "fisher": _FISHER,
    "l1-ramp": {**_RAMP, "prune_penalty": "l1"},
    "cubic-4x4": {**_MAGNITUDE, **_BLOCKS},
    "fisher-4x4": {**_FISHER, **_BLOCKS},
    "lasso-ramp-4x4": {**_RAMP, "prune_penalty": "group-lasso", **_BLOCKS},
}
RESULTS = Path(__file__).parent / "results" / "pruning_cost"


class Trainee:
    """A language model with its optimizer; `update` does what fairseq's Trainer does in fp32."""

    def __init__(self, hidden: int, vocabulary: int, method: dict[str, str | float] | None):
        class Task:
            source_dictionary = target_dictionary = Dictionary()

        for i in range(vocabulary):
            Task.target_dictionary.add_symbol(str(i))
        torch.manual_seed(0)
        config = GRULanguageModelConfig(
            decoder_embed_dim=hidden, decoder_hidden_size=hidden, tokens_per_sample=64
        )
        self.model = GRULanguageModel.build_model(config, Task)
        self.optimizer = self._optimizer(method)

    def _optimizer(self, method: dict[str, str | float] | None) -> FairseqOptimizer:
        shared = {"lr": [1e-3], "tpu": False}
        if method is None:
            cfg = OmegaConf.create({"_name": "adam", **shared})
        else:
            schedule = {"prune_start": "0", "prune_end": str(END), "prune_freq": FREQ}
            limits = {"max_update": UPDATES, "max_epoch": 0}
            cfg = OmegaConf.merge(
                OmegaConf.structured(PrunedOptimizerConfig),
                {"_name": "pruned", **shared, **schedule, **limits, **method},
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
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["cubic"])
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON file")
    args = parser.parse_args()

    sizes = args.hidden, args.vocabulary
    dense = Trainee(*sizes, None)
    trainees = {name: Trainee(*sizes, METHODS[name]) for name in args.methods}
    batches = torch.randint(4, args.vocabulary, (args.updates + 3, args.batch, args.time + 1))
    times: dict[str, list[float]] = {}
    for i, tokens in enumerate(batches):
        turns = [("dense", dense, None)]
        for name, trainee in trainees.items():
            turns += [(f"{name} while", trainee, 1), (f"{name} after", trainee, END + 1)]
        for name, trainee, update in turns if i % 2 else reversed(turns):
            if update is not None:
                trainee.optimizer.pruner.updates = update
            seconds = trainee.update(tokens)
            if i >= 3:
                times.setdefault(name, []).append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, trainee in trainees.items():
        record(args, name, trainee, medians)


def record(
    args: argparse.Namespace, name: str, trainee: Trainee, medians: dict[str, float]
) -> None:
    """Writes the result of one method."""
    change = statistics.median(mask_update_seconds(trainee) for _ in range(3))
    during, after = medians[f"{name} while"], medians[f"{name} after"]
    # One update in FREQ changes the masks, as long as the window is open: half of the training.
    amortised = (during + after + change / FREQ) / 2
    figures: dict[str, Any] = {
        "dense_ms": 1e3 * medians["dense"],
        "pruned_ms": 1e3 * (during + after) / 2,
        "while_ms": 1e3 * during,
        "after_ms": 1e3 * after,
        "mask_change_ms": 1e3 * change,
        "cost_percent": 100 * (amortised / medians["dense"] - 1),
        "updates": args.updates,
        "hidden": args.hidden,
        "tokens_per_update": args.batch * args.time,
        "method": name,
    }
    path = save_result(
        args.results,
        f"h{args.hidden}-b{args.batch}" + ("" if name == "cubic" else f"-{name}"),
        0,
        f"python benchmarks/pruning_cost.py --hidden {args.hidden} --batch {args.batch} "
        f"--updates {args.updates} --methods {' '.join(args.methods)}",
        figures,
    )
    print(f"{name}: {figures['cost_percent']:+.2f} % per update; written to {path}")


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
