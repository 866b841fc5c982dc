"""The scripts under examples/, which are no modules of a package, loaded by their place there."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "examples"


def load_script(path: str) -> ModuleType:
    """A fresh module of examples/PATH."""
    file = EXAMPLES / path
    spec = importlib.util.spec_from_file_location("_".join(file.with_suffix("").parts[-2:]), file)
    module = importlib.util.module_from_spec(spec)
    # As when it is run: a script may import another one beside it.
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(file.parent))
    return module
