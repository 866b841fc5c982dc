"""Small real runs of fairseq's commands on a made-up corpus of recordings, in this process."""

from pathlib import Path

from fairseq_runs import generate_with, train_with
from speech_corpus import make_corpus

from fairseq_rnnprune import cli

MODEL = (
    *("--task", "rnnprune_speech", "--arch", "rnnprune_deepspeech2", "--hidden-size", "16"),
    *("--conv-channels", "12", "--dropout", "0.1"),
)
PRUNED = (
    *("--optimizer", "pruned", "--prune-types", "recurrent,input", "--prune-sparsity", "0.8"),
    *("--prune-start", "1", "--prune-end", "5", "--prune-freq", "2"),
)


def prepare_corpus(folder: Path) -> Path:
    """Writes a corpus and prepares it as `rnnprune prepare` does."""
    make_corpus(folder)
    assert cli.main(["prepare", str(folder), "--mel-bins", "20"]) == 0
    return folder


def run_train(data: Path, save_dir: Path, *more: str) -> Path:
    """Runs fairseq-train for six updates, unless told otherwise; returns its last checkpoint."""
    arguments = [
        str(data),
        *MODEL,
        *("--criterion", "ctc", "--zero-infinity", "--post-process", "letter"),
        *("--save-dir", str(save_dir), "--seed", "3", "--batch-size", "4", "--lr", "0.01"),
        *("--clip-norm", "1.0", "--max-update", "6", "--optimizer", "adam", "--num-workers", "0"),
        *("--required-batch-size-multiple", "1", "--cpu", "--no-epoch-checkpoints"),
        *("--log-format", "json", "--log-interval", "1", *more),
    ]
    train_with(arguments)
    return save_dir / "checkpoint_last.pt"


def run_generate(data: Path, checkpoint: Path, *more: str) -> None:
    """Runs fairseq-generate, which prints to standard output."""
    arguments = [str(data), "--task", "rnnprune_speech", "--path", str(checkpoint), "--cpu"]
    arguments += ["--batch-size", "3", "--beam", "1", "--num-workers", "0"]
    arguments += ["--post-process", "letter", "--scoring", "cer_wer", *more]
    generate_with(arguments)
