"""fairseq-generate on a pruned GRU language model: dense and packed, by part and as a process.

    OMP_NUM_THREADS=1 python benchmarks/generate.py --work FOLDER

The model is random: its speed does not depend on what it says. Weights of the GRU and of the output
layer are pruned in blocks. First, one run of each variant in which the layers are timed, and whose
text must be the same dense and in packed fp32. Then whole processes take turns: their time includes
starting Python, importing torch and fairseq, loading and packing.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# One thread per process (set before torch is loaded).
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # noqa: E402
from harness import RESULTS, block_mask  # noqa: E402

from fairseq_rnnprune import compat  # noqa: E402
from fairseq_rnnprune.experiment import fairseq, run, save_result  # noqa: E402

FOLDER = Path(__file__).resolve().parent
USER_DIR = FOLDER.parent / "user_dir"
VARIANTS = ("dense", "fp32", "bf16", "int8")
# Tokens of a prompt that are fed to the model.
PREFIX = 4
# Split of the data for whole processes, and of its first prompts, which are timed by part.
PROCESSES, PARTS = "test", "test1"
PARTS_PROMPTS = 5
# Of thousands of tokens, rounding may decide a near tie, after which the sentence goes elsewhere.
LEAST_SAME = 0.9
# Logits so far apart that a beam's scores, of which the best are kept, are hardly ever near ties.
LOGIT_SCALE = 16.0


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--hidden", type=int, default=2560)
    options.add_argument("--embedding", type=int, default=1024)
    options.add_argument("--vocabulary", type=int, default=10_000)
    options.add_argument("--sparsity", type=float, default=0.9)
    options.add_argument("--block", type=int, nargs=2, default=[16, 1], metavar=("ROWS", "COLUMNS"))
    options.add_argument("--beam", type=int, nargs="+", default=[1, 5])
    options.add_argument("--prompts", type=int, default=60)
    options.add_argument("--length", type=int, default=100, help="tokens of a sentence")
    options.add_argument("--rounds", type=int, default=2, help="of whole processes")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--work", type=Path, help="folder of data and model (default: temporary)")
    options.add_argument("--out", type=Path, default=RESULTS / "generate")
    arguments = options.parse_args()
    rows, columns = arguments.block
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        data = prepare_data(arguments, work)
        checkpoint = prepare_model(arguments, data, work)
        for beam in arguments.beam:
            command = lambda split, variant, beam=beam: generation(  # noqa: E731
                arguments, data, checkpoint, split, variant, beam
            )
            figures = compare(arguments, command)
            path = save_result(
                arguments.out,
                f"generate-h{arguments.hidden}-{rows}x{columns}-beam{beam}",
                arguments.seed,
                f"python benchmarks/generate.py --hidden {arguments.hidden} "
                f"--embedding {arguments.embedding} --vocabulary {arguments.vocabulary} "
                f"--sparsity {arguments.sparsity:g} --block {rows} {columns} "
                f"--beam {beam} --prompts {arguments.prompts} --length {arguments.length} "
                f"--rounds {arguments.rounds} --seed {arguments.seed}",
                figures,
                beam=beam,
                block_shape=arguments.block,
            )
            print(f"written to {path}", flush=True)


def prepare_data(arguments: argparse.Namespace, work: Path) -> Path:
    """Binarises random prompts over a vocabulary of w0, w1, ...; returns the data folder."""
    work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)
    # fairseq adds four words of its own.
    words = [f"w{i}" for i in range(arguments.vocabulary - 4)]
    (work / "dict.txt").write_text("".join(f"{word} 1\n" for word in words))
    prompts = [" ".join(rng.choices(words, k=PREFIX + 1)) for _ in range(arguments.prompts)]
    # Training on it takes one update, which only makes a checkpoint to put other weights into.
    texts = {"test": prompts, "parts": prompts[:PARTS_PROMPTS], "train": prompts[:1]}
    for split, lines in texts.items():
        (work / f"{split}.txt").write_text("\n".join(lines) + "\n")
    data = work / "data"
    fairseq(
        *("preprocess", "--only-source", "--srcdict", work / "dict.txt", "--destdir", data),
        *("--trainpref", work / "train.txt"),
        *("--testpref", f"{work / 'test.txt'},{work / 'parts.txt'}"),
    )
    return data


def prepare_model(arguments: argparse.Namespace, data: Path, work: Path) -> Path:
    """Writes a checkpoint of fairseq's with random weights, pruned; returns its path."""
    torch.manual_seed(arguments.seed)
    fairseq(
        *("train", data, "--user-dir", USER_DIR, "--task", "language_modeling"),
        *("--arch", "rnnprune_gru_lm", "--decoder-hidden-size", arguments.hidden),
        *("--decoder-embed-dim", arguments.embedding, "--tokens-per-sample", 16, "--cpu"),
        *("--batch-size", 1, "--max-update", 1, "--optimizer", "sgd", "--lr", 0.1),
        *("--disable-validation", "--no-save-optimizer-state", "--num-workers", 0),
        *("--no-epoch-checkpoints", "--save-dir", work),
    )
    path = work / "checkpoint_last.pt"
    # A checkpoint holds classes that torch loads only if it is told to.
    compat.apply()
    state = torch.load(path, weights_only=True)
    for name, weight in state["model"].items():
        if name.endswith("embed_tokens.weight"):
            weight.normal_()
        elif weight.dim() == 2:
            # Every row keeps about the variance of its inputs.
            kept = block_mask(weight.shape, tuple(arguments.block), arguments.sparsity)
            weight.normal_(std=(max(1, int(kept.sum())) / len(weight)) ** -0.5).mul_(kept)
            if "output_projection" in name:
                weight.mul_(LOGIT_SCALE)
    torch.save(state, path)
    return path


def generation(
    arguments: argparse.Namespace,
    data: Path,
    checkpoint: Path,
    split: str,
    variant: str,
    beam: int,
) -> list[str]:
    """The arguments of fairseq-generate."""
    length = str(arguments.length)
    return [
        *(str(data), "--user-dir", str(USER_DIR), "--task", "language_modeling", "--cpu"),
        *("--path", str(checkpoint), "--gen-subset", split, "--sample-break-mode", "eos"),
        *("--prefix-size", str(PREFIX), "--min-len", length, "--max-len-b", length),
        *("--batch-size", "1", "--beam", str(beam), "--num-workers", "0"),
        *("--model-overrides", f"{{'packed': '{variant}'}}"),
    ]


def compare(
    arguments: argparse.Namespace, command: Callable[[str, str], list[str]]
) -> dict[str, dict[str, Any]]:
    """The figures of every variant."""
    timed = [sys.executable, str(FOLDER / "timed_generate.py")]
    outputs = {variant: run([*timed, *command(PARTS, variant)]) for variant in VARIANTS}
    check_text(outputs)
    figures: dict[str, dict[str, Any]] = {v: parts(outputs[v]) for v in VARIANTS}
    process: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    own: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for _ in range(arguments.rounds):
        for variant in VARIANTS:
            started = time.perf_counter()
            outputs[variant] = fairseq("generate", *command(PROCESSES, variant))
            process[variant].append(time.perf_counter() - started)
            own[variant].append(us_per_token(outputs[variant]))
        same_text = check_text(outputs, LEAST_SAME)
    for variant, row in figures.items():
        if variant == "fp32":
            row["same_text"] = same_text
        row["us_per_token"] = statistics.median(own[variant])
        row["tokens_per_s"] = 1e6 / row["us_per_token"]
        row["process_s"] = statistics.median(process[variant])
        for key, over in (("us_per_token", "speedup"), ("process_s", "process_speedup")):
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


def parts(output: str) -> dict[str, float]:
    """Microseconds per token in the GRU, the output layer and fairseq, of timed_generate.py."""
    seconds = json.loads(output.strip().splitlines()[-1])
    us = {part: 1e6 * value / seconds["tokens"] for part, value in seconds.items()}
    return {
        "recurrent_us": us["recurrent"],
        "output_us": us["output"],
        "fairseq_us": us["generation"] - us["recurrent"] - us["output"],
    }


def us_per_token(output: str) -> float:
    """Microseconds per token, by fairseq's own count."""
    found = re.search(r"Translated .* \(([\d,]+) tokens\) in .* ([\d.]+) tokens/s\)", output)
    if not found:
        raise ValueError("us_per_token: expected the log of fairseq-generate, got no 'Translated'")
    return 1e6 / float(found[2])


if __name__ == "__main__":
    main()
