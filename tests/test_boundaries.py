"""Who may import whom, read from the sources: the rooms of the package do not know each other."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "fairseq_rnnprune"
ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / PACKAGE).rglob("*.py"))

# Room -> the rooms it may import from, besides itself. These rooms know torch, and no fairseq.
ROOMS: dict[str, set[str]] = {"pruning": set(), "sparse": set(), "layers": {"sparse"}}
REGISTERING = {
    "register_bpe",
    "register_criterion",
    "register_lr_scheduler",
    "register_model",
    "register_model_architecture",
    "register_optimizer",
    "register_scorer",
    "register_task",
    "register_tokenizer",
}
each_source = pytest.mark.parametrize(
    "path", SOURCES, ids=lambda path: path.relative_to(ROOT / PACKAGE).as_posix()
)


def imported_modules(path: Path) -> Iterator[str]:
    """Yield the full name of everything a file imports, at any depth, relative ones resolved."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """Return the folder of the package in which a source lies."""
    return path.relative_to(ROOT / PACKAGE).parts[0]


@pytest.mark.parametrize("name", ROOMS)
def test_room_imports_torch_and_allowed_rooms_only(name: str) -> None:
    allowed = ROOMS[name] | {name}
    standard = set(sys.stdlib_module_names) | {"torch"}
    for path in filter(lambda path: room(path) == name, SOURCES):
        for module in imported_modules(path):
            first, *rest = module.split(".")
            if first == PACKAGE:
                assert rest[0] in allowed, f"{path}: {module}"
            elif path.name != "triton_kernels.py":
                assert first in standard, f"{path}: {module}"


@each_source
def test_optim_and_models_meet_only_in_the_tag(path: Path) -> None:
    other = {"optim": "models", "models": "optim"}.get(room(path))
    assert not [m for m in imported_modules(path) if m.startswith(f"{PACKAGE}.{other}.")]


@each_source
def test_only_one_file_imports_triton(path: Path) -> None:
    if path.relative_to(ROOT / PACKAGE).as_posix() != "sparse/triton_kernels.py":
        assert "triton" not in {module.split(".")[0] for module in imported_modules(path)}


@each_source
def test_only_the_plugin_registers(path: Path) -> None:
    if path.name != "plugin.py":
        names = {module.split(".")[-1] for module in imported_modules(path)}
        tree = ast.parse(path.read_text("utf-8"))
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & REGISTERING


@each_source
def test_no_file_is_read_by_pickle(path: Path) -> None:
    assert "pickle" not in {module.split(".")[0] for module in imported_modules(path)}
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
            assert "weights_only=True" in ast.unparse(node)


def test_no_file_is_too_long() -> None:
    folders = [ROOT / folder for folder in (PACKAGE, "benchmarks", "examples", "tests")]
    for path in (path for folder in folders for path in folder.rglob("*")):
        if path.suffix in (".py", ".h", ".cpp") and "out" not in path.relative_to(ROOT).parts:
            assert len(path.read_text("utf-8").splitlines()) <= 400, path


def test_only_real_packages_are_packages() -> None:
    for folder in ("examples", "tests", "benchmarks"):
        assert not list((ROOT / folder).rglob("__init__.py"))


@pytest.mark.skipif(not shutil.which("git"), reason="needs git, which knows what is tracked")
def test_no_path_of_one_machine_is_in_a_tracked_file() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0 or not listed.stdout:
        pytest.skip(f"git ls-files lists nothing: {listed.stderr.strip() or 'no file is tracked'}")
    machine = [f"/{folder}/" for folder in ("home", "root", "tmp", "work")]
    for name in filter(None, listed.stdout.split("\0")):
        try:
            text = (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue
        assert not [folder for folder in machine if folder in text], name
