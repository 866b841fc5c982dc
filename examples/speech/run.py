"""Trains and evaluates one speech model of the AN4 table, and writes its result.

    python examples/speech/run.py dense --data AN4_FOLDER --work WORK_FOLDER

An interrupted run goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import argparse
import functools
import math
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fairseq_rnnprune.experiment import (
    count_parameters,
    fairseq,
    generated,
    rnnprune,
    training_seconds,
)
from fairseq_rnnprune.recipe import FROM_MODEL, Recipe, begin_from, digests, make_once, restarted
from fairseq_rnnprune.speech.cache import FOLDER, FeatureCache
from fairseq_rnnprune.speech.checks import POLICIES, usable_utterances
from fairseq_rnnprune.speech.config import SpeechConfig
from fairseq_rnnprune.speech.dictionary import load_dictionary
from fairseq_rnnprune.speech.manifest import read_manifest, write_manifest
from fairseq_rnnprune.speech.units import CharacterUnits

SPLITS = ("train", "valid", "test")
EPOCHS, BATCH_SIZE, WARMUP = 30, 8, 300
BEAMS = (8, 32)
COMMON = (
    "--task rnnprune_speech --speeds 0.9,1.0,1.1 "
    "--freq-masks 2 --freq-mask-width 8 --time-masks 2 --time-mask-width 30 "
    "--arch rnnprune_deepspeech2 --conv-channels 128 --conv-stride 4 "
    "--criterion ctc --zero-infinity --post-process letter --ddp-backend legacy_ddp "
    "--batch-size {batch_size} --lr-scheduler cosine --warmup-updates {warmup} --clip-norm 1.0 "
    "--max-epoch {epochs} --max-update {updates} "
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
    "--prune-types recurrent,input --prune-fisher-power 0 "
    "--prune-schedule cubic --prune-start 5% --prune-end 50% --prune-freq 20"
)
# What is the default by now.
FISHER = "--prune-fisher-power 0.25 --prune-allocation global"
BLOCKS = "--prune-block-shape 4,4 --prune-score l2"
# The same 90 % in all, more of it in the reset and update gates.
GATES = "--prune-sparsity recurrent=0.95/0.95/0.8,input=0.95/0.95/0.8"
MILD = "--lr 0.0025 --dropout 0.15"
ANNEALED = "--dropout 0.2 --prune-dropout-power 0.5"
LARGE, WIDE = "--hidden-size 320", "--hidden-size 512"
# As many parameters as the large model keeps at 90 %.
SMALL = "--hidden-size 96"
RELU = "--hidden-size 512 --cell relu"
RELU_640 = f"{RELU} --hidden-size 640"
STREAMING = "--hidden-size 448 --unidirectional --lookahead 8"
RUNS = {
    "dense": f"{LARGE} {DENSE}",
    "sparse-80": f"{LARGE} {CUBIC} --prune-sparsity 0.8",
    "sparse-90": f"{LARGE} {CUBIC} --prune-sparsity 0.9",
    # Masks are final after 30 % of the updates.
    "sparse-90-early": f"{LARGE} {CUBIC} --prune-end 30% --prune-sparsity 0.9",
    "sparse-90-fisher": f"{LARGE} {CUBIC} {FISHER} --prune-sparsity 0.9",
    "blocks-90-fisher": f"{LARGE} {CUBIC} {FISHER} --prune-sparsity 0.9 {BLOCKS}",
    # The dense model's dropout, and less of it, the fewer weights are left: 0.06 at last.
    "blocks-90-fisher-annealed": f"{LARGE} {CUBIC} {FISHER} {ANNEALED} --prune-sparsity 0.9 "
    f"{BLOCKS}",
    # With the dense model's learning rate and dropout.
    "sparse-90-as-dense": f"{LARGE} {CUBIC} --lr 0.0015 --dropout 0.2 --prune-sparsity 0.9",
    "sparse-95": f"{LARGE} {CUBIC} --prune-sparsity 0.95",
    "blocks-80": f"{LARGE} {CUBIC} --prune-sparsity 0.8 {BLOCKS}",
    "blocks-90": f"{LARGE} {CUBIC} --prune-sparsity 0.9 {BLOCKS}",
    "blocks-90-gates": f"{LARGE} {CUBIC} {BLOCKS} {GATES}",
    "blocks-95": f"{LARGE} {CUBIC} --prune-sparsity 0.95 {BLOCKS}",
    "wide-90": f"{WIDE} {CUBIC} --prune-sparsity 0.9",
    "wide-90-fisher": f"{WIDE} {CUBIC} {FISHER} --prune-sparsity 0.9",
    "wide-blocks-90-fisher": f"{WIDE} {CUBIC} {FISHER} --prune-sparsity 0.9 {BLOCKS}",
    # One target for both types, shared out by LAMP scores, with the options of relu-91-long.
    "sparse-90-lamp": f"{LARGE} {CUBIC} --prune-allocation lamp {MILD} --prune-sparsity 0.9",
    "blocks-90-lamp": f"{LARGE} {CUBIC} --prune-allocation lamp {MILD} --prune-sparsity 0.9 "
    f"{BLOCKS}",
    # Twice the epochs, with the options of relu-91-long.
    "dense-long": f"{LARGE} {DENSE}",
    "sparse-90-fisher-long": f"{LARGE} {CUBIC} {MILD} {FISHER} --prune-sparsity 0.9",
    "blocks-90-fisher-long": f"{LARGE} {CUBIC} {MILD} {FISHER} --prune-sparsity 0.9 {BLOCKS}",
    # Half the batch, twice the updates.
    "sparse-90-fisher-batch-4": f"{LARGE} {CUBIC} {FISHER} --lr 0.002 --prune-sparsity 0.9",
    "blocks-90-fisher-batch-4": f"{LARGE} {CUBIC} {FISHER} --lr 0.002 --prune-sparsity 0.9 "
    f"{BLOCKS}",
    # The dense model trained on: as many epochs again.
    "sparse-90-fisher-from-dense": f"{LARGE} {CUBIC} {MILD} {FISHER} --prune-sparsity 0.9 "
    f"{FROM_MODEL} dense",
    "blocks-90-fisher-from-dense": f"{LARGE} {CUBIC} {MILD} {FISHER} --prune-sparsity 0.9 "
    f"{BLOCKS} {FROM_MODEL} dense",
    # A short dense training and the pruning of what it gives, in as many epochs as the others: a
    # loss, as in the translation recipe.
    "blocks-90-fisher-restart": f"{LARGE} {CUBIC} {FISHER} --prune-sparsity 0.9 {BLOCKS}",
    "small-dense": f"{SMALL} {SMALL_DENSE}",
    "relu-dense": f"{RELU} {DENSE}",
    "relu-90": f"{RELU} {CUBIC} --prune-sparsity 0.9",
    "relu-90-as-dense": f"{RELU} {CUBIC} --lr 0.0015 --dropout 0.2 --prune-sparsity 0.9",
    "relu-90-lr-0.005": f"{RELU} {CUBIC} --lr 0.005 --dropout 0.05 --prune-sparsity 0.9",
    "relu-90-fisher": f"{RELU} {CUBIC} {FISHER} --prune-sparsity 0.9",
    "relu-blocks-90-fisher": f"{RELU} {CUBIC} {FISHER} --prune-sparsity 0.9 {BLOCKS}",
    # As wide, and trained for as long, as the sparse ones below.
    "relu-dense-long": f"{RELU_640} {DENSE}",
    "relu-wide-90": f"{RELU} --hidden-size 1024 {CUBIC} --prune-sparsity 0.9",
    # Twice the epochs, and at most an eighth of the parameters of its dense self.
    "relu-91-long": f"{RELU_640} {CUBIC} {MILD} --prune-sparsity 0.91 --prune-allocation lamp",
    "relu-91-fisher-long": f"{RELU_640} {CUBIC} {MILD} {FISHER} --prune-sparsity 0.91",
    "relu-blocks-91-fisher-long": f"{RELU_640} {CUBIC} {MILD} {FISHER} --prune-sparsity 0.91 "
    f"{BLOCKS}",
    "relu-blocks-91-fisher-from-dense": f"{RELU_640} {CUBIC} {MILD} {FISHER} --prune-sparsity 0.91 "
    f"{BLOCKS} {FROM_MODEL} relu-dense-long",
    "streaming-dense": f"{STREAMING} {DENSE}",
    "streaming-90": f"{STREAMING} {CUBIC} --prune-sparsity 0.9",
}


RECIPE = Recipe(Path(__file__), RUNS, "data", "AN4", "folder: train.tsv, valid.tsv, test.tsv")


def main() -> None:
    parser = RECIPE.parser(__doc__)
    parser.add_argument(
        "--bad-utterances",
        choices=POLICIES,
        default="refuse",
        help="what becomes of those that cannot be used (default: %(default)s)",
    )
    RECIPE.main(parser, manifests, run)


def run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    policy = [] if args.bad_utterances == "refuse" else ["--bad-utterances", args.bad_utterances]
    data = prepare(args.data, args.work, policy)
    options = [*train_options(args.run, args.seed, count_usable(data)), *policy]
    options = begin_from(parser, args, options)
    checkpoint, log = RECIPE.train(args, data, options)
    decode = functools.partial(generate, data, checkpoint, policy=policy)
    figures = {
        **count_parameters(checkpoint),
        **{
            f"{split}_{rate}": value
            for split in ("test", "valid")
            for rate, value in error_rates(decode(split)).items()
        },
        **beam_figures(decode),
        "training_seconds": training_seconds(log),
    }
    if "--prune-inner" in options:
        figures |= packed_figures(decode, checkpoint)
    path = RECIPE.save(args, options, figures)
    print(f"{args.run}: test CER {figures['test_cer']}, WER {figures['test_wer']}; see {path}")


def count_usable(data: Path) -> int:
    """How many utterances the training has, but for those too short for their text."""
    usable = usable_utterances(
        read_manifest(data / "train.tsv"),
        SpeechConfig.load(data),
        FeatureCache(data / FOLDER),
        CharacterUnits(),
        load_dictionary(data),
        policy="skip",
        name="train.tsv",
    )
    return len(usable)


def train_options(run: str, seed: int, utterances: int) -> list[str]:
    """Options of fairseq-train for so many utterances: schedules end with the last epoch."""
    epochs = EPOCHS * (2 if run.endswith("-long") else 1)
    batch_size = BATCH_SIZE // 2 if run.endswith("-batch-4") else BATCH_SIZE
    updates = epochs * math.ceil(utterances / batch_size)
    warmup = min(WARMUP, max(1, updates // 10))
    common = COMMON.format(epochs=epochs, updates=updates, batch_size=batch_size, warmup=warmup)
    restart = restarted(updates, warmup) if run.endswith("-restart") else ()
    return [*shlex.split(common), *shlex.split(RUNS[run]), *restart, "--seed", str(seed)]


def prepare(source: Path, work: Path, policy: Sequence[str] = ()) -> Path:
    """Checks the recordings and computes features and units once; `source` is only read."""
    source, data = source.resolve(), work / "data"

    def make() -> None:
        data.mkdir(exist_ok=True)
        for split in SPLITS:
            write_manifest(data / f"{split}.tsv", read_manifest(source / f"{split}.tsv"))
        print(rnnprune("prepare", data, "--mel-bins", 40, *policy))

    made_from = {"data": str(source), "manifests": digests(manifests(source))}
    if policy:
        made_from["policy"] = list(policy)
    make_once(work, made_from, data / "speech.json", make)
    return data


def manifests(folder: Path) -> list[Path]:
    return [folder / f"{split}.tsv" for split in SPLITS]


def generate(
    data: Path,
    checkpoint: Path,
    split: str,
    packed: str = "auto",
    beam: int = 1,
    policy: Sequence[str] = (),
) -> str:
    """What fairseq-generate prints, without a language model: greedy, or prefix beam search."""
    return fairseq(
        *("generate", data, "--user-dir", RECIPE.user_dir, "--task", "rnnprune_speech"),
        *("--path", checkpoint, "--gen-subset", split, "--batch-size", 16, "--beam", beam),
        *("--scoring", "cer_wer", "--post-process", "letter"),
        *("--model-overrides", f"{{'packed': '{packed}'}}"),
        *policy,
    )


def beam_figures(decode: Callable[..., str]) -> dict[str, Any]:
    """Test error rates of prefix beam search by the width of the beam."""
    rates = {str(beam): error_rates(decode("test", beam=beam)) for beam in BEAMS}
    return {
        "cer_by_beam": {beam: found["cer"] for beam, found in rates.items()},
        "wer_by_beam": {beam: found["wer"] for beam, found in rates.items()},
    }


def packed_figures(decode: Callable[..., str], checkpoint: Path) -> dict[str, Any]:
    """By type of weights: test error rates and bytes on disk; whether fp32 gives dense's text."""
    choices = ("dense", "fp32", "bf16", "int8")
    outputs = {choice: decode("test", choice) for choice in choices}
    rates = {choice: error_rates(output) for choice, output in outputs.items()}
    return {
        "cer_by_packed": {choice: found["cer"] for choice, found in rates.items()},
        "wer_by_packed": {choice: found["wer"] for choice, found in rates.items()},
        "same_text_packed": generated(outputs["dense"]) == generated(outputs["fp32"]),
        "exported_bytes": {choice: exported_bytes(checkpoint, choice) for choice in choices[1:]},
    }


def exported_bytes(checkpoint: Path, values: str) -> int:
    """The size of the file that `rnnprune export` writes, beside the checkpoint."""
    file = checkpoint.parent / f"{values}.safetensors"
    rnnprune("export", checkpoint, file, "--values", values)
    return file.stat().st_size


def error_rates(output: str) -> dict[str, float]:
    """Error rates in percent, of what fairseq-generate printed."""
    found = re.search(r"CER: ([\d.]+) WER: ([\d.]+) .*without blanks: ([\d.]+)", output)
    return dict(zip(("cer", "wer", "cer_without_blanks"), map(float, found.groups()), strict=True))


if __name__ == "__main__":
    main()
