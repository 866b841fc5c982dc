"""`rnnprune transcribe` in this process, and models that have something to say."""

from pathlib import Path

import torch
from speech_corpus import make_damaged
from speech_runs import run_train

from fairseq_rnnprune import cli
from fairseq_rnnprune.speech.transcribe import add_transcribe


def train_talkative(data: Path, folder: Path, *more: str) -> Path:
    """A checkpoint of two updates whose output layer is drawn anew: they would teach it blank."""
    path = run_train(data, folder, "--max-update", "2", "--disable-validation", *more)
    state = torch.load(path, weights_only=True)
    torch.manual_seed(0)
    state["model"]["output.weight"].normal_(std=3)
    torch.save(state, path)
    return path


def make_command(monkeypatch, capfd):
    """The command as a function: status, standard output, standard error."""
    monkeypatch.setattr(cli, "COMMANDS", (add_transcribe,))

    def command(*arguments):
        status = cli.main(["transcribe", *map(str, arguments)])
        return status, *capfd.readouterr()

    return command


def damaged_files(folder: Path) -> list[Path]:
    return [path for path in make_damaged(folder).values() if not path.is_dir()]


def lines_of(out: str) -> dict[str, str]:
    """The texts by path."""
    return dict(line.split("\t") for line in out.splitlines())
