"""The package as a user gets it: version, sdist, installed copy, and what imports what."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import fairseq_rnnprune
from fairseq_rnnprune.sparse import cpu

PACKAGE = "fairseq_rnnprune"


def python(*args: object, path: Path | None = None) -> str:
    """Run Python away from the checkout, with `path` first on sys.path; return its output."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run(
        [sys.executable, *map(str, args)],
        cwd=Path(sys.prefix),
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def sdist(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an sdist of the checkout, built without leaving anything in it."""
    folder = tmp_path_factory.mktemp("sdist")
    subprocess.run(
        [sys.executable, "setup.py", "-q", "egg_info", "-e", folder, "sdist", "-d", folder],
        cwd=root,
        check=True,
        capture_output=True,
    )
    return folder / f"{PACKAGE}-{fairseq_rnnprune.__version__}.tar.gz"


@pytest.fixture(scope="module")
def installed(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the package as `pip install` makes it from the sdist."""
    folder = tmp_path_factory.mktemp("installed")
    offline = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check")
    python("-m", "pip", "install", "--quiet", *offline, "--target", folder, sdist)
    return folder


@pytest.mark.skipif(
    not any(map(shutil.which, ("g++", "clang++"))), reason="there is no g++ or clang++ here"
)
def test_a_compiler_gives_kernels() -> None:
    # The extension is optional: one that fails to compile would skip every test of the kernels.
    assert not cpu.unavailable_reasons()


@pytest.mark.parametrize("has_openmp", [True, False])
@pytest.mark.parametrize("has_avx_vnni", [True, False])
def test_kernels_are_built_without_what_the_compiler_lacks(
    root, tmp_path, has_openmp, has_avx_vnni
):
    compiler, log = tmp_path / "compiler", tmp_path / "log"
    missing = "" if has_openmp else 'case "$*" in *-fopenmp*) exit 1;; esac\n'
    if not has_avx_vnni:
        missing += 'case "$*" in *-DNO_AVX_VNNI*|*-shared*) ;; *kernels.cpp*) exit 1;; esac\n'
    # Makes what it is asked to make, empty.
    make = 'while [ "$1" != -o ]; do shift; done; touch "$2"\n'
    compiler.write_text(f'#!/bin/sh\necho "$*" >> {log}\n{missing}{make}')
    compiler.chmod(0o755)
    names = {name: str(compiler) for name in ("CC", "CXX", "LDSHARED", "LDCXXSHARED")}
    places = ["--build-lib", tmp_path / "lib", "--build-temp", tmp_path / "temp"]
    subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", *places],
        cwd=root,
        env={**os.environ, **names},
        check=True,
        capture_output=True,
    )
    assert list((tmp_path / "lib").rglob("_kernels*"))
    # The last two calls compile and link; those before were in vain.
    calls = log.read_text().splitlines()
    compiled, linked = calls[-2:]
    assert (len(calls) == 2) == (has_openmp and has_avx_vnni)
    assert ("-fopenmp" in compiled, "-fopenmp" in linked) == (has_openmp, has_openmp)
    assert ("-DNO_AVX_VNNI" in compiled) != has_avx_vnni


def test_version_stands_in_one_place(root: Path) -> None:
    version = fairseq_rnnprune.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    files = [root / "setup.py", root / "pyproject.toml", *(root / PACKAGE).rglob("*.py")]
    assert [f.name for f in files if version in f.read_text("utf-8")] == ["__init__.py"]


def test_sdist_holds_what_a_checkout_holds(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        files = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "Makefile",
        "README.md",
        "constraints.txt",
        "pyproject.toml",
        "setup.py",
        "tests/conftest.py",
        "user_dir/__init__.py",
        f"{PACKAGE}/compat/__init__.py",
        f"{PACKAGE}/sparse/csrc/body.h",
        f"{PACKAGE}/sparse/csrc/kernels.cpp",
    } <= files
    assert not [name for name in files if re.search(r"__pycache__|\.pyc$|\.so$|\.pt$", name)]


def test_installed_package_is_whole(installed: Path, root: Path) -> None:
    sources = {p.relative_to(root) for p in (root / PACKAGE).rglob("*.py")}
    assert sources == {p.relative_to(installed) for p in (installed / PACKAGE).rglob("*.py")}
    # A module called user_dir or tests would get in the way of other packages.
    assert {p.name.partition("-")[0] for p in installed.iterdir()} <= {PACKAGE, "bin"}
    assert (installed / "bin" / "rnnprune").exists()


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler, g++")
def test_kernels_are_compiled_at_installation(installed: Path) -> None:
    code = (
        "from fairseq_rnnprune.sparse import cpu_library; print(cpu_library.instruction_sets()[-1])"
    )
    assert python("-c", code, path=installed).strip() == "baseline"


def test_installation_does_not_need_a_compiler(root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "-t", tmp_path, "-b", tmp_path / "lib"],
        cwd=root,
        env={**os.environ, "CC": "no-compiler", "CXX": "no-compiler"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "failed" in done.stderr
    assert not list(tmp_path.rglob("*.so"))


def test_import_is_light(root: Path) -> None:
    code = (
        f"import sys, {PACKAGE}\n"
        "print({'fairseq', 'torch', 'numpy', 'triton'} & set(sys.modules))"
    )
    assert python("-c", code, path=root).strip() == "set()"


# Imports the user dirs given, and prints the plugin's file and the modules that were loaded twice.
REGISTER = """
import sys
from argparse import Namespace
from collections import Counter
from fairseq import utils
for user_dir in sys.argv[1:]:
    utils.import_user_module(Namespace(user_dir=user_dir))
from fairseq.models import ARCH_MODEL_REGISTRY
from fairseq.optim import OPTIMIZER_REGISTRY
assert "rnnprune_gru_lm" in ARCH_MODEL_REGISTRY and "pruned" in OPTIMIZER_REGISTRY
files = Counter(getattr(module, "__file__", None) for module in set(sys.modules.values()))
print(sys.modules["fairseq_rnnprune.plugin"].__file__)
print([file for file, count in files.items() if file and "rnnprune" in file and count > 1])
assert not {"torchaudio", "torchvision", "triton"} & set(sys.modules)
"""


def test_user_dir_and_package_register_once(root: Path) -> None:
    plugin, twice = python("-c", REGISTER, root / "user_dir", root / PACKAGE).splitlines()
    assert Path(plugin) == root / PACKAGE / "plugin.py"
    assert twice == "[]"


def test_installed_package_is_a_user_dir(installed: Path) -> None:
    plugin, twice = python("-c", REGISTER, installed / PACKAGE).splitlines()
    assert Path(plugin) == installed / PACKAGE / "plugin.py"
    assert twice == "[]"


def test_user_dir_without_package_says_so(root: Path, tmp_path: Path) -> None:
    (tmp_path / "user_dir").mkdir()
    shim = (root / "user_dir" / "__init__.py").read_text("utf-8")
    (tmp_path / "user_dir" / "__init__.py").write_text(shim)
    # -S: not even an installed copy is found.
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\ntry: import user_dir\n"
        "except ImportError as error: print(error)"
    )
    message = python("-S", "-c", code, tmp_path)
    assert re.search(r"expected the package fairseq_rnnprune .*, got none; .*pip install", message)
