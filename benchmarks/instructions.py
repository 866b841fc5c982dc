"""How many instructions a GRU's step takes on ARM, counted by an emulator.

    python benchmarks/instructions.py [--hidden 384 656]

Compiles instructions.cpp with the package's kernels for aarch64 and runs it under qemu-user
(Debian: `apt-get install g++-aarch64-linux-gnu qemu-user`), which writes a line for every
instruction. What more steps take, less what fewer take, is the steps' own. It says what a processor
has to do, not how long that takes: batch 1, one thread, random masks.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from native import FOLDER, KERNELS

from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.sparse.cpu_library import DTYPES

COMPILER = ["aarch64-linux-gnu-g++", "-std=c++17", "-O3", "-static", "-Wno-psabi", f"-I{KERNELS}"]
INSTRUCTION_SETS = ("neon_dot", "baseline")
FORMATS = {
    "fp32-16x1": (16, 1, "float32"),
    "bf16-16x1": (16, 1, "bfloat16"),
    "bf16-8x8": (8, 8, "bfloat16"),
    "int16-16x4": (16, 4, "int16"),
    "int8-16x4": (16, 4, "int8"),
    "int8-8x8": (8, 8, "int8"),
    "int8-4x4": (4, 4, "int8"),
}
FEW, MANY = 1, 3


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--hidden", type=int, nargs="+", default=[384, 656])
    options.add_argument("--sparsity", type=float, default=0.9)
    options.add_argument("--out", type=Path, default=FOLDER / "results" / "instructions_aarch64")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "instructions")
        sources = [str(KERNELS / "kernels.cpp"), str(FOLDER / "instructions.cpp")]
        subprocess.run([*COMPILER, *sources, "-o", str(program)], check=True)
        for hidden in arguments.hidden:
            for name in INSTRUCTION_SETS:
                record(arguments, program, name, hidden)


def record(arguments: argparse.Namespace, program: Path, instruction_set: str, hidden: int) -> None:
    """Writes the result of one size and instruction set."""
    density = 1 - arguments.sparsity
    figures = {
        "dense": of_a_step(program, instruction_set, hidden, 1.0, *FORMATS["fp32-16x1"]),
        **{
            name: of_a_step(program, instruction_set, hidden, density, *form)
            for name, form in FORMATS.items()
        },
    }
    path = save_result(
        arguments.out,
        f"instructions-h{hidden}-{instruction_set}",
        1,
        f"python benchmarks/instructions.py --hidden {hidden} --sparsity {arguments.sparsity:g}",
        figures,
        instruction_set=instruction_set,
        hidden=hidden,
        sparsity=arguments.sparsity,
    )
    print(f"written to {path}", flush=True)


def of_a_step(
    program: Path, name: str, hidden: int, density: float, rows: int, columns: int, dtype: str
) -> int:
    """Instructions of one step of a GRU in one format."""
    numbers = {str(key).removeprefix("torch."): number for key, number in DTYPES.items()}
    model = [name, hidden, f"{density:g}", rows, columns, numbers[dtype]]
    few, many = (executed([program, *model, steps]) for steps in (FEW, MANY))
    return (many - few) // (MANY - FEW)


def executed(command: list[object]) -> int:
    """How many instructions a program takes."""
    with tempfile.NamedTemporaryFile() as log:
        logged = [one_by_one(), "-d", "nochain,exec", "-D", log.name]
        subprocess.run(["qemu-aarch64", *logged, *map(str, command)], check=True)
        return sum(line.startswith(b"Trace") for line in Path(log.name).open("rb"))


@cache
def one_by_one() -> str:
    """qemu's option to log every instruction, whose name has changed with version 8.1."""
    usage = subprocess.run(["qemu-aarch64", "--help"], capture_output=True, text=True).stdout
    return "-one-insn-per-tb" if "one-insn-per-tb" in usage else "-singlestep"


if __name__ == "__main__":
    main()
