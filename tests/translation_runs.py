"""Small real runs of fairseq's commands on a translation task, in this process."""

import random
import re
from pathlib import Path

from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import interactive, preprocess
from fairseq_runs import generate_with, train_with

WORDS = "a bird cat dog eats fish grass house is near old the".split()
TEST_LINES = 13
MODEL = (
    *("--task", "translation", "--arch", "rnnprune_gru_seq2seq", "--share-all-embeddings"),
    *("--encoder-embed-dim", "16", "--decoder-embed-dim", "16"),
    *("--encoder-hidden-size", "16", "--decoder-hidden-size", "24", "--decoder-layers", "2"),
)


def make_pairs(folder: Path, lines: int = 200) -> Path:
    """Writes and binarises sentences whose translation is the sentence; returns the data folder."""
    rng = random.Random(0)
    for split, count in (("train", lines), ("valid", 11), ("test", TEST_LINES)):
        sentences = [" ".join(rng.choices(WORDS, k=rng.randint(1, 7))) for _ in range(count)]
        for language in ("en", "de"):
            (folder / f"{split}.{language}").write_text("\n".join(sentences) + "\n")
    return binarise(folder, folder / "data")


def binarise(folder: Path, data: Path) -> Path:
    """Runs fairseq-preprocess on the text in a folder; returns the data folder."""
    arguments = ["-s", "en", "-t", "de", "--joined-dictionary", "--destdir", str(data)]
    for split in ("train", "valid", "test"):
        arguments += [f"--{split}pref", str(folder / split)]
    preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
    return data


def train_pairs(data: Path, save_dir: Path, *more: str, disable_validation: bool = True) -> Path:
    """Runs fairseq-train and returns its last checkpoint."""
    arguments = [
        str(data),
        *MODEL,
        *("--save-dir", str(save_dir), "--seed", "3", "--batch-size", "20", "--lr", "0.02"),
        *("--clip-norm", "1.0", "--max-update", "150", "--no-epoch-checkpoints"),
        *(["--disable-validation"] if disable_validation else []),
        *("--num-workers", "0", "--cpu", "--log-format", "none", *more),
    ]
    train_with(arguments)
    return save_dir / "checkpoint_last.pt"


def run_generate(data: Path, checkpoint: Path, *more: str) -> None:
    """Runs fairseq-generate on the test set, which prints to standard output."""
    arguments = [str(data), "--path", str(checkpoint), "--num-workers", "0", "--cpu"]
    arguments += ["--max-len-b", "10", "--beam", "3", "--batch-size", "4", *more]
    generate_with(arguments)


def run_interactive(data: Path, checkpoint: Path, text: Path, *more: str) -> None:
    """Runs fairseq-interactive on the lines of a file, which prints to standard output."""
    arguments = [str(data), "--path", str(checkpoint), "--cpu", "--input", str(text)]
    arguments += ["--max-len-b", "10", "--beam", "3", *more]
    args = options.parse_args_and_arch(options.get_interactive_generation_parser(), arguments)
    interactive.main(convert_namespace_to_omegaconf(args))


def printed(output: str, letter: str) -> dict[int, str]:
    """The last field of the lines of one kind ("H", "D", "A", ...), by number of the sentence."""
    lines = re.findall(rf"^{letter}-(\d+)\t(?:[^\t\n]*\t)?([^\t\n]*)$", output, re.M)
    assert len(lines) == len(dict(lines))
    return {int(number): text for number, text in lines}
