"""Says what is wrong where fairseq fails over something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .wrap import wrap_once


def explain_bf16() -> None:
    """Explain --bf16 without torch_xla: fairseq 0.12 takes it for a wish to run on a TPU.

    It fails with "'NoneType' object has no attribute 'xla_device'".
    """
    from fairseq import utils

    def get_tpu_device(original: Callable) -> Any:
        if getattr(utils, "xm", None) is None:
            raise ValueError(
                "fairseq-train: expected torch_xla for --bf16, which implies --tpu there, "
                "got no torch_xla; leave --bf16 out, or use fairseq-hydra-train with "
                "common.bf16=true"
            )
        return original()

    wrap_once(utils, "get_tpu_device", get_tpu_device)


def explain_unknown_model() -> None:
    """Explain a model configuration without a known `_name`, as YAML for fairseq-hydra-train has.

    fairseq 0.12 formats its own message wrongly and fails with KeyError: "'activation_fn'", or
    whatever the first option of the model is.
    """
    from fairseq import models

    def build_model(original: Callable, cfg: Any, *args: Any, **kwargs: Any) -> Any:
        name = getattr(cfg, "_name", None) or getattr(cfg, "arch", None)
        # A configuration with one key may be named by that key; fairseq checks it.
        nested = not name and hasattr(cfg, "keys") and len(cfg) == 1
        known = name in models.ARCH_MODEL_REGISTRY or name in models.MODEL_DATACLASS_REGISTRY
        if not nested and not known:
            raise ValueError(
                f"build_model: expected a registered model as `_name` in the configuration's "
                f"model node, got {name!r}; write for example `_name: rnnprune_gru_lm` there"
            )
        return original(cfg, *args, **kwargs)

    wrap_once(models, "build_model", build_model)
