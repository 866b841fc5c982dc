"""The scripts under examples/, which are no modules of a package, loaded by their place there."""

import importlib.util
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "examples"


def load_script(path: str) -> ModuleType:
    """A fresh module of examples/PATH."""
    file = EXAMPLES / path
    spec = importlib.util.spec_from_file_location("_".join(file.with_suffix("").parts[-2:]), file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
