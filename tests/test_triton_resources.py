"""What the Triton kernels, compiled ahead of time, need: recorded, bounded and the same again."""

import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from benchmark_runs import scripts
from needs import needs_triton

from fairseq_rnnprune.sparse import triton_backend

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "triton_resources"
KERNELS, TARGETS = ("matmul", "gru_step"), ("sm_80", "sm_90", "gfx942")
# With that many registers a multiprocessor of an H100 holds 16 warps; it has 228 KiB to share.
MOST_REGISTERS, MOST_SHARED = 128, 16 * 1024
# One tight program of each tile of the batch; the file in RESULTS has all of them.
COMPILED_HERE = "^(16x1 int8 1|32x32 bf16 8) aligned$"


def recorded(kernel, target):
    return json.loads((RESULTS / f"{kernel}-{target}-s0.json").read_text())


each_result = pytest.mark.parametrize(("kernel", "target"), list(product(KERNELS, TARGETS)))


@pytest.fixture
def load(monkeypatch):
    yield from scripts(monkeypatch)


@each_result
def test_nothing_spills(kernel, target):
    for name, program in recorded(kernel, target)["programs"].items():
        assert program["spilled"] == 0, name
        assert 0 < program["registers"] <= MOST_REGISTERS, name
        assert program["shared"] <= MOST_SHARED, name


@each_result
def test_every_program_is_recorded(kernel, target):
    result = recorded(kernel, target)
    shapes = (f"{r}x{c}" for r, c in triton_backend.CONFIGS)
    dtypes, batches = (
        ("fp32", "bf16", "fp16", "int16", "int8"),
        map(str, triton_backend.BATCH_TILES),
    )
    names = [" ".join(n) for n in product(shapes, dtypes, batches, ("aligned", "ragged"))]
    assert list(result["programs"]) == names
    figures = result["figures"]
    assert (figures["kernel"], figures["target"], figures["count"]) == (kernel, target, len(names))
    for key in ("registers", "spilled", "shared"):
        assert figures[key] == max(program[key] for program in result["programs"].values())


@each_result
def test_the_record_is_of_these_kernels(kernel, target, load):
    digest = load("triton_resources").source_digest()
    assert recorded(kernel, target)["source"] == digest, "run benchmarks/triton_resources.py"


@needs_triton
def test_compiled_again_they_need_the_same(tmp_path):
    environment = {key: v for key, v in os.environ.items() if not key.startswith("TRITON")}
    script = [sys.executable, "-W", "error", ROOT / "benchmarks" / "triton_resources.py"]
    done = subprocess.run(
        [*map(str, script), "--only", COMPILED_HERE, "--out", str(tmp_path / "out")],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for kernel, target in product(KERNELS, TARGETS):
        fresh = json.loads((tmp_path / "out" / f"{kernel}-{target}-s0.json").read_text())
        result = recorded(kernel, target)
        assert len(fresh["programs"]) == 2
        for name, program in fresh["programs"].items():
            assert program["spilled"] == 0, f"{kernel} {target} {name}"
            if fresh["versions"].get("triton") == result["versions"]["triton"]:
                assert program == result["programs"][name], "run benchmarks/triton_resources.py"
