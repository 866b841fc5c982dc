"""Compiles the Triton kernels ahead of time, without a GPU, and records what each program needs.

    OMP_NUM_THREADS=1 python benchmarks/triton_resources.py

For every kernel, target, block shape, dtype and tile of the batch: registers per thread, bytes of
registers spilled to memory, bytes of shared memory. A launch tells the compiler which sizes are
multiples of 16; of `aligned` programs all are, of `ragged` ones none, and of both the addresses of
the matrix's arrays, as torch places them. One result file per kernel and target. It says nothing
about time.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch

from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.sparse import triton_backend
from fairseq_rnnprune.sparse.triton_backend import BATCH_TILES, CONFIGS

RESULTS = Path(__file__).parent / "results" / "triton_resources"
KERNELS = ("matmul", "gru_step")
# Name -> Triton's backend, architecture and threads per warp.
TARGETS = {
    "sm_80": ("cuda", 80, 32),
    "sm_90": ("cuda", 90, 32),
    "gfx942": ("hip", "gfx942", 64),
}
# As Triton writes the dtypes of arrays.
DTYPES = {"fp32": "*fp32", "bf16": "*bf16", "fp16": "*fp16", "int16": "*i16", "int8": "*i8"}
SCALED = ("int16", "int8")
SIZES = ("B", "M", "K", "H", "gates")
ALIGNMENTS = ("aligned", "ragged")


def main() -> None:
    arguments = parse()
    for kernel, target in product(arguments.kernels, arguments.targets):
        programs = {}
        shapes = ["x".join(map(str, shape)) for shape in CONFIGS]
        choices = (shapes, DTYPES, map(str, BATCH_TILES), ALIGNMENTS)
        for choice in product(*(list(choice) for choice in choices)):
            name = " ".join(choice)
            if re.search(arguments.only, name):
                programs[name] = resources(kernel, target, *choice)
        if not programs:
            raise SystemExit(f"triton_resources: expected --only to match, got {arguments.only!r}")
        most = {key: max(p[key] for p in programs.values()) for key in ("spilled", "shared")}
        most["registers"] = max(p["registers"] for p in programs.values())
        path = save_result(
            arguments.out,
            f"{kernel}-{target}",
            0,
            f"python benchmarks/triton_resources.py {' '.join(sys.argv[1:])}".strip(),
            {"kernel": kernel, "target": target, "count": len(programs), **most},
            programs=programs,
            source=source_digest(),
        )
        print(f"{kernel} {target}: {len(programs)} programs, at most {most}; written to {path}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kernels", nargs="+", choices=KERNELS, default=KERNELS)
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--only", default="", help='names that match, as "16x1 int8 8 ragged"')
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder")
    return parser.parse_args()


def source_digest() -> str:
    """Of what programs are compiled from: results of another one say nothing about these."""
    text = Path(triton_backend.__file__).with_name("triton_kernels.py").read_text(encoding="utf-8")
    return hashlib.sha256(f"{text}{CONFIGS}{BATCH_TILES}".encode()).hexdigest()


def resources(
    kernel: str, target: str, block_shape: str, dtype: str, batch: str, alignment: str
) -> dict[str, int]:
    """What one program needs: `registers`, `spilled` bytes and `shared` bytes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fairseq_rnnprune.sparse import triton_kernels

    r, c = map(int, block_shape.split("x"))
    config = CONFIGS[r, c]
    function = getattr(triton_kernels, kernel)
    constants: dict[str, Any] = {"R": r, "C": c, "BLOCKS": config.blocks, "BATCH": int(batch)}
    if dtype not in SCALED:
        constants["scales"] = None
    types = {"values": DTYPES[dtype], "columns": "*u16", "pointers": "*i32"}
    types |= {name: "i32" for name in SIZES}
    types |= {name: "constexpr" for name in constants}
    signature = {name: types.get(name, "*fp32") for name in function.arg_names}
    attributes = {
        (i,): hints(function.params[i], kind, TARGETS[target][0], alignment)
        for i, kind in enumerate(signature.values())
    }
    source = ASTSource(function, signature, constants, attributes)
    compiled = triton.compile(source, target=GPUTarget(*TARGETS[target]), options=config.options)
    read = cuda_usage if TARGETS[target][0] == "cuda" else hip_usage
    return {**read(compiled.asm), "shared": compiled.metadata.shared}


def hints(parameter: Any, kind: str, backend: str, alignment: str) -> list[list[Any]]:
    """What a launch tells the compiler of an argument, unless the kernel says not to."""
    found: list[list[Any]] = []
    is_array = kind.startswith("*")
    ignored = parameter.do_not_specialize or parameter.do_not_specialize_on_alignment
    if kind != "constexpr" and not ignored and (is_array or alignment == "aligned"):
        found.append(["tt.divisibility", 16])
    # On AMD, too, that an array has less than 2 GB.
    if backend == "hip" and is_array:
        found.append(["tt.pointer_range", 32])
    return found


def cuda_usage(asm: dict[str, Any]) -> dict[str, int]:
    """Registers and spilled bytes of a cubin, as NVIDIA's cuobjdump reads them."""
    import triton

    # With Triton come the tools it calls; its cuobjdump reads the cubin of every target.
    cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(asm["cubin"])
        command = [cuobjdump, "--dump-resource-usage", cubin]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    usage = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", output)}
    return {"registers": usage["REG"], "spilled": usage["STACK"] + usage["LOCAL"]}


def hip_usage(asm: dict[str, Any]) -> dict[str, int]:
    """Vector registers and spilled bytes, from the metadata in AMD's assembly."""
    keys = "vgpr_count|vgpr_spill_count|sgpr_spill_count|private_segment_fixed_size"
    usage = {key: int(value) for key, value in re.findall(rf"\.({keys}):\s+(\d+)", asm["amdgcn"])}
    # Vector registers spill to scratch, whose size is in bytes; scalar ones to vector registers.
    scalars = 4 * usage["sgpr_spill_count"]
    vectors = max(usage["private_segment_fixed_size"], 4 * usage["vgpr_spill_count"])
    return {"registers": usage["vgpr_count"], "spilled": vectors + scalars}


if __name__ == "__main__":
    if os.environ.pop("TRITON_INTERPRET", None):
        raise SystemExit("triton_resources: expected no TRITON_INTERPRET, it compiles nothing")
    torch.set_num_threads(1)
    main()
