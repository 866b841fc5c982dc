"""The module `fairseq`: any distribution that imports will do."""

from __future__ import annotations

import importlib
import platform
import sys


def require_fairseq() -> None:
    """Imports fairseq; ImportError with the command that installs a working one if that fails."""
    try:
        # A folder that is merely called fairseq imports as well; it has no tasks.
        importlib.import_module("fairseq.tasks")
    except ModuleNotFoundError as error:
        missing = error.name == "fairseq"
        raise _unusable("no such module" if missing else f"one that fails: {error}") from error
    # fairseq 0.12.2 raises ValueError (mutable default) on Python >= 3.11; a broken build anything.
    except Exception as error:
        raise _unusable(f"one that fails: {type(error).__name__}: {error}") from error


def _unusable(cause: str) -> ImportError:
    return ImportError(
        f"require_fairseq: expected a module fairseq that imports, got {cause}; run "
        f"pip install {_distribution()} 'hydra-core<1.4' 'omegaconf<2.4'"
    )


def _distribution() -> str:
    """The distribution for this machine: one with a wheel, or else one to compile."""
    has_wheel = (
        platform.system() == "Linux"
        and platform.machine() == "x86_64"
        and (3, 11) <= sys.version_info[:2] < (3, 13)
    )
    return "ve-fairseq==0.12.3" if has_wheel else "fairseq-fixed==0.12.3.1"
