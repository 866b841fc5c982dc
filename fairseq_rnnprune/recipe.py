"""What the recipes of examples/ share: one command trains, evaluates and records one run."""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .experiment import CommandFailed, calibrated_q, fairseq, save_result

CALIBRATED = "CALIBRATED"
# What follows it in a run's options is another run's name.
FROM_MODEL = "--finetune-from-model"
# In the place of a run's name.
ALL = "all"


@dataclass(frozen=True)
class Recipe:
    """A script examples/NAME/run.py, its runs by name, and the option that names its data.

    `place` stands for a user's folder in the commands of the results.
    """

    script: Path
    runs: Collection[str]
    option: str
    place: str
    files: str

    @property
    def user_dir(self) -> Path:
        """The checkout's target of --user-dir."""
        return self.script.resolve().parent.parent.parent / "user_dir"

    def parser(self, description: str) -> argparse.ArgumentParser:
        """run, the data, --work and --seed."""
        parser = argparse.ArgumentParser(description=description.splitlines()[0])
        names = f"{', '.join(self.runs)}; {ALL}: one after another"
        parser.add_argument("run", choices=[*self.runs, ALL], metavar="RUN", help=names)
        parser.add_argument(f"--{self.option}", type=Path, required=True, help=self.files)
        parser.add_argument("--work", type=Path, required=True, help="data, checkpoints and logs")
        parser.add_argument("--seed", type=int, default=1)
        return parser

    def main(
        self,
        parser: argparse.ArgumentParser,
        files: Callable[[Path], Iterable[Path]],
        run: Callable[[argparse.ArgumentParser, argparse.Namespace], None],
    ) -> None:
        """Does what the command line asks for: one run, or all of them, in their order.

        `files` are those that the data's folder must have. A command that fails is the script's
        error, in its own words.
        """
        args = parser.parse_args()
        check_files(parser, self.option, files(getattr(args, self.option)))
        for name in self.runs if args.run == ALL else (args.run,):
            try:
                run(parser, argparse.Namespace(**{**vars(args), "run": name}))
            except CommandFailed as error:
                raise SystemExit(f"run.py: {name}: {error}") from error

    def train(
        self, args: argparse.Namespace, data: Path, options: Sequence[str]
    ) -> tuple[Path, Path]:
        """Trains, or goes on, until the end; returns the last checkpoint and the log."""
        folder = args.work / f"{args.run}-s{args.seed}"
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "train.log"
        saved = ("--save-dir", folder)
        fairseq("train", data, "--user-dir", self.user_dir, *options, *saved, log=log)
        return folder / "checkpoint_last.pt", log

    def save(
        self,
        args: argparse.Namespace,
        options: Sequence[str],
        figures: Mapping[str, Any],
        **more: Any,
    ) -> Path:
        """Writes the run's result beside the script, with the commands that give it."""
        folder = self.script.resolve().parent
        work = f"{args.work}/"
        named = (f"W/{o.removeprefix(work)}" if o.startswith(work) else o for o in options)
        return save_result(
            folder / "results",
            args.run,
            args.seed,
            f"python examples/{folder.name}/{self.script.name} {args.run} --seed {args.seed} "
            f"--{self.option} {self.place} --work W",
            figures,
            fairseq_train=shlex.join(["fairseq-train", "DATA", "--user-dir", "user_dir", *named]),
            **more,
        )


def calibrate(
    parser: argparse.ArgumentParser, args: argparse.Namespace, options: list[str], dense: str
) -> list[str]:
    """The options with q of the run `dense` in the place of CALIBRATED, if that is there.

    It is read once and kept in this run's folder: dense may train on. A user's error if the run of
    this seed has no checkpoint.
    """
    if CALIBRATED not in options:
        return options
    kept = args.work / f"{args.run}-s{args.seed}" / "q.txt"
    if kept.is_file():
        q = kept.read_text(encoding="utf-8")
    else:
        q = calibrated_q(dense_checkpoint(parser, args, dense))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(q, encoding="utf-8")
    return [q if option == CALIBRATED else option for option in options]


def begin_from(
    parser: argparse.ArgumentParser, args: argparse.Namespace, options: list[str]
) -> list[str]:
    """The options with the last checkpoint of the run after FROM_MODEL in the place of its name."""
    if FROM_MODEL not in options:
        return options
    place = options.index(FROM_MODEL) + 1
    checkpoint = dense_checkpoint(parser, args, options[place])
    return [*options[:place], str(checkpoint), *options[place + 1 :]]


def dense_checkpoint(parser: argparse.ArgumentParser, args: argparse.Namespace, dense: str) -> Path:
    """The last checkpoint of the run `dense` with this seed; a user's error if there is none."""
    checkpoint = args.work / f"{dense}-s{args.seed}" / "checkpoint_last.pt"
    if not checkpoint.is_file():
        parser.error(
            f"{args.run}: expected the dense model {checkpoint}, got none; "
            f"run {dense} with --seed {args.seed} first"
        )
    return checkpoint


def restarted(updates: int, warmup: int) -> list[str]:
    """Options of a cosine schedule that rises again after a third, and of pruning soon after that.

    The first third trains a dense model to its end, the rest prunes it as another training would:
    one training, no dense model needed (warm restarts: Loshchilov and Hutter 2017, section 3).
    """
    # One more, or the last update would begin a third cycle.
    period = (updates - warmup) // 3 + 1
    rest = updates - warmup - period
    options = {
        "--lr-period-updates": period,
        "--t-mult": 2,
        "--lr-shrink": 1,
        "--prune-start": warmup + period + round(0.05 * rest),
        "--prune-end": warmup + period + round(0.4 * rest),
    }
    return [word for option, value in options.items() for word in (option, str(value))]


def make_once(
    work: Path, made_from: Mapping[str, Any], last: Path, make: Callable[[], None]
) -> None:
    """Makes the data of a work folder unless its `last` file is there.

    SystemExit if that was made of anything else than `made_from`, which is noted in the folder.
    """
    stamp = work / "made_from.json"
    if last.exists():
        before = json.loads(stamp.read_text(encoding="utf-8")) if stamp.exists() else {}
        others = [name for name, value in made_from.items() if before.get(name) != value]
        if others:
            raise SystemExit(
                f"run.py: expected the {' and '.join(others)} that {work} was made from, got "
                "others; name a new --work"
            )
        return
    work.mkdir(parents=True, exist_ok=True)
    stamp.write_text(json.dumps(made_from, indent=1) + "\n", encoding="utf-8")
    make()


def check_files(parser: argparse.ArgumentParser, option: str, files: Iterable[Path]) -> None:
    """A user's error, naming the first file that is missing."""
    missing = [file for file in files if not file.is_file()]
    if missing:
        parser.error(
            f"--{option}: expected the file {missing[0]}, got none; the README tells its form"
        )


def digests(files: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of files by name."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
