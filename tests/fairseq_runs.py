"""Small real runs of fairseq's commands, in this process: importing fairseq takes seconds."""

import random
from pathlib import Path

import torch
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq_cli import eval_lm, generate, preprocess, train

import fairseq_rnnprune.plugin  # noqa: F401

WORDS = [f"word{i}" for i in range(12)] + ["the", "cat", "dog"]

MODEL = (
    *("--task", "language_modeling", "--arch", "rnnprune_gru_lm", "--decoder-embed-dim", "12"),
    *("--decoder-hidden-size", "16", "--dropout", "0.2", "--tokens-per-sample", "16"),
)
# Every matrix is pruned to the target, by magnitude.
MAGNITUDE = ("--prune-fisher-power", "0")
# Masks change after updates 2, 4, 6 and 8 of ten.
PRUNED = (
    *MAGNITUDE,
    *("--optimizer", "pruned", "--prune-start", "1", "--prune-end", "9", "--prune-freq", "2"),
    *("--prune-sparsity", "0.8"),
)
# Pruned at the last update that the training is expected to make.
ONE_SHOT = (
    *MAGNITUDE,
    *("--optimizer", "pruned", "--prune-schedule", "one-shot", "--prune-sparsity", "0.8"),
)
FP16 = ("--fp16", "--fp16-no-flatten-grads")
# After one update.
STOPPED = ("--stop-time-hours", "1e-9")
# What these prune of MODEL.
WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "output_projection.weight")


def make_data(folder: Path, lines: int = 120) -> Path:
    """Writes and binarises random sentences; returns the data folder."""
    rng = random.Random(0)
    for split, count in (("train", lines), ("valid", 15), ("test", 21)):
        sentences = (" ".join(rng.choices(WORDS, k=rng.randint(3, 9))) for _ in range(count))
        (folder / f"{split}.txt").write_text("\n".join(sentences) + "\n")
    parser = options.get_preprocessing_parser()
    arguments = ["--only-source", "--destdir", str(folder / "data")]
    for split in ("train", "valid", "test"):
        arguments += [f"--{split}pref", str(folder / f"{split}.txt")]
    preprocess.main(parser.parse_args(arguments))
    return folder / "data"


def train_arguments(data: Path, save_dir: Path, *more: str) -> list[str]:
    """Command line of a run of ten updates, with a checkpoint every five, without validation."""
    return [
        str(data),
        *MODEL,
        *("--save-dir", str(save_dir), "--seed", "3", "--batch-size", "8", "--lr", "0.01"),
        *("--clip-norm", "1.0", "--max-update", "10", "--save-interval-updates", "5"),
        *("--disable-validation", "--num-workers", "0", "--cpu"),
        *("--log-format", "json", "--log-interval", "1", *more),
    ]


def train_with(arguments: list[str]) -> None:
    """Runs fairseq-train."""
    args = options.parse_args_and_arch(options.get_training_parser(), arguments)
    train.main(convert_namespace_to_omegaconf(args))


def generate_with(arguments: list[str]) -> None:
    """Runs fairseq-generate, which prints to standard output."""
    args = options.parse_args_and_arch(options.get_generation_parser(), arguments)
    generate.main(convert_namespace_to_omegaconf(args))


def run_train(data: Path, save_dir: Path, *more: str) -> dict:
    """Runs fairseq-train and returns its last checkpoint."""
    train_with(train_arguments(data, save_dir, *more))
    return load(save_dir / "checkpoint_last.pt")


def run_eval_lm(data: Path, checkpoint: Path, *more: str) -> float:
    """Runs fairseq-eval-lm and returns the perplexity."""
    arguments = [str(data), "--path", str(checkpoint), "--num-workers", "0", "--cpu", *more]
    args = options.parse_args_and_arch(options.get_eval_lm_parser(), arguments)
    return float(eval_lm.main(convert_namespace_to_omegaconf(args))["perplexity"])


def run_generate(data: Path, checkpoint: Path, *more: str) -> None:
    """Runs fairseq-generate, which prints to standard output."""
    arguments = [str(data), "--task", "language_modeling", "--path", str(checkpoint)]
    arguments += ["--num-workers", "0", "--cpu", "--max-len-b", "12", *more]
    generate_with(arguments)


def load(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def prunable(state: dict) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint that PRUNED prunes, by name."""
    return {n: w for n, w in state["model"].items() if n.endswith(WEIGHTS)}


def masks(state: dict) -> dict[str, torch.Tensor]:
    """The block masks of a checkpoint."""
    return state["last_optimizer_state"]["rnnprune"]["masks"]


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    """Bit for bit."""
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def sparsity(tensor: torch.Tensor) -> float:
    """Fraction of zeros."""
    return float((tensor == 0).float().mean())
