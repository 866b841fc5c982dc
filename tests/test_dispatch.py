"""Which backend runs, and every reason why another cannot."""

import pytest
import torch
from needs import needs_kernels

from fairseq_rnnprune.sparse import (
    BlockSparseMatrix,
    available_backends,
    choose_backend,
    cpu,
    cpu_library,
    explain,
    gru_sequence,
    matmul,
    triton_backend,
)


def prepared_for(W):
    """The backends that have run with the matrix and keep something of theirs in it."""
    return {"cpu", "torch_csr", "triton"} & set(W.cache)


@pytest.fixture
def W():
    return BlockSparseMatrix.from_dense(torch.eye(6, 2), (2, 1), gates=3)


@pytest.fixture
def no_mkl(monkeypatch):
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)


@pytest.fixture
def no_kernels(monkeypatch):
    monkeypatch.setattr(cpu_library, "load", lambda: None)


@pytest.fixture
def no_gpu(monkeypatch):
    """Nor the interpreter, whatever this machine and its environment have."""
    monkeypatch.setattr(triton_backend, "_is_installed", lambda: True)
    monkeypatch.setattr(triton_backend, "_is_interpreted", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@needs_kernels
def test_order_of_preference(no_gpu, monkeypatch):
    assert available_backends() == ["cpu", "torch_csr", "reference"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_backend, "_version_reasons", list)
    monkeypatch.setattr(triton_backend, "_start_reasons", list)
    assert available_backends() == ["cpu", "torch_csr", "triton", "reference"]


@needs_kernels
def test_default_for_panels_is_native(no_gpu):
    W = BlockSparseMatrix.from_dense(torch.ones(48, 16), (16, 1), gates=3)
    x = torch.ones(1, 16)
    no_gpu = ["needs a GPU, and torch finds none", "runs on GPUs that torch calls cuda, not on cpu"]
    assert explain(W, x) == {"cpu": [], "torch_csr": [], "triton": no_gpu, "reference": []}
    assert choose_backend(W, x).name == "cpu"
    matmul(W, x)
    gru_sequence(W, torch.ones(1, 1, 48), x)
    assert prepared_for(W) == {"cpu"}


def test_default_without_kernels_is_csr(no_kernels, no_gpu):
    W = BlockSparseMatrix.from_dense(torch.ones(16, 2), (16, 1))
    assert available_backends() == ["torch_csr", "reference"]
    reasons = explain(W, torch.ones(1, 2))["cpu"]
    assert reasons == ["needs its kernels, which were not compiled at installation"]
    assert choose_backend(W, torch.ones(1, 2)).name == "torch_csr"
    with pytest.raises(ValueError, match="but cpu needs its kernels, which were not compiled"):
        matmul(W, torch.ones(1, 2), backend="cpu")


def test_missing_kernels_are_logged_once(monkeypatch, caplog):
    monkeypatch.setattr(cpu_library, "EXTENSION_SUFFIXES", [])
    cpu_library.load.cache_clear()
    assert cpu.unavailable_reasons() and cpu.unavailable_reasons()
    cpu_library.load.cache_clear()
    [record] = caplog.records
    assert "no native kernels" in record.getMessage()


@needs_kernels
@pytest.mark.parametrize("changed", ["struct", "function", "dtype"])
def test_kernels_of_another_version_are_not_used(monkeypatch, caplog, changed):
    if changed == "struct":

        class Matrix(cpu_library.Matrix):
            _fields_ = (("more", cpu_library.ctypes.c_void_p),)

        monkeypatch.setattr(cpu_library, "Matrix", Matrix)
    elif changed == "dtype":
        monkeypatch.setitem(cpu_library.DTYPES, torch.float64, len(cpu_library.DTYPES))
    else:
        monkeypatch.setitem(cpu_library._FUNCTIONS, "of_tomorrow", ())
    cpu_library.load.cache_clear()
    assert cpu.unavailable_reasons() == [
        "needs its kernels, which were not compiled at installation"
    ]
    cpu_library.load.cache_clear()
    [record] = caplog.records
    assert "was compiled from other sources than this version's" in record.getMessage()


def test_kernels_that_cannot_be_loaded_are_not_used(monkeypatch, caplog, tmp_path):
    (tmp_path / f"_kernels{cpu_library.EXTENSION_SUFFIXES[0]}").touch()
    monkeypatch.setattr(cpu_library, "__file__", str(tmp_path / "cpu_library.py"))
    cpu_library.load.cache_clear()
    assert cpu_library.load() is None
    cpu_library.load.cache_clear()
    [record] = caplog.records
    assert "cannot be loaded (" in record.getMessage()


def test_default_for_other_blocks_is_csr(W):
    x = torch.ones(1, 2)
    assert {name for name, reasons in explain(W, x).items() if not reasons} == {
        "torch_csr",
        "reference",
    }
    assert choose_backend(W, x).name == "torch_csr"
    matmul(W, x)
    assert "torch_csr" in W.cache


def test_forced_reference_runs_the_reference(W):
    matmul(W, torch.ones(1, 2), backend="reference")
    gru_sequence(W, torch.ones(1, 1, 6), torch.ones(1, 2), backend="reference")
    assert not prepared_for(W)


def test_default_without_mkl_is_the_reference(W, no_mkl, no_kernels, no_gpu):
    assert available_backends() == ["reference"]
    assert explain(W, torch.ones(1, 2))["torch_csr"] == ["needs a torch built with MKL"]
    assert matmul(W, torch.ones(1, 2)).tolist() == [[1.0, 1.0, 0.0, 0.0, 0.0, 0.0]]
    assert not prepared_for(W)


def test_forced_backend_never_falls_back(W, no_mkl):
    with pytest.raises(ValueError, match="expected a call that torch_csr can run"):
        matmul(W, torch.ones(1, 2), backend="torch_csr")
    with pytest.raises(ValueError, match="expected a call that torch_csr can run"):
        gru_sequence(W, torch.ones(1, 1, 6), torch.ones(1, 2), backend="torch_csr")


def test_error_names_inputs_and_every_reason(W, no_mkl):
    message = (
        r"got BlockSparseMatrix\(6 x 2, gates=3, blocks=2 x 1, float32, .*\) and "
        r"x \[1, 2\] float32 on meta, but torch_csr needs a torch built with MKL, "
        r"runs on the CPU, not on meta; backend=None chooses another"
    )
    with pytest.raises(ValueError, match=message):
        choose_backend(W, torch.ones(1, 2, device="meta"), "torch_csr")


def test_unknown_backend(W):
    with pytest.raises(
        ValueError, match="among cpu, torch_csr, triton, reference, got 'cuda'; None"
    ):
        matmul(W, torch.ones(1, 2), backend="cuda")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"W": torch.eye(6, 2)}, TypeError, "W to be a BlockSparseMatrix, got Tensor; pack it"),
        ({"x": [[1.0, 2.0]]}, TypeError, "expected x to be a tensor, got list"),
        ({"x": torch.ones(2)}, ValueError, r"expected x \[B, 2\], got \[2\]"),
        ({"x": torch.ones(1, 3)}, ValueError, r"expected x \[B, 2\], got \[1, 3\]"),
        ({"x": torch.ones(1, 2).double()}, ValueError, "expected x in float32, .*float64"),
        ({"x": torch.ones(1, 2).int()}, ValueError, "got torch.int32; convert it with .float"),
        ({"x": torch.ones(1, 2, device="meta")}, ValueError, "x on cpu like W, got meta; move"),
        ({"x": torch.ones(1, 2, requires_grad=True)}, ValueError, "no gradient, got x .*no_grad"),
        ({"bias": 1.0}, TypeError, "expected bias to be a tensor, got float"),
        ({"bias": torch.ones(2)}, ValueError, r"expected bias \[6\], got \[2\]"),
        ({"bias": torch.ones(6, 1)}, ValueError, r"expected bias \[6\], got \[6, 1\]"),
        ({"bias": torch.ones(6).long()}, ValueError, "expected bias in float32"),
    ],
)
def test_bad_input_of_matmul(W, arguments, error, message):
    with pytest.raises(error, match="matmul: .*" + message):
        matmul(**{"W": W, "x": torch.ones(1, 2), **arguments})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"W": None}, TypeError, "W to be a BlockSparseMatrix, got NoneType"),
        ({"gates_x": torch.ones(0, 1, 6)}, ValueError, r"at least one step, got .*\[0, 1, 6\]"),
        ({"gates_x": torch.ones(2, 3, 6)}, ValueError, r"gates_x \[T, 1, 6\], got \[2, 3, 6\]"),
        ({"h": torch.ones(1, 3)}, ValueError, r"expected h \[B, 2\], got \[1, 3\]"),
        ({"bias": torch.ones(3)}, ValueError, r"expected bias \[6\], got \[3\]"),
    ],
)
def test_bad_input_of_gru_sequence(W, arguments, error, message):
    with pytest.raises(error, match="gru_sequence: .*" + message):
        gru_sequence(**{"W": W, "gates_x": torch.ones(2, 1, 6), "h": torch.ones(1, 2), **arguments})


def test_gru_sequence_refuses_a_weight_that_is_not_recurrent():
    W = BlockSparseMatrix.from_dense(torch.ones(6, 3), (1, 1))
    with pytest.raises(ValueError, match=r"expected W \[3H, H\] .*got W \[6, 3\]"):
        gru_sequence(W, torch.ones(1, 1, 6), torch.ones(1, 3))


def test_gradients_may_be_on_where_none_is_asked_for(W):
    with torch.no_grad():
        y = matmul(W, torch.ones(1, 2, requires_grad=True))
    assert not y.requires_grad
