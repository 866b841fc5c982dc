"""Recipes: run fairseq's commands, and keep one JSON file per finished run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .provenance import environment


class CommandFailed(RuntimeError):
    """A command that ended with another exit status than 0."""


def fairseq(command: str, *arguments: object, log: Path | None = None) -> str:
    """Runs `fairseq-<command>` in this Python and returns what it printed.

    Output goes to `log` as it comes, if given. CommandFailed with the last lines if it fails.
    """
    return run(in_this_python([f"fairseq-{command}", *map(str, arguments)]), log)


def rnnprune(*arguments: object, log: Path | None = None) -> str:
    """Runs the `rnnprune` command in this Python and returns what it printed."""
    return run(in_this_python(["rnnprune", *map(str, arguments)]), log)


def in_this_python(command: Sequence[str]) -> list[str]:
    """A command line, in which `fairseq-<command>` and `rnnprune` are run by this Python."""
    program, *arguments = command
    if program == "rnnprune":
        return [sys.executable, "-m", "fairseq_rnnprune.cli", *arguments]
    if program.startswith("fairseq-"):
        module = program.removeprefix("fairseq-").replace("-", "_")
        return [sys.executable, "-m", f"fairseq_cli.{module}", *arguments]
    return [program, *arguments]


def run(command: Sequence[str], log: Path | None = None) -> str:
    """Runs a command; CommandFailed with its last lines if it fails."""
    lines = []
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "errors": "replace"}
    with (
        open(log or os.devnull, "a", encoding="utf-8") as file,
        subprocess.Popen(command, text=True, **pipes) as process,
    ):
        for line in process.stdout:
            lines.append(line)
            file.write(line)
            file.flush()
    if process.returncode:
        raise CommandFailed(
            f"run: expected exit status 0, got {process.returncode} from "
            f"{shlex.join(command)}\n{''.join(lines[-15:])}"
        )
    return "".join(lines)


def generated(generate_output: str) -> dict[int, str]:
    """Reads the best text of each line, by its number, from fairseq-generate's output."""
    found = re.findall(r"^D-(\d+)\t[^\t]*\t(.*)$", generate_output, re.M)
    return {int(number): text for number, text in sorted(found, key=lambda line: int(line[0]))}


def perplexity(eval_lm_output: str) -> tuple[float, int]:
    """Reads the perplexity and the number of evaluated tokens from fairseq-eval-lm's output."""
    found = re.search(r"Perplexity: ([\d.]+)", eval_lm_output)
    tokens = re.search(r"Evaluated ([\d,]+) tokens", eval_lm_output)
    if not found or not tokens:
        raise ValueError(
            "perplexity: expected the output of fairseq-eval-lm, got no 'Perplexity' line in it"
        )
    return float(found[1]), int(tokens[1].replace(",", ""))


def calibrated_q(dense: Path) -> str:
    """q by type for --prune-q, read from a dense model's checkpoint."""
    types = json.loads(rnnprune("calibrate", dense, "--json"))["types"]
    return ",".join(f"{type_}={figures['q']:.5g}" for type_, figures in types.items())


def count_parameters(checkpoint: Path) -> dict[str, int]:
    """Parameters of the model, tied ones once, and those that are not zero.

    Statistics of batch normalisation are among them.
    """
    # Imports torch, which starting commands does not need.
    from fairseq_rnnprune.checkpoint import read_checkpoint
    from fairseq_rnnprune.pruning import tensor_identity

    tensors = read_checkpoint(checkpoint).model.values()
    tensors = {tensor_identity(t): t for t in tensors if t.is_floating_point()}.values()
    return {
        "parameters": sum(t.numel() for t in tensors),
        "kept_parameters": sum(int(t.count_nonzero()) for t in tensors),
    }


def training_rows(log: Path) -> list[dict[str, Any]]:
    """The `train` summary of every epoch in a fairseq JSON log: keys without `train_`.

    Of an epoch that was interrupted and summed up twice, the last one.
    """
    rows, text = [], log.read_text(encoding="utf-8", errors="replace")
    # Of fairseq-train, and of fairseq-hydra-train.
    for row in re.findall(r"(?:\| train \||\[train\]\[INFO\] -) (\{.*)", text):
        # A killed training may leave part of a row, to which the next one adds its first line.
        with contextlib.suppress(ValueError):
            rows.append(json.loads(row))
    # Other programs log JSON as well.
    epochs = {row["epoch"]: row for row in rows if "epoch" in row}
    if not epochs:
        raise ValueError(f"training_rows: expected fairseq's JSON log, got no row in {log}")
    return [{k.removeprefix("train_"): v for k, v in row.items()} for row in epochs.values()]


def final_sparsity(log: Path) -> dict[str, Any]:
    """Fraction of zeros at the end of training: of all prunable weights and by type."""
    last = training_rows(log)[-1]
    by_type = {
        key.removeprefix("sparsity_"): float(value)
        for key, value in last.items()
        if key.startswith("sparsity_")
    }
    return {"sparsity": float(last.get("sparsity", 0)), "sparsity_by_type": by_type}


def training_seconds(log: Path) -> float:
    """Seconds of all updates, validation left out; fairseq's `wall` is 0 after a resume."""
    return sum(float(row["train_wall"]) for row in training_rows(log))


def save_result(
    folder: Path, name: str, seed: int, command: str, figures: Mapping[str, Any], **more: Any
) -> Path:
    """Writes folder/name-s<seed>.json; the file is complete or absent, never half written."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}-s{seed}.json"
    result = {"name": name, "seed": seed, "command": command, **environment(), **more}
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({**result, "figures": dict(figures)}, indent=1) + "\n")
    temporary.replace(path)
    return path
