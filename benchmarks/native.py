"""The kernels without Python around them, and how near they are to the memory's speed.

    python benchmarks/native.py [--opus CHECKOUT] [--lyra CHECKOUT] [--deepsparse PYTHON]

Compiles native.cpp with the package's kernels. Of each format: the least time of a GRU's step (in a
sequence of 64) and of a product, batch 1, one thread, random masks; and of reading as many bytes.
The formats take turns, one process after another, for a machine's speed changes with time, and
with where a process's arrays lie. The same, or a product alone, of others' kernels where they are
named:

- Opus 1.5 or later (https://gitlab.xiph.org/xiph/opus), up to 2016 inputs in int8;
- Lyra (https://github.com/google/lyra), whose headers want those of abseil and glog;
- DeepSparse 1.8, with the Python of an environment that has it (`pip install deepsparse==1.8.0`).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from pathlib import Path

from fairseq_rnnprune.experiment import save_result

FOLDER = Path(__file__).resolve().parent
KERNELS = FOLDER.parent / "fairseq_rnnprune" / "sparse" / "csrc"
# As in setup.py; the loop that only reads may use everything that this processor has.
FLAGS = (
    "-std=c++17 -O3 -fopenmp -Wall -Wextra -Wno-psabi -Wno-maybe-uninitialized -Wno-uninitialized"
).split()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--hidden", type=int, nargs="+", default=[384, 512, 656, 1760, 2560])
    options.add_argument("--sparsity", type=float, default=0.9)
    options.add_argument("--instruction-set", metavar="NAME", help="instead of the best one here")
    options.add_argument("--rounds", type=int, default=3, help="the least of them counts")
    options.add_argument("--opus", type=Path, metavar="CHECKOUT", help="compare with its kernels")
    options.add_argument("--lyra", type=Path, metavar="CHECKOUT", help="the same")
    options.add_argument("--deepsparse", type=Path, metavar="PYTHON", help="the same")
    options.add_argument("--out", type=Path, default=FOLDER / "results" / "native")
    arguments = options.parse_args()
    compiler = os.environ.get("CXX", "g++")
    with tempfile.TemporaryDirectory() as folder:
        kernels, program = Path(folder, "kernels.o"), Path(folder, "native")
        source = ["-c", str(KERNELS / "kernels.cpp"), "-o", str(kernels)]
        subprocess.run([compiler, *FLAGS, *source], check=True)
        more = ["-march=native", "-I", str(KERNELS), str(FOLDER / "native.cpp"), str(kernels)]
        if arguments.opus:
            folders = (arguments.opus / part for part in ("", "include", "dnn"))
            more += ["-DOPUS", *(f"-I{folder}" for folder in folders)]
        if arguments.lyra:
            source = arguments.lyra / "sparse_matmul/compute/matmul_fixed_avx2.cc"
            more += ["-DLYRA", f"-I{arguments.lyra}", "-Wno-unused-parameter", str(source)]
        subprocess.run([compiler, *FLAGS, *more, "-o", str(program)], check=True)
        for hidden in arguments.hidden:
            sizes = [str(hidden), f"{1 - arguments.sparsity:g}"]
            wanted = [arguments.instruction_set] if arguments.instruction_set else []
            rows = least([str(program), *sizes, *wanted], arguments.rounds)
            if arguments.deepsparse:
                script = str(FOLDER / "deepsparse_peer.py")
                rows += rows_of([str(arguments.deepsparse), script, *sizes])
            record(arguments, hidden, rows)


def least(command: list[str], rounds: int) -> list[dict[str, float]]:
    """The rows of so many runs of a command, with the least of each row's times."""
    runs = [rows_of(command) for _ in range(rounds)]
    return [
        {
            name: min(row[name] for row in rows) if name.endswith("_us") else value
            for name, value in rows[0].items()
        }
        for rows in zip(*runs, strict=True)
    ]


def rows_of(command: list[str]) -> list[dict[str, float]]:
    """The rows that a command prints, one JSON object a line; SystemExit where it fails."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: exit status {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def record(arguments: argparse.Namespace, hidden: int, rows: list[dict[str, float]]) -> None:
    """Writes the result of one size."""
    figures = {}
    for row in rows:
        if "read_us" in row:
            row["of_roofline"] = row["read_us"] / row["product_us"]
            row["gb_per_s"] = row["bytes"] / row["read_us"] / 1e3
        figures[row.pop("format")] = row
    path = save_result(
        arguments.out,
        f"native-h{hidden}",
        1,
        f"python benchmarks/native.py --hidden {hidden} --sparsity {arguments.sparsity:g}"
        f" --rounds {arguments.rounds}"
        + (f" --instruction-set {arguments.instruction_set}" if arguments.instruction_set else "")
        + (" --opus CHECKOUT" if arguments.opus else "")
        + (" --lyra CHECKOUT" if arguments.lyra else "")
        + (" --deepsparse PYTHON" if arguments.deepsparse else ""),
        figures,
        hidden=hidden,
        sparsity=arguments.sparsity,
    )
    print(f"written to {path}", flush=True)


if __name__ == "__main__":
    main()
