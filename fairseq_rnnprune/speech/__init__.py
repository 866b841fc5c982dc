"""Speech: manifests, audio, features, units, the task, CTC decoding.

Importing this package imports neither fairseq nor a library of the extra `speech`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

__all__ = ["require"]


def require(library: str) -> ModuleType:
    """Imports a module of the extra `speech`; ImportError with the command that installs it."""
    try:
        return importlib.import_module(library)
    # soundfile raises OSError where it finds no libsndfile.
    except (ImportError, OSError) as error:
        raise ImportError(
            f"require: expected the module {library}, got {error}; "
            "run pip install 'fairseq_rnnprune[speech]'"
        ) from error
