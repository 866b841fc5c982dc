"""A language model for the made-up corpus of recordings."""

from pathlib import Path

from fairseq import options
from fairseq_cli import preprocess
from fairseq_runs import run_train
from speech_corpus import TEXTS


def train_on_texts(data: Path, folder: Path) -> Path:
    """Trains an rnnprune_gru_lm on the texts of a prepared corpus; returns its checkpoint."""
    letters = [" ".join(text.replace(" ", "|")) for text in TEXTS]
    (folder / "train.txt").write_text("\n".join(letters) + "\n")
    arguments = ["--only-source", "--destdir", str(folder / "data"), "--srcdict"]
    arguments += [str(data / "dict.txt"), "--trainpref", str(folder / "train.txt")]
    preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
    more = ["--sample-break-mode", "eos", "--max-update", "40", "--dropout", "0"]
    run_train(folder / "data", folder / "model", *more, "--optimizer", "adam")
    return folder / "model" / "checkpoint_last.pt"
