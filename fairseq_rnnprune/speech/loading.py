"""Speech and language models from their checkpoints alone."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from fairseq import checkpoint_utils

import fairseq_rnnprune.plugin  # noqa: F401
from fairseq_rnnprune.checkpoint import is_packed_file, read_checkpoint
from fairseq_rnnprune.layers import release_dense

from .config import SpeechConfig
from .dictionary import dictionary_folder
from .fusion import KenLanguageModel, LanguageModel, RecurrentLanguageModel
from .units import Units

TASK = "rnnprune_speech"


class SpeechModel(NamedTuple):
    """A model that is ready to run, and what turns audio into its input and its output to text."""

    model: Any
    config: SpeechConfig
    units: Units
    dictionary: Any

    def symbols(self, tokens: Any) -> list[str]:
        """The units of tokens."""
        return [self.dictionary[int(token)] for token in tokens]

    def text(self, tokens: Any) -> str:
        """The text that tokens spell."""
        return self.units.decode(self.symbols(tokens))


def load_speech_model(path: Path, packed: str | None = None) -> SpeechModel:
    """Loads a checkpoint of `rnnprune_speech` and packs it as `packed` or its own option says.

    ValueError if the file is missing, damaged or of another task. Nothing in it can run code.
    """
    # First of all: it refuses what fairseq, on an old torch, would unpickle.
    task = read_checkpoint(path).option("task", "_name")
    if task != TASK:
        raise ValueError(
            f"load_speech_model: expected a checkpoint of the task {TASK}, got {path} of the task "
            f"{task}; name a model that was trained with --task {TASK}"
        )
    model, task = _load(path, {} if packed is None else {"packed": packed})
    return SpeechModel(model, task.config, task.units, task.target_dictionary)


def load_language_model(path: Path, speech: SpeechModel) -> LanguageModel:
    """Loads a checkpoint of an `rnnprune_gru_lm`, also an exported one, or a file of KenLM.

    The language model's dict.txt has to be in its data folder or beside its checkpoint. ValueError
    if the file or its dictionary is missing, or no language model over the units of `speech`.
    """
    is_ours = path.is_file() and (zipfile.is_zipfile(path) or is_packed_file(path))
    if path.is_file() and not is_ours and path.suffix != ".pt":
        return KenLanguageModel(
            path, speech.dictionary.symbols, speech.units.reserved, speech.dictionary.eos()
        )
    model, _ = _load(path, {"data": str(dictionary_folder(path))})
    return RecurrentLanguageModel(model, speech.dictionary)


def _load(path: Path, overrides: dict[str, Any]) -> tuple[Any, Any]:
    """The model, prepared for inference, and its task."""
    try:
        models, _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], overrides)
    # Parameters that do not fit, options of another version: fairseq has no error of its own.
    except (RuntimeError, KeyError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"load: expected a checkpoint of this version of the model, got {path}: "
            f"{type(error).__name__}: {reason:.300}; name a model that fairseq-generate can load"
        ) from error
    model = models[0].float().cpu()
    _return_freed_memory()
    model.make_generation_fast_(beamable_mm_beam_size=None, need_attn=False)
    # The model is only run from here on: what was packed need not be kept twice.
    release_dense(model)
    _return_freed_memory()
    return model, task


def _return_freed_memory() -> None:
    """Gives back what loading and packing have freed: the C library of Linux would keep it.

    Some of fairseq's own copy of the weights hangs in cycles of references until a collection.
    """
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
