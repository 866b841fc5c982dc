"""Runs all benchmarks one after another, the most important first, and skips what is done.

    OMP_NUM_THREADS=1 python benchmarks/suite.py [--only gru step] [--again] [--list]

Done is a benchmark whose result files are all there, and come from a commit in which the code that
they measure was as it is now; later commits of results or prose make none old.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
RESULTS = FOLDER / "results"
# Layers of the paper (1704.05119: 1760, 2560, 3584) and smaller ones.
SIZES = (2560, 656, 384, 1760, 512, 1504, 3584)
BATCHES = (1, 2, 4, 16, 32, 64)
SPARSITIES = (0.5, 0.7, 0.8, 0.95)
# What decides a figure: a change elsewhere does not make a result old.
MEASURED = (
    *("fairseq_rnnprune/sparse", "fairseq_rnnprune/layers", "fairseq_rnnprune/models"),
    "fairseq_rnnprune/bench/timing.py",
)
SCRIPTS = ("harness.py", "subjects.py")
MORE = {
    script: ("fairseq_generate.py", "timed_generate.py")
    for script in ("generate.py", "translate.py")
}


@dataclass(frozen=True)
class Job:
    """One command, the folder of its results and their names."""

    kind: str
    script: str
    options: str
    names: tuple[str, ...]

    def command(self, results: Path) -> list[str]:
        return [
            *(sys.executable, str(FOLDER / self.script), *shlex.split(self.options)),
            *("--out", str(results / self.kind)),
        ]

    def is_done(self, results: Path) -> bool:
        paths = [results / self.kind / f"{name}-s1.json" for name in self.names]
        if not all(path.exists() for path in paths):
            return False
        commits = {json.loads(path.read_text())["commit"] for path in paths}
        return all(same_code(commit, self.script) for commit in commits)


def jobs() -> Iterator[Job]:
    """All of them, in the order in which they run."""

    def kernels(
        kind: str,
        operation: str,
        hidden: int,
        sparsities: Sequence[float],
        batches: Sequence[int],
        more: str,
    ) -> Job:
        names = (
            f"{operation}-h{hidden}-p{100 * p:.0f}-b{b}-t1" for p in sparsities for b in batches
        )
        lists = f"--sparsity {' '.join(map(str, sparsities))} --batch {' '.join(map(str, batches))}"
        options = f"{operation} --hidden {hidden} {lists} {more}"
        return Job(kind, "kernels.py", options, tuple(names))

    for hidden in SIZES:
        yield kernels("gru", "gru", hidden, [0.9], [1], "--seconds 10")
    yield kernels("gru_sparsity", "gru", 2560, SPARSITIES, [1], "--seconds 8")
    yield kernels("matmul", "matmul", 2560, [0.9], [1], "--seconds 10")
    yield Job("step", "step.py", "--hidden 512 --input 1", ("step-h512-i1-p90",))
    for hidden in (512, 1504, 2560):
        yield Job("break_even", "break_even.py", f"--hidden {hidden}", (f"break-even-h{hidden}",))
    masks = (("1x1", 80), ("1x1", 90), ("1x1", 95), ("4x4", 50), ("4x4", 90))
    layers = [f"gru-h{h}" for h in (64, 128, 256, 384, 768, 1504)]
    layers += [f"linear-{m}" for m in ("256x128", "512x256", "1024x256", "10000x512")]
    names = tuple(f"{layer}-{mask}-p{p}" for layer in layers for mask, p in masks)
    yield Job("auto", "auto.py", "", names)
    # The fast int8 kernel is for blocks of 16 x 4.
    for rows, columns, beam, prompts in ((16, 1, 1, 60), (16, 1, 5, 30), (16, 4, 1, 60)):
        options = f"--block {rows} {columns} --beam {beam} --prompts {prompts}"
        name = f"generate-h2560-{rows}x{columns}-beam{beam}"
        yield Job("generate", "generate.py", options, (name,))
    names = tuple(f"translate-h1024-16x4-batch{batch}" for batch in (1, 32))
    yield Job("translate", "translate.py", "", names)
    for size in ("2x320", "3x2560", "7x1760", "3x3568", "7x2560", "7x3072"):
        yield Job("speech", "speech.py", f"--size {size}", (f"rtf-{size}",))
    for hidden in (384, 512, 656, 1760, 2560):
        yield Job("threads", "threads.py", f"--hidden {hidden}", (f"threads-h{hidden}",))
    for hidden in SIZES:
        yield kernels("gru", "gru", hidden, [0.9], BATCHES[1:], "--seconds 3")
    yield kernels("gru_sparsity", "gru", 512, SPARSITIES, [1], "--seconds 5")
    for hidden in SIZES:
        batches = BATCHES[1:] if hidden == 2560 else BATCHES
        yield kernels("matmul", "matmul", hidden, [0.9], batches, "--seconds 3")


def same_code(commit: str, script: str) -> bool:
    """Whether what is measured is in this checkout as it was in that commit."""
    scripts = (*SCRIPTS, script, *MORE.get(script, ()))
    files = [*MEASURED, *(f"benchmarks/{name}" for name in scripts)]
    command = ["git", "-C", str(ROOT), "diff", "--quiet", commit, "--", *files]
    return subprocess.run(command, capture_output=True).returncode == 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    kinds = list(dict.fromkeys(job.kind for job in jobs()))
    parser.add_argument("--only", nargs="+", choices=kinds, default=kinds)
    parser.add_argument("--again", action="store_true", help="even what is done")
    parser.add_argument("--list", action="store_true", help="print the commands, run nothing")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results' folders")
    arguments = parser.parse_args()
    failed = []
    for job in jobs():
        if job.kind not in arguments.only:
            continue
        if not arguments.again and job.is_done(arguments.out):
            print(f"done before: {job.script} {job.options}", flush=True)
            continue
        print(f"python benchmarks/{job.script} {job.options}", flush=True)
        if arguments.list:
            continue
        started = time.monotonic()
        if subprocess.run(job.command(arguments.out)).returncode:
            failed.append(f"{job.script} {job.options}")
        print(f"took {time.monotonic() - started:.0f} s", flush=True)
    if failed:
        raise SystemExit("suite: these failed:\n" + "\n".join(failed))


if __name__ == "__main__":
    main()
