"""Trains and evaluates one language model of the Penn Treebank table, and writes its result.

    python examples/language_model/run.py cubic-90 --text PTB_FOLDER --work WORK_FOLDER

An interrupted run goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
from pathlib import Path

from fairseq_rnnprune.experiment import (
    count_parameters,
    fairseq,
    final_sparsity,
    perplexity,
    training_rows,
    training_seconds,
)
from fairseq_rnnprune.recipe import (
    CALIBRATED,
    FROM_MODEL,
    Recipe,
    begin_from,
    calibrate,
    digests,
    make_once,
)

SPLITS = ("train", "valid", "test")
EPOCHS, UPDATES = 10, 454
ADAPTIVE = shlex.split(
    "--decoder-embed-dim 128 --adaptive-softmax-cutoff 2000,10008 --criterion adaptive_loss"
)
LARGE = [*ADAPTIVE, *shlex.split("--decoder-hidden-size 768")]
WIDE = [*ADAPTIVE, *shlex.split("--decoder-hidden-size 1024")]
# As many parameters as the large model keeps at 90 %.
SMALL = [*ADAPTIVE, *shlex.split("--decoder-hidden-size 114")]
# The output layer is the embedding, and stays dense with it: only the GRU is pruned.
TIED = shlex.split(
    "--decoder-embed-dim 192 --share-decoder-input-output-embed --criterion cross_entropy "
    "--lr 0.004"
)
COMMON = shlex.split(
    "--task language_modeling --arch rnnprune_gru_lm --tokens-per-sample 64 "
    "--ddp-backend legacy_ddp --batch-size 32 "
    "--lr-scheduler cosine --warmup-updates 200 --clip-norm 1.0 "
    f"--max-epoch {EPOCHS} --max-update {EPOCHS * UPDATES} --no-epoch-checkpoints "
    "--save-interval-updates 200 --keep-interval-updates 1 "
    "--log-format json --log-interval 50 --num-workers 0"
)
# The dense run that q is read from: the one with the learning rate of the ramp.
CALIBRATED_ON = "dense-lr-0.006"
PRUNED = shlex.split("--optimizer pruned --prune-inner adam --prune-freq 50 --prune-fisher-power 0")
# 90 % of all, more of the input's few but large weights.
CUBIC = [
    *PRUNED,
    *shlex.split("--prune-schedule cubic --prune-sparsity recurrent=0.9,input=0.8,linear=0.909"),
]
TIED_GRU_90 = [
    *(*TIED, *shlex.split("--decoder-hidden-size 768 --dropout 0.25"), *PRUNED),
    *shlex.split("--prune-types recurrent,input --prune-schedule cubic"),
    *shlex.split("--prune-sparsity recurrent=0.92,input=0.82"),
    *shlex.split("--prune-start 5% --prune-end 40%"),
]
# What is the default by now.
FISHER = shlex.split("--prune-fisher-power 0.25 --prune-allocation global")
FISHER_90 = [
    *(*LARGE, *shlex.split("--lr 0.006 --dropout 0.3"), *PRUNED, *FISHER),
    *shlex.split("--prune-sparsity 0.9 --prune-start 10% --prune-end 60%"),
]
LONG = shlex.split(f"--max-epoch {2 * EPOCHS} --max-update {2 * EPOCHS * UPDATES}")
# Half the batch, twice the updates.
BATCH_16 = shlex.split(f"--batch-size 16 --max-update {2 * EPOCHS * UPDATES}")
# One comes with every checkpoint.
FEWER_VALIDATIONS = shlex.split("--save-interval-updates 1600")
WIDE_FISHER_90 = [*FISHER_90, *WIDE, *shlex.split("--lr 0.004 --dropout 0.25"), *BATCH_16]
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
    # The same, but for what a weight is worth, and which matrix gives how much.
    "fisher-90": FISHER_90,
    # Twice the epochs: fisher-90 underfits (95 on its training text, the dense model 61).
    "fisher-90-long": [*FISHER_90, "--dropout", "0.25", *LONG],
    # As many updates as fisher-90-long in as many epochs as fisher-90.
    "fisher-90-batch-16": [*FISHER_90, *shlex.split("--lr 0.004 --dropout 0.2"), *BATCH_16],
    # With a dropout of 0.2: 67 on its training text, 99 on the validation text.
    "fisher-90-batch-16-dropout-0.3": [
        *(*FISHER_90, *shlex.split("--lr 0.004 --dropout 0.3"), *BATCH_16),
    ],
    # Less dropout, the fewer weights are left: from 0.35 to 0.2.
    "fisher-90-batch-16-annealed": [
        *(*FISHER_90, *shlex.split("--lr 0.004 --dropout 0.35"), *BATCH_16, *FEWER_VALIDATIONS),
        *shlex.split("--prune-dropout-power 0.25"),
    ],
    # The dense model trained on: as many epochs again.
    "fisher-90-from-dense": [
        *(*FISHER_90, *BATCH_16, FROM_MODEL, "dense-lr-0.006", *FEWER_VALIDATIONS),
        *shlex.split("--lr 0.004 --dropout 0.25 --prune-start 5% --prune-end 50%"),
    ],
    # A third wider, so that a tenth of it is more.
    "wide-dense": [*WIDE, *shlex.split("--lr 0.006 --dropout 0.35 --optimizer adam")],
    "wide-fisher-90": WIDE_FISHER_90,
    # Less dropout, and masks that are final earlier: it overfits.
    "wide-fisher-90-early": [
        *WIDE_FISHER_90,
        *shlex.split("--dropout 0.2 --prune-start 5% --prune-end 40%"),
    ],
    # As fisher-90-from-dense.
    "wide-fisher-90-from-dense": [
        *(*WIDE_FISHER_90, FROM_MODEL, "wide-dense", *FEWER_VALIDATIONS),
        *shlex.split("--dropout 0.3 --prune-start 5% --prune-end 50%"),
    ],
    # Twice the updates once more, and more dropout: after half of its epochs it is behind.
    "wide-fisher-90-batch-8": [
        *WIDE_FISHER_90,
        *shlex.split("--lr 0.003 --dropout 0.3 --batch-size 8"),
        *("--max-update", str(4 * EPOCHS * UPDATES)),
        *FEWER_VALIDATIONS,
    ],
    # The dense model overfits with batches of 32 and a dropout of 0.3.
    "dense-batch-16": [
        *(*LARGE, *BATCH_16),
        *shlex.split("--lr 0.004 --dropout 0.4 --optimizer adam"),
    ],
    # q comes from a trained model, whose weights are larger than those of one in training: the cap
    # keeps the ramp from passing 90 %.
    "ramp-90": [
        *(*LARGE, *shlex.split("--lr 0.006 --dropout 0.1"), *PRUNED),
        *("--prune-schedule", "ramp", "--prune-q", CALIBRATED),
        *shlex.split("--prune-start 10% --prune-ramp 30% --prune-end 60% --prune-max-sparsity 0.9"),
    ],
    # q from the weights at the first mask and what they become, so that it ends at 90 %.
    "ramp-90-batch-16": [
        *(*LARGE, *shlex.split("--lr 0.004 --dropout 0.2"), *PRUNED, *BATCH_16),
        *shlex.split("--prune-schedule ramp --prune-q auto --prune-sparsity 0.9"),
        *shlex.split("--prune-start 10% --prune-ramp 30% --prune-end 60%"),
        *FEWER_VALIDATIONS,
    ],
    "tied-dense": [
        *TIED,
        *shlex.split("--decoder-hidden-size 768 --dropout 0.3 --optimizer adam"),
    ],
    "tied-gru-90": TIED_GRU_90,
    # As much dropout as the dense one: tied-gru-90 overfits with less.
    "tied-gru-90-fisher": [
        *(*TIED_GRU_90, *FISHER),
        *shlex.split("--prune-sparsity 0.9 --dropout 0.3"),
    ],
    # As many parameters as tied-gru-90 keeps.
    "tied-small-dense": [
        *TIED,
        *shlex.split("--decoder-hidden-size 244 --dropout 0.2 --optimizer adam"),
    ],
}


RECIPE = Recipe(Path(__file__), RUNS, "text", "TEXT", "folder: train.txt, valid.txt, test.txt")


def main() -> None:
    RECIPE.main(RECIPE.parser(__doc__), text_files, run)


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    options = [*COMMON, *RUNS[args.run], "--seed", str(args.seed)]
    options = calibrate(parser, args, options, CALIBRATED_ON)
    options = begin_from(parser, args, options)
    data = preprocess(args.text, args.work)
    checkpoint, log = RECIPE.train(args, data, options)
    figures = {
        **count_parameters(checkpoint),
        "valid_perplexity": evaluate(data, checkpoint, "valid"),
        "test_perplexity": evaluate(data, checkpoint, "test"),
        # Of the last epoch, with dropout.
        "training_perplexity": float(training_rows(log)[-1]["ppl"]),
        "training_seconds": training_seconds(log),
        **(final_sparsity(log) if "--prune-inner" in options else {}),
    }
    path = RECIPE.save(args, options, figures)
    print(f"{args.run}: test perplexity {figures['test_perplexity']}; written to {path}")


def text_files(text: Path) -> list[Path]:
    return [text / f"{split}.txt" for split in SPLITS]


def preprocess(text: Path, work: Path) -> Path:
    """Binarises the text once."""
    data, files = work / "data", text_files(text)

    def make() -> None:
        # fairseq-preprocess refuses a folder that an interrupted run has left.
        shutil.rmtree(data, ignore_errors=True)
        pairs = zip(SPLITS, files, strict=True)
        prefixes = [word for split, file in pairs for word in (f"--{split}pref", file)]
        fairseq("preprocess", "--only-source", *prefixes, "--destdir", data)

    make_once(work, {"text": digests(files)}, data / "test.idx", make)
    return data


def evaluate(data: Path, checkpoint: Path, split: str) -> float:
    """Perplexity where every token sees at least 64 tokens of context."""
    output = fairseq(
        *(
            "eval-lm",
            data,
            "--user-dir",
            RECIPE.user_dir,
            "--path",
            checkpoint,
            "--gen-subset",
            split,
        ),
        *("--tokens-per-sample", 128, "--context-window", 64, "--batch-size", 32),
    )
    return perplexity(output)[0]


if __name__ == "__main__":
    main()
