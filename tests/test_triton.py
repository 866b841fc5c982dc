"""Triton without a GPU: parity in the interpreter, what a launch does, and when it runs at all."""

import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from needs import needs_triton
from sparse_samples import sparse_weight
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    available_backends,
    explain,
    gru_sequence,
    matmul,
    triton_backend,
)


class Operations(TorchDispatchMode):
    """Notes the name of every operation of torch."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.fixture
def launches(monkeypatch):
    """Kernels that note grid and arguments instead of running."""
    noted = []

    class Kernel:
        def __init__(self, name):
            self.name = name

        def __getitem__(self, grid):
            return lambda **arguments: noted.append((self.name, grid, arguments))

    kernels = SimpleNamespace(matmul=Kernel("matmul"), gru_step=Kernel("gru_step"))
    monkeypatch.setattr(triton_backend, "_kernels", lambda: kernels)
    return noted


@needs_triton
def test_parity_in_the_interpreter(root):
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/triton_parity.py", "-q", "-p", "no:cacheprovider"],
        cwd=root,
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    # Only what needs a GPU is skipped.
    assert re.search(r"\b\d\d passed, 9 skipped", done.stdout), done.stdout


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="torch finds a GPU: `make test-gpu` tests the kernels on it"
)
@pytest.mark.parametrize("has_device, status", [(False, 0), (True, 1)])
def test_make_test_gpu_says_plainly_that_there_is_no_gpu(root, tmp_path, has_device, status):
    device = tmp_path / "nvidia0"
    if has_device:
        device.touch()
    code = f"import triton_parity as t; t.DEVICES = ({str(device)!r},); t.main()"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{root / 'tests'}{os.pathsep}{root}"},
        capture_output=True,
        text=True,
    )
    # That torch cannot use a GPU which is there is a failure.
    assert done.returncode == status, done.stderr
    assert re.fullmatch(r"no GPU: .*; nothing was tested\n", done.stdout)


@pytest.mark.parametrize("kind", ["matmul", "gru_step"])
def test_a_launch_allocates_nothing_and_waits_for_nothing(launches, kind):
    W = BlockSparseMatrix.from_dense(sparse_weight(105, 35), (16, 4), torch.int8, gates=3)
    x, bias, gates_x = torch.randn(9, 35), torch.randn(105), torch.randn(9, 105)
    launch, arguments = {
        "matmul": (triton_backend.launch_matmul, (W, x, bias, torch.empty(9, 105))),
        "gru_step": (triton_backend.launch_gru_step, (W, gates_x, x, bias, torch.empty(9, 35))),
    }[kind]
    # The first launch checks the matrix.
    launch(*arguments)
    with Operations() as operations:
        launch(*arguments)
    assert operations.names == []
    [(name, grid, first), (_, _, second)] = launches
    # 3 panels per gate, and two tiles of the batch; of a GRU a program owns all three gates.
    assert (name, grid) == (kind, (2 * 9,) if kind == "matmul" else (2 * 3,))
    assert first.keys() == second.keys()
    assert all(first[key] is second[key] for key in first)


def test_a_step_may_not_write_where_others_read(launches):
    W = BlockSparseMatrix.from_dense(sparse_weight(48, 16), (16, 1), gates=3)
    gates_x, h = torch.randn(1, 48), torch.randn(1, 16)
    with pytest.raises(ValueError, match="expected out in other memory than h, got the same"):
        triton_backend.launch_gru_step(W, gates_x, h, None, h)
    assert launches == []


def test_a_sequence_allocates_its_result_only(launches):
    W = BlockSparseMatrix.from_dense(sparse_weight(48, 16), (16, 1), gates=3)
    gates_x, h = torch.randn(4, 1, 48), torch.randn(1, 16)
    triton_backend.gru_sequence(W, gates_x, h)
    launches.clear()
    with Operations() as operations:
        states = triton_backend.gru_sequence(W, gates_x, h)
    assert operations.names == ["aten.empty.memory_format", *2 * ["aten.unbind.int"]]
    before = [h, *states[:-1]]
    assert [launch["h"].data_ptr() for _, _, launch in launches] == [b.data_ptr() for b in before]
    assert [launch["out"].data_ptr() for _, _, launch in launches] == [s.data_ptr() for s in states]


def test_without_triton(monkeypatch):
    monkeypatch.setattr(triton_backend, "_is_installed", lambda: False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    W = BlockSparseMatrix.from_dense(torch.ones(48, 16), (16, 1), gates=3)
    x = torch.ones(1, 16)
    assert "triton" not in available_backends()
    assert explain(W, x)["triton"] == [
        "needs triton, which is not installed",
        "runs on GPUs that torch calls cuda, not on cpu",
    ]
    for call in (
        lambda: matmul(W, x, backend="triton"),
        lambda: gru_sequence(W, torch.ones(1, 1, 48), x, backend="triton"),
    ):
        with pytest.raises(ValueError, match="triton needs triton, which is not installed, runs"):
            call()


def test_an_old_triton(monkeypatch):
    monkeypatch.setattr(triton_backend, "_is_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_backend, "_start_reasons", lambda: ())
    for version, reasons in (("3.10.1", []), ("3.6.0", ["needs triton 3.7 or newer, not 3.6.0"])):
        kernels = SimpleNamespace(VERSION=version, INTERPRETED=False)
        monkeypatch.setattr(triton_backend, "_kernels", lambda kernels=kernels: kernels)
        triton_backend._version_reasons.cache_clear()
        assert triton_backend.unavailable_reasons() == reasons
    triton_backend._version_reasons.cache_clear()


def test_a_triton_that_does_not_start(monkeypatch):
    def start():
        raise RuntimeError("Failed to find C compiler. Please specify\nvia CC")

    monkeypatch.setattr(triton_backend, "_is_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    kernels = SimpleNamespace(VERSION="3.7.1", INTERPRETED=False, start=start)
    monkeypatch.setattr(triton_backend, "_kernels", lambda: kernels)
    caches = (triton_backend._version_reasons, triton_backend._start_reasons)
    for kept in caches:
        kept.cache_clear()
    reasons = ["cannot start Triton (Failed to find C compiler. Please specify)"]
    assert triton_backend.unavailable_reasons() == reasons
    x = SimpleNamespace(is_cuda=True, device=torch.device("cuda"))
    W = BlockSparseMatrix.from_dense(torch.ones(16, 4), (16, 4))
    assert triton_backend.not_supported_reasons(W, x) == reasons
    for kept in caches:
        kept.cache_clear()


def test_every_reason_why_a_call_cannot_run(monkeypatch):
    monkeypatch.setattr(triton_backend, "_is_installed", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    W = BlockSparseMatrix.from_dense(torch.ones(4, 4), (4, 4))
    reasons = triton_backend.not_supported_reasons(W, torch.ones(1, 4))
    assert reasons == [
        "needs a GPU, and torch finds none",
        "runs on GPUs that torch calls cuda, not on cpu",
        "has kernels for blocks of 16 x 1, 16 x 4, 8 x 8, 16 x 16, 32 x 32, not 4 x 4",
    ]


def test_importing_the_package_does_not_import_triton(root):
    code = "import sys, fairseq_rnnprune.layers; assert 'triton' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


# Triton's own launches on tensors of the CPU, by a driver that loads and starts nothing.
WITHOUT_A_GPU = """
import sys
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from fairseq_rnnprune.sparse import BlockSparseMatrix, triton_backend, triton_kernels

class Utils:
    def load_binary(self, *arguments):
        return 1, 1, 0, 0, 1024

    def get_device_properties(self, device):
        return {"max_shared_mem": 2**17}

class Driver:
    utils = Utils()
    launcher_cls = staticmethod(lambda source, metadata: lambda *arguments: None)
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)
    get_current_target = staticmethod(lambda: GPUTarget("cuda", int(sys.argv[1]), 32))

driver.set_active(Driver())
print(triton_backend._start_reasons())
if not triton_backend._start_reasons():
    W = BlockSparseMatrix.from_dense(torch.ones(105, 35), (16, 4), gates=3)
    for batch in (1, 5, 4):
        triton_backend.gru_sequence(W, torch.randn(3, batch, 105), torch.randn(batch, 35))
    caches = triton_kernels.gru_step.device_caches.values()
    print(sum(len(cache[0]) for cache in caches))
"""


def without_a_gpu(tmp_path, architecture):
    environment = {key: v for key, v in os.environ.items() if not key.startswith("TRITON")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_A_GPU, str(architecture)],
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@needs_triton
def test_one_program_for_one_row_and_one_for_more(tmp_path):
    # States of 35 units begin at multiples of 16 bytes and elsewhere; in a graph nothing compiles.
    assert without_a_gpu(tmp_path, 90) == ["()", "2"]


@needs_triton
def test_a_gpu_that_the_compiler_does_not_know_is_a_reason(tmp_path):
    *_, reasons = without_a_gpu(tmp_path, 250)
    assert re.match(r"\('cannot start Triton \(", reasons)


@pytest.mark.parametrize("value, expected", [("true", True), ("1", True), ("", False)])
def test_the_interpreter_is_asked_for_as_triton_reads_it(monkeypatch, value, expected):
    monkeypatch.setattr(triton_backend, "_kernels", lambda: SimpleNamespace(INTERPRETED=True))
    monkeypatch.setenv("TRITON_INTERPRET", value)
    assert triton_backend._is_interpreted() is expected
