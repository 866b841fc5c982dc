"""Trains and evaluates one language model of the Penn Treebank table, and writes its result.

    python examples/language_model/run.py cubic --text PTB_FOLDER --work WORK_FOLDER

An interrupted run goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from fairseq_rnnprune.experiment import (
    calibrated_q,
    count_parameters,
    fairseq,
    perplexity,
    save_result,
    training_rows,
    training_seconds,
)

HERE = Path(__file__).resolve().parent
USER_DIR = HERE.parent.parent / "user_dir"

EPOCHS = 10
LARGE = ["--decoder-embed-dim", "128", "--decoder-hidden-size", "768"]
# As many parameters as the large model keeps at 90 %.
SMALL = ["--decoder-embed-dim", "128", "--decoder-hidden-size", "114"]
COMMON = shlex.split(
    "--task language_modeling --arch rnnprune_gru_lm --tokens-per-sample 64 "
    "--adaptive-softmax-cutoff 2000,10008 --criterion adaptive_loss --ddp-backend legacy_ddp "
    "--batch-size 32 --lr-scheduler cosine --warmup-updates 200 --clip-norm 1.0 "
    f"--max-epoch {EPOCHS} --max-update {EPOCHS * 454} --no-epoch-checkpoints "
    "--save-interval-updates 200 --keep-interval-updates 1 "
    "--log-format json --log-interval 50 --num-workers 0"
)
# The dense run that q is read from: the one with the learning rate of the ramp.
CALIBRATED_ON = "dense-lr-0.006"
PRUNED = shlex.split("--optimizer pruned --prune-inner adam --prune-freq 50")
# 90 % of all, more of the input's few but large weights.
CUBIC = [
    *PRUNED,
    *shlex.split("--prune-schedule cubic --prune-sparsity recurrent=0.9,input=0.8,linear=0.909"),
]
RUNS = {
    "dense": [*LARGE, *shlex.split("--lr 0.003 --dropout 0.3 --optimizer adam")],
    "dense-lr-0.006": [*LARGE, *shlex.split("--lr 0.006 --dropout 0.3 --optimizer adam")],
    "small-dense": [*SMALL, *shlex.split("--lr 0.003 --dropout 0.1 --optimizer adam")],
    # The window of Table 1 (1e to 50%) prunes while the learning rate is at its highest.
    "cubic-90": [
        *(*LARGE, *shlex.split("--lr 0.003 --dropout 0.2"), *CUBIC),
        *shlex.split("--prune-start 20% --prune-end 80%"),
    ],
    # At this learning rate a model with a tenth of its weights still overfits with less dropout.
    "cubic-90-lr-0.006": [
        *(*LARGE, *shlex.split("--lr 0.006 --dropout 0.3"), *CUBIC),
        *shlex.split("--prune-start 10% --prune-end 60%"),
    ],
    # q comes from a trained model, whose weights are larger than those of one in training: the cap
    # keeps the ramp from passing 90 %.
    "ramp-90": [
        *(*LARGE, *shlex.split("--lr 0.006 --dropout 0.1"), *PRUNED),
        *("--prune-schedule", "ramp", "--prune-q", "CALIBRATED"),
        *shlex.split("--prune-start 10% --prune-ramp 30% --prune-end 60% --prune-max-sparsity 0.9"),
    ],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--text", type=Path, required=True, help="train.txt, valid.txt, test.txt")
    parser.add_argument("--work", type=Path, required=True, help="data, checkpoints and logs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    data = preprocess(args.text, args.work)
    options = [*COMMON, *RUNS[args.run], "--seed", str(args.seed)]
    if "CALIBRATED" in options:
        dense = args.work / f"{CALIBRATED_ON}-s{args.seed}" / "checkpoint_last.pt"
        options[options.index("CALIBRATED")] = calibrated_q(dense)
    folder = args.work / f"{args.run}-s{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    fairseq("train", data, "--user-dir", USER_DIR, *options, "--save-dir", folder, log=log)
    checkpoint = folder / "checkpoint_last.pt"
    figures = {
        **count_parameters(checkpoint),
        "valid_perplexity": evaluate(data, checkpoint, "valid"),
        "test_perplexity": evaluate(data, checkpoint, "test"),
        # Of the last epoch, with dropout.
        "training_perplexity": float(training_rows(log)[-1]["ppl"]),
        "training_seconds": training_seconds(log),
    }
    path = save_result(
        HERE / "results",
        args.run,
        args.seed,
        f"python examples/language_model/run.py {args.run} --seed {args.seed} --text TEXT --work W",
        figures,
        fairseq_train=shlex.join(["fairseq-train", "DATA", "--user-dir", "user_dir", *options]),
    )
    print(f"{args.run}: test perplexity {figures['test_perplexity']}; written to {path}")


def preprocess(text: Path, work: Path) -> Path:
    """Binarises the text once."""
    data = work / "data"
    if not (data / "test.idx").exists():
        splits = [a for s in ("train", "valid", "test") for a in (f"--{s}pref", text / f"{s}.txt")]
        fairseq("preprocess", "--only-source", *splits, "--destdir", data)
    return data


def evaluate(data: Path, checkpoint: Path, split: str) -> float:
    """Perplexity where every token sees at least 64 tokens of context."""
    output = fairseq(
        *("eval-lm", data, "--user-dir", USER_DIR, "--path", checkpoint, "--gen-subset", split),
        *("--tokens-per-sample", 128, "--context-window", 64, "--batch-size", 32),
    )
    return perplexity(output)[0]


if __name__ == "__main__":
    main()
