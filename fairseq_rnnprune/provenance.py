"""Where and with what a figure is measured."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "numpy",
    "triton",
    "ve-fairseq",
    "fairseq",
    "hydra-core",
    "omegaconf",
    "sentencepiece",
    "sacrebleu",
)


def environment() -> dict[str, Any]:
    """Commit, machine and versions."""
    return {"commit": commit(), "machine": machine(), "versions": versions()}


def commit() -> str:
    """The checkout's commit, marked if the code differs from it; `unknown` outside of one."""
    root = Path(__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # The package may be installed in an environment that lies in another project's repository.
        git("ls-files", "--error-unmatch", str(Path(__file__)))
        changed = git("status", "--porcelain", "--untracked-files=no", "--", "fairseq_rnnprune")
        return git("rev-parse", "--short=12", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def machine() -> dict[str, Any]:
    """Processor, number of cores and threads used, and the GPU if torch finds one."""
    import torch

    model = platform.processor() or platform.machine()
    found = {"processor": model, "cores": os.cpu_count(), "threads": threads_in(os.environ)}
    with contextlib.suppress(OSError):
        found |= processor_in(Path("/proc/cpuinfo").read_text())
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor_in(cpuinfo: str) -> dict[str, str]:
    """The processor that Linux's /proc/cpuinfo names; on Arm it names none.

    Its family and model as well, because a virtual machine's name may say little: every generation
    of a server may be an "AMD EPYC".
    """
    fields = {"processor": "model name", "family": "cpu family", "model": "model"}
    found = {key: re.search(rf"^{f}\s*: (.*)", cpuinfo, re.M) for key, f in fields.items()}
    return {key: match[1] for key, match in found.items() if match}


def threads_in(variables: Mapping[str, str]) -> int | None:
    """Threads that OpenMP's variable asks for, at the outermost level; without it, all cores."""
    outermost = variables.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(outermost) if outermost.isdecimal() else os.cpu_count()


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide a figure, of those installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
