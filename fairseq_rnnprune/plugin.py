"""Introduces the package to fairseq: repairs first, then every registration.

Importing this module is all that `--user-dir` does; importing it again changes nothing.
"""

from fairseq_rnnprune import compat

compat.apply()

# Everything below imports fairseq, which works only after the repairs.
from fairseq.models import register_model, register_model_architecture  # noqa: E402
from fairseq.optim import register_optimizer  # noqa: E402

from fairseq_rnnprune.models import gru_lm  # noqa: E402
from fairseq_rnnprune.optim import trainer_hooks  # noqa: E402
from fairseq_rnnprune.optim.pruned import PrunedOptimizer, PrunedOptimizerConfig  # noqa: E402

register_optimizer("pruned", dataclass=PrunedOptimizerConfig)(PrunedOptimizer)
trainer_hooks.install()

register_model("rnnprune_gru_lm", dataclass=gru_lm.GRULanguageModelConfig)(gru_lm.GRULanguageModel)
for _name, _size in gru_lm.SIZES.items():
    register_model_architecture("rnnprune_gru_lm", f"rnnprune_gru_lm_{_name}")(
        gru_lm.named_size(*_size)
    )
