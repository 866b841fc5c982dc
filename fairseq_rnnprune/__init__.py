"""A fairseq plugin that trains recurrent networks into sparse ones and runs them packed.

`pruning`, `layers` and `sparse` need torch only. In a program that imports this package before
fairseq, `import fairseq_rnnprune.plugin` registers the models and the optimizer.
"""

import sys

__version__ = "0.1.0"

# With `--user-dir <this folder>` fairseq imports this package and expects it to register itself.
# `tasks` is among the last things that `import fairseq` sets: then it is ready for that.
if hasattr(sys.modules.get("fairseq"), "tasks"):
    import fairseq_rnnprune.plugin  # noqa: F401
