"""What generate.py and translate.py share: fairseq-generate, dense and packed, by part and whole.

First, one run of each variant in which the layers are timed (timed_generate.py), and whose text
must be the same dense and in packed fp32. Then whole processes take turns: their time includes
starting Python, importing torch and fairseq, loading and packing.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import block_mask

from fairseq_rnnprune import compat
from fairseq_rnnprune.experiment import fairseq, run

FOLDER = Path(__file__).resolve().parent
USER_DIR = FOLDER.parent / "user_dir"
VARIANTS = ("dense", "fp32", "bf16", "int8")
# Of thousands of tokens, rounding may decide a near tie, after which the sentence goes elsewhere.
LEAST_SAME = 0.9
# Logits so far apart that a beam's scores, of which the best are kept, are hardly ever near ties.
LOGIT_SCALE = 16.0

# The arguments of fairseq-generate for a variant.
Command = Callable[[str], list[str]]


def random_checkpoint(
    arguments: argparse.Namespace, data: Path, work: Path, *options: object
) -> Path:
    """Trains a model for one update and puts random, pruned weights into its checkpoint.

    `arguments` are seed, block and sparsity, `options` those of fairseq-train.
    """
    torch.manual_seed(arguments.seed)
    fairseq(
        *("train", data, "--user-dir", USER_DIR, "--cpu", *options),
        *("--batch-size", 1, "--max-update", 1, "--optimizer", "sgd", "--lr", 0.1),
        *("--disable-validation", "--no-save-optimizer-state", "--num-workers", 0),
        *("--no-epoch-checkpoints", "--save-dir", work),
    )
    path = work / "checkpoint_last.pt"
    randomise(path, tuple(arguments.block), arguments.sparsity)
    return path


def randomise(checkpoint: Path, block_shape: tuple[int, int], sparsity: float) -> None:
    """Gives a checkpoint of fairseq's random weights, all pruned in blocks but its embeddings."""
    # A checkpoint holds classes that torch loads only if it is told to.
    compat.apply()
    state = torch.load(checkpoint, weights_only=True)
    for name, weight in state["model"].items():
        if name.endswith("embed_tokens.weight"):
            weight.normal_()
        elif weight.dim() == 2:
            # Every row keeps about the variance of its inputs.
            kept = block_mask(weight.shape, block_shape, sparsity)
            weight.normal_(std=(max(1, int(kept.sum())) / len(weight)) ** -0.5).mul_(kept)
            if "output_projection" in name:
                weight.mul_(LOGIT_SCALE)
    torch.save(state, checkpoint)


def compare(
    by_part: Command,
    whole: Command,
    rounds: int,
    unit: str,
    names: Mapping[str, str],
    least_by_part: float = 1.0,
) -> dict[str, dict[str, Any]]:
    """The figures of every variant, by `unit`, token or sentence.

    `names` has the figure's name for each part of timed_generate.py. SystemExit if less than
    `least_by_part` of the sentences timed by part, or LEAST_SAME of the others, are the same dense
    and packed as fp32.
    """
    timed = [sys.executable, str(FOLDER / "timed_generate.py")]
    outputs = {variant: run([*timed, *by_part(variant)]) for variant in VARIANTS}
    check_text(outputs, least_by_part)
    figures: dict[str, dict[str, Any]] = {v: parts(outputs[v], unit, names) for v in VARIANTS}
    process: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    own: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(rounds):
        for variant in VARIANTS:
            started = time.perf_counter()
            outputs[variant] = fairseq("generate", *whole(variant))
            process[variant].append(time.perf_counter() - started)
            own[variant].append(1e6 / Translated.of(outputs[variant]).per_second(unit))
        same_text = check_text(outputs, LEAST_SAME)
    for variant, row in figures.items():
        if variant == "fp32":
            row["same_text"] = same_text
        row[f"us_per_{unit}"] = statistics.median(own[variant])
        row[f"{unit}s_per_s"] = 1e6 / row[f"us_per_{unit}"]
        row["process_s"] = statistics.median(process[variant])
        for key, over in ((f"us_per_{unit}", "speedup"), ("process_s", "process_speedup")):
            row[over] = figures["dense"][key] / row[key]
        print(f"{variant:6}", "  ".join(f"{key} {value:.1f}" for key, value in row.items()))
    return figures


def check_text(outputs: Mapping[str, str], least: float = 1.0) -> float:
    """The fraction of sentences that are the same dense and packed as fp32.

    SystemExit if it is below `least`: no time would mean anything.
    """
    dense, packed = (
        dict(re.findall(r"^H-(\d+)\t\S+\t(.*)$", outputs[variant], re.M))
        for variant in ("dense", "fp32")
    )
    same = sum(packed.get(i) == sentence for i, sentence in dense.items())
    if not dense or len(packed) != len(dense) or same < least * len(dense):
        raise SystemExit(
            f"generate: expected the same text dense and packed as fp32, got {same} of "
            f"{len(dense)} sentences"
        )
    return same / len(dense)


def parts(output: str, unit: str, names: Mapping[str, str]) -> dict[str, float]:
    """Microseconds by unit in each part and, for the rest, in fairseq, of timed_generate.py."""
    seconds = json.loads(output.strip().splitlines()[-1])
    us = 1e6 / getattr(Translated.of(output), f"{unit}s")
    found = {f"{name}_us": us * seconds[part] for part, name in names.items()}
    return {**found, "fairseq_us": us * seconds["generation"] - sum(found.values())}


class Translated(NamedTuple):
    """What fairseq-generate counted, and its rate without start, loading and packing."""

    sentences: int
    tokens: int
    tokens_per_s: float

    @classmethod
    def of(cls, output: str) -> Translated:
        """Reads the log of fairseq-generate; ValueError if there is none."""
        pattern = r"Translated ([\d,]+) sentences \(([\d,]+) tokens\) in .* ([\d.]+) tokens/s\)"
        found = re.search(pattern, output)
        if not found:
            raise ValueError(
                "Translated: expected the log of fairseq-generate, got no 'Translated' in it"
            )
        sentences, tokens = (int(count.replace(",", "")) for count in found.groups()[:2])
        return cls(sentences, tokens, float(found[3]))

    def per_second(self, unit: str) -> float:
        """Tokens or sentences per second; the log's own rate of sentences has few digits."""
        count = {"token": self.tokens, "sentence": self.sentences}[unit]
        return self.tokens_per_s * count / self.tokens
