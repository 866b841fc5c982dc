"""Introduces the package to fairseq: repairs first, then every registration.

Importing this module is all that `--user-dir` does; importing it again changes nothing.
"""

from fairseq_rnnprune import compat

compat.apply()

# Everything below imports fairseq, which works only after the repairs.
from fairseq.models import register_model  # noqa: E402
from fairseq.optim import register_optimizer  # noqa: E402
from fairseq.scoring import register_scorer  # noqa: E402
from fairseq.tasks import register_task  # noqa: E402

from fairseq_rnnprune.models import deepspeech2, gru_lm, gru_seq2seq  # noqa: E402
from fairseq_rnnprune.models.options import named_size  # noqa: E402
from fairseq_rnnprune.optim import trainer_hooks  # noqa: E402
from fairseq_rnnprune.optim.pruned import PrunedOptimizer, PrunedOptimizerConfig  # noqa: E402
from fairseq_rnnprune.speech import resume  # noqa: E402
from fairseq_rnnprune.speech.scorer import CERScorer, CERScorerConfig  # noqa: E402
from fairseq_rnnprune.speech.task import SpeechTask, SpeechTaskConfig  # noqa: E402

register_optimizer("pruned", dataclass=PrunedOptimizerConfig)(PrunedOptimizer)
trainer_hooks.install()

MODELS = {
    "rnnprune_deepspeech2": (deepspeech2, "DeepSpeech2"),
    "rnnprune_gru_lm": (gru_lm, "GRULanguageModel"),
    "rnnprune_gru_seq2seq": (gru_seq2seq, "GRUSeq2Seq"),
}
for _name, (_module, _class) in MODELS.items():
    _model, _config = getattr(_module, _class), getattr(_module, f"{_class}Config")
    register_model(_name, dataclass=_config)(_model)
    for _size, _defaults in _module.SIZES.items():
        # fairseq writes the options onto the class.
        _sized = type(f"{_class}_{_size}", (_model,), {})
        register_model(f"{_name}_{_size}", dataclass=named_size(_config, _size, _defaults))(_sized)

register_task("rnnprune_speech", dataclass=SpeechTaskConfig)(SpeechTask)
resume.install()
register_scorer("cer_wer", dataclass=CERScorerConfig)(CERScorer)
