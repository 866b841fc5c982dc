"""Trains and evaluates one speech model of the AN4 table, and writes its result.

    python examples/speech/run.py dense --data AN4_FOLDER --work WORK_FOLDER

An interrupted run goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import math
import re
import shlex
from pathlib import Path

from fairseq_rnnprune.experiment import (
    count_parameters,
    fairseq,
    rnnprune,
    save_result,
    training_seconds,
)
from fairseq_rnnprune.speech.manifest import read_manifest, write_manifest

HERE = Path(__file__).resolve().parent
USER_DIR = HERE.parent.parent / "user_dir"

EPOCHS, BATCH_SIZE = 30, 8
COMMON = (
    "--task rnnprune_speech --speeds 0.9,1.0,1.1 "
    "--freq-masks 2 --freq-mask-width 8 --time-masks 2 --time-mask-width 30 "
    "--arch rnnprune_deepspeech2 --conv-channels 128 --conv-stride 4 "
    "--criterion ctc --zero-infinity --post-process letter --ddp-backend legacy_ddp "
    f"--batch-size {BATCH_SIZE} --lr-scheduler cosine --warmup-updates 300 --clip-norm 1.0 "
    f"--max-epoch {EPOCHS} --max-update {{updates}} "
    "--no-epoch-checkpoints --save-interval 5 --validate-interval 5 "
    "--log-format json --log-interval 20 --num-workers 0"
)
ADAM = "--adam-betas (0.9,0.98) --weight-decay 0.01"
DENSE = f"--optimizer adam {ADAM} --lr 0.0015 --dropout 0.2"
# With few parameters a model fits the training set less: more learning rate, less dropout.
SMALL_DENSE = f"--optimizer adam {ADAM} --lr 0.003 --dropout 0.1"
# The output layer has too few weights to be worth pruning.
CUBIC = (
    f"--optimizer pruned --prune-inner adam {ADAM} --lr 0.003 --dropout 0.1 "
    "--prune-types recurrent,input "
    "--prune-schedule cubic --prune-start 5% --prune-end 50% --prune-freq 20"
)
BLOCKS = "--prune-block-shape 4,4 --prune-score l2"
LARGE, WIDE = "--hidden-size 320", "--hidden-size 512"
# As many parameters as the large model keeps at 90 %.
SMALL = "--hidden-size 96"
RELU = "--hidden-size 512 --cell relu"
STREAMING = "--hidden-size 448 --unidirectional --lookahead 8"
RUNS = {
    "dense": f"{LARGE} {DENSE}",
    "sparse-80": f"{LARGE} {CUBIC} --prune-sparsity 0.8",
    "sparse-90": f"{LARGE} {CUBIC} --prune-sparsity 0.9",
    "sparse-95": f"{LARGE} {CUBIC} --prune-sparsity 0.95",
    "blocks-80": f"{LARGE} {CUBIC} --prune-sparsity 0.8 {BLOCKS}",
    "blocks-90": f"{LARGE} {CUBIC} --prune-sparsity 0.9 {BLOCKS}",
    "blocks-95": f"{LARGE} {CUBIC} --prune-sparsity 0.95 {BLOCKS}",
    "wide-90": f"{WIDE} {CUBIC} --prune-sparsity 0.9",
    "small-dense": f"{SMALL} {SMALL_DENSE}",
    "relu-dense": f"{RELU} {DENSE}",
    "relu-90": f"{RELU} {CUBIC} --prune-sparsity 0.9",
    "streaming-dense": f"{STREAMING} {DENSE}",
    "streaming-90": f"{STREAMING} {CUBIC} --prune-sparsity 0.9",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", choices=RUNS)
    parser.add_argument("--data", type=Path, required=True, help="train.tsv, valid.tsv, test.tsv")
    parser.add_argument("--work", type=Path, required=True, help="features, checkpoints and logs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()

    data = prepare(args.data, args.work / "data")
    options = train_options(args.run, args.seed, len(read_manifest(data / "train.tsv")))
    folder = args.work / f"{args.run}-s{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "train.log"
    fairseq("train", data, "--user-dir", USER_DIR, *options, "--save-dir", folder, log=log)
    checkpoint = folder / "checkpoint_last.pt"
    figures = {
        **count_parameters(checkpoint),
        **{
            f"{split}_{rate}": value
            for split in ("test", "valid")
            for rate, value in error_rates(data, checkpoint, split).items()
        },
        "training_seconds": training_seconds(log),
    }
    path = save_result(
        HERE / "results",
        args.run,
        args.seed,
        f"python examples/speech/run.py {args.run} --seed {args.seed} --data AN4 --work W",
        figures,
        fairseq_train=shlex.join(["fairseq-train", "DATA", "--user-dir", "user_dir", *options]),
    )
    print(f"{args.run}: test CER {figures['test_cer']}, WER {figures['test_wer']}; see {path}")


def train_options(run: str, seed: int, utterances: int) -> list[str]:
    """Options of fairseq-train for so many utterances: schedules end with the last epoch."""
    common = COMMON.format(updates=EPOCHS * math.ceil(utterances / BATCH_SIZE))
    return [*shlex.split(common), *shlex.split(RUNS[run]), "--seed", str(seed)]


def prepare(source: Path, data: Path) -> Path:
    """Checks the recordings and computes features and units once; `source` is only read."""
    source, record = source.resolve(), data / "source.txt"
    before = record.read_text(encoding="utf-8").strip() if record.exists() else str(source)
    if before != str(source):
        raise SystemExit(
            f"run.py: expected --data {before}, from which {data} was made, got {source}; give "
            "another --work"
        )
    if not (data / "speech.json").exists():
        data.mkdir(parents=True, exist_ok=True)
        record.write_text(f"{source}\n", encoding="utf-8")
        for split in ("train", "valid", "test"):
            write_manifest(data / f"{split}.tsv", read_manifest(source / f"{split}.tsv"))
        print(rnnprune("prepare", data, "--mel-bins", 40))
    return data


def error_rates(data: Path, checkpoint: Path, split: str) -> dict[str, float]:
    """Error rates in percent, decoded greedily without a language model."""
    output = fairseq(
        *("generate", data, "--user-dir", USER_DIR, "--task", "rnnprune_speech"),
        *("--path", checkpoint, "--gen-subset", split, "--batch-size", 16, "--beam", 1),
        *("--scoring", "cer_wer", "--post-process", "letter"),
    )
    found = re.search(r"CER: ([\d.]+) WER: ([\d.]+) .*without blanks: ([\d.]+)", output)
    return dict(zip(("cer", "wer", "cer_without_blanks"), map(float, found.groups()), strict=True))


if __name__ == "__main__":
    main()
