"""The main job on two cores: train a GRU language model densely and 90 % sparse, and compare.

    python examples/quickstart/run.py --out FOLDER

Text is what every Python carries (text.py); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# One thread per process: the two trainings share the machine (set before torch is loaded).
os.environ["OMP_NUM_THREADS"] = "1"

import sentencepiece  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from text import write_splits  # noqa: E402

from fairseq_rnnprune.experiment import fairseq, generated, perplexity, rnnprune, save_result  # noqa: E402

USER_DIR = Path(__file__).resolve().parent.parent.parent / "user_dir"
# In folders that this script may make anew.
MARK = ".rnnprune-quickstart"
COMMAND, SEED = "make quickstart", 1
VOCABULARY = 2000
PROMPTS, PROMPT_LENGTH = 20, 8

MODEL = "--task language_modeling --arch rnnprune_gru_lm --decoder-embed-dim 128 "
MODEL += "--decoder-hidden-size 512 --dropout 0.1 --tokens-per-sample 64"
TRAINING = "--batch-size 16 --lr 0.008 --lr-scheduler cosine --warmup-updates 100 --clip-norm 1.0 "
TRAINING += "--max-update 1100 --save-interval-updates 0 --no-epoch-checkpoints --num-workers 0 "
TRAINING += f"--disable-validation --log-format json --log-interval 20 --seed {SEED}"
OPTIMIZERS = {
    "dense": "--optimizer adam",
    # Per cent of the training, which has only a few epochs. It is short, so masks are final late.
    "pruned": "--optimizer pruned --prune-inner adam --prune-sparsity 0.9 --prune-freq 20 "
    "--prune-start 20% --prune-end 80%",
}
# Name in the table, checkpoint, value of the model's option `packed`.
VARIANTS = (
    ("dense", "dense", "dense"),
    ("pruned, run dense", "pruned", "dense"),
    ("pruned, run packed", "pruned", "fp32"),
)

console = Console(highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="made anew: data, models, plots")
    out = parser.parse_args().out
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        parser.error(
            f"--out: expected a new folder or one that this script has made, got {out}; name "
            "another, or delete it yourself"
        )
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / MARK).touch()
    started = time.monotonic()

    def stage(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:4.0f} s[/dim]  {text}")

    stage("text: the doc strings of this Python's own library")
    data = prepare(out)
    stage("training a dense and a pruned model side by side")
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        list(pool.map(lambda name: train(data, out / name, OPTIMIZERS[name]), OPTIMIZERS))
    checkpoints = {name: out / name / "checkpoint_last.pt" for name in OPTIMIZERS}
    stage("rnnprune report")
    plots = out / "plots"
    console.print(
        rnnprune("report", *checkpoints.values(), "--plot", plots), markup=False, soft_wrap=True
    )
    report = json.loads(rnnprune("report", *checkpoints.values(), "--json"))
    totals = dict(zip(checkpoints, map(whole_model, report["checkpoints"]), strict=True))
    stage("fairseq-eval-lm: perplexity")
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        perplexities = list(pool.map(lambda v: evaluate(data, checkpoints[v[1]], v[2]), VARIANTS))
    stage("fairseq-generate: text")
    runs = [generate(data, checkpoints[c], packed) for _, c, packed in VARIANTS]
    same = runs[1][0] == runs[2][0]

    table = Table("model", "parameters kept", "perplexity", "tokens/s", "MB", title="Results")
    for (name, checkpoint, packed), ppl, (_, speed) in zip(
        VARIANTS, perplexities, runs, strict=True
    ):
        total = totals[checkpoint]
        stored = total["dense_bytes" if packed == "dense" else "stored_bytes"]
        figures = {
            "seconds_of_quickstart": round(time.monotonic() - started),
            "kept_parameters": total["kept"],
            "perplexity": ppl,
            "tokens_per_second": speed,
            "bytes": stored,
        }
        save_result(
            out / "results", name.replace(", ", "-").replace(" ", "-"), SEED, COMMAND, figures
        )
        table.add_row(
            *(name, f"{total['kept']:,}", f"{ppl:.2f}", f"{speed:.0f}", f"{stored / 1e6:.2f}")
        )
    console.print(table)
    prompts, continuations = runs[2][0]
    console.print(f"[dim]{prompts[0]}[/dim] {continuations[0]}", soft_wrap=True)
    console.print(f"dense and packed kernels generate the same text: {'yes' if same else 'NO'}")
    console.print(f"plots: {', '.join(str(p) for p in sorted(plots.glob('*.png')))}")
    stage("done")
    if not same:
        raise SystemExit("quickstart: expected the same text dense and packed")


def prepare(out: Path) -> Path:
    """Text, sentencepiece model and fairseq's binary data; test1 holds prompts to go on from."""
    write_splits(out)
    sentencepiece.SentencePieceTrainer.train(
        input=str(out / "train.txt"),
        model_prefix=str(out / "spm"),
        vocab_size=VOCABULARY,
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=str(out / "spm.model"))
    for split in ("train", "valid", "test"):
        lines = (out / f"{split}.txt").read_text().splitlines()
        pieces = [" ".join(p) for p in processor.encode(lines, out_type=str)]
        (out / f"{split}.spm").write_text("\n".join(pieces) + "\n")
        if split == "test":
            (out / "prompts.spm").write_text("\n".join(pieces[:PROMPTS]) + "\n")
    fairseq(
        *("preprocess", "--only-source", "--destdir", out / "data"),
        *("--trainpref", out / "train.spm", "--validpref", out / "valid.spm"),
        *("--testpref", f"{out / 'test.spm'},{out / 'prompts.spm'}"),
    )
    return out / "data"


def train(data: Path, folder: Path, optimizer: str) -> None:
    """Runs fairseq-train with its log in the folder of the checkpoint."""
    folder.mkdir()
    options = shlex.split(f"{MODEL} {TRAINING} {optimizer}")
    fairseq(
        *("train", data, "--user-dir", USER_DIR, *options, "--save-dir", folder),
        log=folder / "train.log",
    )


def whole_model(report: dict) -> dict:
    """The row of a report that counts every tensor of the model."""
    return report["totals"][-1]


def evaluate(data: Path, checkpoint: Path, packed: str) -> float:
    """Perplexity on the test split."""
    output = fairseq(
        *("eval-lm", data, "--user-dir", USER_DIR, "--path", checkpoint, "--gen-subset", "test"),
        *("--tokens-per-sample", 64, "--batch-size", 16),
        *("--model-overrides", f"{{'packed': '{packed}'}}"),
    )
    return perplexity(output)[0]


def generate(
    data: Path, checkpoint: Path, packed: str
) -> tuple[tuple[list[str], list[str]], float]:
    """Goes on from the prompts, one at a time; returns ((prompts, continuations), tokens/s)."""
    output = fairseq(
        *("generate", data, "--user-dir", USER_DIR, "--task", "language_modeling"),
        *("--path", checkpoint, "--gen-subset", "test1", "--sample-break-mode", "eos"),
        *("--prefix-size", PROMPT_LENGTH, "--max-len-b", 60, "--batch-size", 1, "--beam", 4),
        *("--post-process", "sentencepiece", "--model-overrides", f"{{'packed': '{packed}'}}"),
    )
    sources = dict(re.findall(r"^S-(\d+)\t(.*)$", output, re.M))
    hypotheses = generated(output)
    speed = re.search(r"([\d.]+) tokens/s", output)
    prompts = [sources[str(i)] for i in hypotheses]
    return (prompts, list(hypotheses.values())), float(speed[1])


if __name__ == "__main__":
    main()
