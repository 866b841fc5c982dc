"""Trains and evaluates one translation model of the Multi30k table, and writes its result.

    python examples/translation/run.py cubic-90 --text MULTI30K_FOLDER --work WORK_FOLDER

An interrupted run goes on from its last checkpoint when the same command is given again.
"""

from __future__ import annotations

import math
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import sacrebleu
import sentencepiece

from fairseq_rnnprune.experiment import (
    count_parameters,
    fairseq,
    training_rows,
    training_seconds,
)
from fairseq_rnnprune.recipe import CALIBRATED, Recipe, calibrate, check_files, digests, make_once

LANGUAGES = SOURCE, TARGET = "en", "de"
# Names of the files by fairseq's names of the splits.
SPLITS = {"train": "train", "valid": "valid", "test": "test2016"}
PIECES = 6000
EPOCHS = 15
BATCH = 64

COMMON = shlex.split(
    "--task translation --arch rnnprune_gru_seq2seq_256 --share-all-embeddings "
    "--criterion label_smoothed_cross_entropy --label-smoothing 0.1 --ddp-backend legacy_ddp "
    f"--batch-size {BATCH} --lr 0.002 --lr-scheduler cosine --clip-norm 1.0 "
    f"--max-epoch {EPOCHS} --no-epoch-checkpoints "
    "--save-interval-updates 200 --keep-interval-updates 1 --disable-validation "
    "--log-format json --log-interval 50 --num-workers 0"
)
DENSE = shlex.split("--optimizer adam --dropout 0.4")
# A tenth of the weights overfits less.
PRUNED = shlex.split(
    "--optimizer pruned --prune-inner adam --prune-fisher-power 0 --dropout 0.3 "
    "--prune-start 10% --prune-end 60%"
)
CUBIC = [*PRUNED, "--prune-schedule", "cubic", "--prune-sparsity"]
# 90 % underfits with the options above.
FIT = shlex.split("--dropout 0.1 --lr 0.003")
# The best window so far; later ones probably leave too little learning rate after the last mask.
EARLY = [*FIT, *shlex.split("--prune-start 5% --prune-end 40%")]
# What is the default by now.
FISHER = shlex.split("--prune-fisher-power 0.25 --prune-allocation global")
WIDE = shlex.split("--encoder-hidden-size 512 --decoder-hidden-size 512")
# As many parameters as the model of 256 keeps at 90 %.
SMALL = shlex.split(
    "--encoder-embed-dim 32 --decoder-embed-dim 32 "
    "--encoder-hidden-size 88 --decoder-hidden-size 88"
)
RUNS = {
    "dense": DENSE,
    "small-dense": [*SMALL, *shlex.split("--optimizer adam --dropout 0.1")],
    # With the above its training text keeps a perplexity of 33.
    "small-dense-lr-0.006": [*SMALL, *shlex.split("--optimizer adam --dropout 0 --lr 0.006")],
    "cubic-80": [*CUBIC, "0.8", *FIT],
    "cubic-90": [*CUBIC, "0.9"],
    # With dropout 0.3 a tenth of the weights underfits; this is still 2.3 BLEU behind dense.
    "cubic-90-dropout-0.1": [*CUBIC, "0.9", *FIT],
    "cubic-90-late": [*CUBIC, "0.9", *FIT, *shlex.split("--prune-start 30% --prune-end 80%")],
    "cubic-90-early": [*CUBIC, "0.9", *EARLY],
    # Too early: 1.1 BLEU behind the row above.
    "cubic-90-earlier": [*CUBIC, "0.9", *FIT, *shlex.split("--prune-start 2% --prune-end 20%")],
    "fisher-90": [*CUBIC, "0.9", *EARLY, *FISHER],
    "fisher-90-lr-0.002": [*CUBIC, "0.9", *EARLY, *FISHER, "--lr", "0.002"],
    "blocks-90-fisher": [
        *(*CUBIC, "0.9", *EARLY, *FISHER),
        *shlex.split("--prune-block-shape 4,4 --prune-score l2"),
    ],
    # One target for all matrices, which share it out by magnitude.
    "global-90": [*CUBIC, "0.9", *FIT, *shlex.split("--prune-allocation global")],
    # cubic-80 ends at a perplexity of 7.7 on its training text, the dense model at 8.6.
    "cubic-80-early": [*CUBIC, "0.8", *EARLY, "--dropout", "0.2"],
    "cubic-95-early": [*CUBIC, "0.95", *EARLY],
    "blocks-90-early": [*CUBIC, "0.9", *EARLY, "--prune-block-shape", "16,1"],
    # q comes from a trained model, whose weights are larger than those of one in training: the cap
    # keeps the ramp from passing 90 %, and it may end below.
    "ramp-90": [
        *(*PRUNED, *EARLY, "--prune-schedule", "ramp", "--prune-q", CALIBRATED),
        *shlex.split("--prune-ramp 20% --prune-max-sparsity 0.9"),
    ],
    "wide-90-early": [*WIDE, *CUBIC, "0.9", *EARLY, "--lr", "0.002"],
    # Too high a learning rate for this width: nearly half of the updates before and while it is
    # pruned are clipped, and it never recovers.
    "wide-90-lr-0.003": [*WIDE, *CUBIC, "0.9", *shlex.split("--dropout 0.2 --lr 0.003")],
}


RECIPE = Recipe(Path(__file__), RUNS, "text", "TEXT", "folder: train.en, train.de, valid.en ...")


def main() -> None:
    parser = RECIPE.parser(__doc__)
    args = parser.parse_args()
    check_files(parser, "text", text_files(args.text))
    count = len(read_lines(args.text / f"{SPLITS['train']}.{SOURCE}"))
    is_pruned = "--prune-inner" in RUNS[args.run]
    options = [*COMMON, *lengths(count, is_pruned), *RUNS[args.run], "--seed", str(args.seed)]
    options = calibrate(parser, args, options, "dense")
    data = preprocess(args.text, args.work)
    checkpoint, log = RECIPE.train(args, data, options)
    choices = ("fp32", "dense", "bf16", "int8") if is_pruned else ("dense",)
    texts = {choice: translate(data, checkpoint, choice) for choice in choices}
    packed = choices[0]
    hypotheses = texts[packed]
    (log.parent / f"test.{TARGET}").write_text(
        "".join(f"{x}\n" for x in hypotheses), encoding="utf-8"
    )
    bleu = sacrebleu.metrics.BLEU()
    references = read_lines(args.text / f"{SPLITS['test']}.{TARGET}")
    bleu_by_packed = {
        choice: round(bleu.corpus_score(lines, [references]).score, 2)
        for choice, lines in texts.items()
    }
    figures = {
        **count_parameters(checkpoint),
        **final_sparsity(log),
        "test_bleu": bleu_by_packed[packed],
        # Of the last epoch, with dropout.
        "training_perplexity": float(training_rows(log)[-1]["ppl"]),
        "training_seconds": training_seconds(log),
    }
    if is_pruned:
        figures["bleu_by_packed"] = bleu_by_packed
        figures["same_text_packed"] = texts["dense"] == texts["fp32"]
    signature = str(bleu.get_signature())
    path = RECIPE.save(args, options, figures, sacrebleu=signature, packed=packed)
    print(f"{args.run}: test BLEU {figures['test_bleu']}; written to {path}")


def lengths(lines: int, is_pruned: bool) -> list[str]:
    """Updates of training, of its warm-up and between masks, for so many training sentences."""
    updates = EPOCHS * math.ceil(lines / BATCH)
    options = {"--max-update": updates, "--warmup-updates": min(400, max(1, updates // 10))}
    if is_pruned:
        # A text of a few sentences needs more than one mask update as well.
        options["--prune-freq"] = min(50, max(1, updates // 20))
    return [word for option, value in options.items() for word in (option, str(value))]


def final_sparsity(log: Path) -> dict[str, Any]:
    """Fraction of zeros at the end of training: of all prunable weights and by type."""
    last = training_rows(log)[-1]
    by_type = {
        key.removeprefix("sparsity_"): float(value)
        for key, value in last.items()
        if key.startswith("sparsity_")
    }
    return {"sparsity": float(last.get("sparsity", 0)), "sparsity_by_type": by_type}


def text_files(text: Path) -> list[Path]:
    return [text / f"{name}.{language}" for name in SPLITS.values() for language in LANGUAGES]


def preprocess(text: Path, work: Path) -> Path:
    """Trains sentencepieces on both languages and binarises the pieces of the text, once."""
    data, pieces = work / "data", work / "pieces"

    def make() -> None:
        # fairseq-preprocess refuses a folder that an interrupted run has left.
        shutil.rmtree(data, ignore_errors=True)
        cut_into_pieces(text, work / "spm", pieces)
        prefixes = [a for split in SPLITS for a in (f"--{split}pref", pieces / split)]
        languages = ("--source-lang", SOURCE, "--target-lang", TARGET)
        fairseq("preprocess", *languages, "--joined-dictionary", *prefixes, "--destdir", data)

    made_from = {"text": digests(text_files(text)), "pieces": PIECES}
    # The last file that fairseq-preprocess writes.
    make_once(work, made_from, data / f"test.{SOURCE}-{TARGET}.{TARGET}.idx", make)
    return data


def cut_into_pieces(text: Path, model: Path, pieces: Path) -> None:
    """Trains model.model on the training text and writes the pieces of every split."""
    pieces.mkdir(exist_ok=True)
    sentencepiece.SentencePieceTrainer.train(
        input=[str(text / f"{SPLITS['train']}.{language}") for language in LANGUAGES],
        model_prefix=str(model),
        vocab_size=PIECES,
        # A text of a few sentences has fewer pieces.
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=1,
    )
    processor = sentencepiece.SentencePieceProcessor(model_file=f"{model}.model")
    for split, name in SPLITS.items():
        for language in LANGUAGES:
            encoded = processor.encode(read_lines(text / f"{name}.{language}"), out_type=str)
            lines = "".join(" ".join(line) + "\n" for line in encoded)
            (pieces / f"{split}.{language}").write_text(lines, encoding="utf-8")


def translate(data: Path, checkpoint: Path, packed: str) -> list[str]:
    """The test set's translations, detokenised, in the order of its lines."""
    output = fairseq(
        *(
            "generate",
            data,
            "--user-dir",
            RECIPE.user_dir,
            "--path",
            checkpoint,
            "--gen-subset",
            "test",
        ),
        *("--beam", 5, "--batch-size", 32, "--max-len-a", 2, "--max-len-b", 10),
        *("--post-process", "sentencepiece", "--model-overrides", f"{{'packed': '{packed}'}}"),
    )
    found = re.findall(r"^D-(\d+)\t[^\t]*\t(.*)$", output, re.M)
    return [text for _, text in sorted((int(number), text) for number, text in found)]


def read_lines(path: Path) -> list[str]:
    """As fairseq counts them; str.splitlines also splits at characters that text may contain."""
    with path.open(encoding="utf-8") as file:
        return [line.removesuffix("\n") for line in file]


if __name__ == "__main__":
    main()
