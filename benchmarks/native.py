"""The kernels without Python around them, and how near they are to the memory's speed.

    python benchmarks/native.py [--opus CHECKOUT]

Compiles native.cpp with the package's kernels. Of each format: the least time of a GRU's step (in a
sequence of 64) and of a product, batch 1, one thread, random masks; and of reading as many bytes.
With a checkout of Opus (1.5 or later, https://gitlab.xiph.org/xiph/opus) the same of the kernels of
its networks, which take up to 2016 inputs in int8.
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
    options.add_argument("--opus", type=Path, metavar="CHECKOUT", help="compare with its kernels")
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
        subprocess.run([compiler, *FLAGS, *more, "-o", str(program)], check=True)
        for hidden in arguments.hidden:
            command = [str(program), str(hidden), str(1 - arguments.sparsity)]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            record(arguments, hidden, [json.loads(line) for line in lines.splitlines()])


def record(arguments: argparse.Namespace, hidden: int, rows: list[dict[str, float]]) -> None:
    """Writes the result of one size."""
    figures = {}
    for row in rows:
        row["of_roofline"] = row["read_us"] / row["product_us"]
        row["gb_per_s"] = row["bytes"] / row["read_us"] / 1e3
        figures[row.pop("format")] = row
    path = save_result(
        arguments.out,
        f"native-h{hidden}",
        1,
        f"python benchmarks/native.py --hidden {hidden} --sparsity {arguments.sparsity:g}"
        + (" --opus CHECKOUT" if arguments.opus else ""),
        figures,
        hidden=hidden,
        sparsity=arguments.sparsity,
    )
    print(f"written to {path}", flush=True)


if __name__ == "__main__":
    main()
