"""Parallel text: its pieces, fairseq's binary form of it, and what a model makes of it.

    python examples/translation/parallel_text.py --text MULTI30K_FOLDER --work WORK_FOLDER

makes the pieces alone, for `fairseq-preprocess` by hand; run.py makes all that a run needs.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from fairseq_rnnprune.experiment import fairseq, generated
from fairseq_rnnprune.recipe import check_files, digests, make_once

LANGUAGES = SOURCE, TARGET = "en", "de"
# Names of the files by fairseq's names of the splits.
SPLITS = {"train": "train", "valid": "valid", "test": "test2016"}
TEXT_FORM = "folder: train.en, train.de, valid.en ..."
PIECES = 6000
USER_DIR = Path(__file__).resolve().parent.parent.parent / "user_dir"


def main() -> None:
    parser = argparse.ArgumentParser(description="Cuts parallel text into joint sentencepieces.")
    parser.add_argument("--text", type=Path, required=True, help=TEXT_FORM)
    parser.add_argument("--work", type=Path, required=True, help="spm.model and pieces/ go here")
    args = parser.parse_args()
    check_files(parser, "text", text_files(args.text))
    cut_into_pieces(args.text, args.work / "spm", args.work / "pieces")


def text_files(text: Path) -> list[Path]:
    return [text / f"{name}.{language}" for name in SPLITS.values() for language in LANGUAGES]


def preprocess(text: Path, work: Path) -> Path:
    """Trains sentencepieces on both languages and binarises the pieces of the text, once."""
    data, pieces = work / "data", work / "pieces"

    def make() -> None:
        cut_into_pieces(text, work / "spm", pieces)
        binarise(dict.fromkeys(SPLITS, pieces), data)

    made_from = {"text": digests(text_files(text)), "pieces": PIECES}
    make_once(work, made_from, last_file(data), make)
    return data


def distil(work: Path, teacher: Path) -> Path:
    """As `preprocess`, whose data it needs, with a model's translations of the training text.

    Sequence-level knowledge distillation (Kim and Rush 2016, section 3.2): the target of each
    training sentence is what the teacher's beam search makes of it.
    """
    original, pieces = work / "data", work / "pieces"
    folder = work / f"distilled-by-{teacher.parent.name}"

    def make() -> None:
        lines = generate(original, teacher, "dense", subset="train")
        made = folder / "pieces"
        made.mkdir(exist_ok=True)
        shutil.copy(pieces / f"train.{SOURCE}", made)
        write_lines(made / f"train.{TARGET}", lines)
        splits = {split: made if split == "train" else pieces for split in SPLITS}
        binarise(splits, folder / "data", "--srcdict", original / f"dict.{SOURCE}.txt")

    data = folder / "data"
    make_once(folder, {"teacher": digests([teacher])}, last_file(data), make)
    return data


def binarise(pieces: dict[str, Path], data: Path, *options: object) -> None:
    """fairseq-preprocess of each split's folder of pieces, with one dictionary."""
    # It refuses a folder that an interrupted run has left.
    shutil.rmtree(data, ignore_errors=True)
    prefixes = [a for split, folder in pieces.items() for a in (f"--{split}pref", folder / split)]
    languages = ("--source-lang", SOURCE, "--target-lang", TARGET)
    fairseq(
        *("preprocess", *languages, "--joined-dictionary", *prefixes, "--destdir", data),
        *options,
    )


def last_file(data: Path) -> Path:
    """The one that fairseq-preprocess writes last."""
    return data / f"test.{SOURCE}-{TARGET}.{TARGET}.idx"


def cut_into_pieces(text: Path, model: Path, pieces: Path) -> None:
    """Trains model.model on the training text and writes the pieces of every split."""
    pieces.mkdir(parents=True, exist_ok=True)
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
            write_lines(pieces / f"{split}.{language}", map(" ".join, encoded))


def generate(
    data: Path, checkpoint: Path, packed: str, *options: str, subset: str = "test"
) -> list[str]:
    """The best of a beam of 5 for each line of a subset, in the order of its lines, as pieces."""
    output = fairseq(
        *("generate", data, "--user-dir", USER_DIR, "--path", checkpoint, "--gen-subset", subset),
        *("--beam", 5, "--batch-size", 32, "--max-len-a", 2, "--max-len-b", 10, *options),
        *("--model-overrides", f"{{'packed': '{packed}'}}"),
    )
    return list(generated(output).values())


def translate(data: Path, checkpoint: Path, packed: str) -> list[str]:
    """The test set's translations, detokenised, in the order of its lines."""
    return generate(data, checkpoint, packed, "--post-process", "sentencepiece")


def read_lines(path: Path) -> list[str]:
    """As fairseq counts them; str.splitlines also splits at characters that text may contain."""
    with path.open(encoding="utf-8") as file:
        return [line.removesuffix("\n") for line in file]


def write_lines(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    main()
