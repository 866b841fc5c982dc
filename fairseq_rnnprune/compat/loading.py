"""What torch.load may build when it reads a fairseq checkpoint."""

from __future__ import annotations

import os
import typing
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch

from fairseq_rnnprune.checkpoint import checkpoint_globals, is_packed_file, read_packed_file

from .wrap import wrap_once


def checkpoint_classes() -> list:
    """The classes in fairseq's checkpoints and broadcasts beyond those that torch allows itself.

    For what a checkpoint itself has see `checkpoint_globals`. On a resume with
    several processes the first one sends the others the checkpoint with its configuration as
    omegaconf objects (DictConfig and what those consist of) and placeholders for the tensors.
    """
    from fairseq.distributed.utils import _TensorPlaceholder
    from omegaconf import DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.nodes import AnyNode

    config = [DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode]
    inside_config = [typing.Any, dict, list, int, defaultdict]
    return [*checkpoint_globals(), _TensorPlaceholder, *config, *inside_config]


def trust_checkpoint_classes() -> None:
    """Allow torch.load those classes: torch 2.6 made `weights_only=True` the default."""
    torch.serialization.add_safe_globals(checkpoint_classes())


def load_packed_files() -> None:
    """Let everything that takes a checkpoint take a file of `rnnprune export` as well."""
    from fairseq import checkpoint_utils
    from omegaconf import OmegaConf

    def load_checkpoint_to_cpu(
        original: Callable,
        path: str,
        arg_overrides: dict[str, Any] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> dict[str, Any]:
        # Other paths may be of what fairseq fetches itself.
        if not os.path.isfile(path) or not is_packed_file(path):
            return original(path, arg_overrides, *args, **kwargs)
        state = read_packed_file(path)
        if state["args"] is not None:
            vars(state["args"]).update(arg_overrides or {})
        if state["cfg"] is not None:
            state["cfg"] = OmegaConf.create(state["cfg"], flags={"allow_objects": True})
            checkpoint_utils.overwrite_args_by_name(state["cfg"], arg_overrides or {})
        return checkpoint_utils._upgrade_state_dict(state)

    wrap_once(checkpoint_utils, "load_checkpoint_to_cpu", load_checkpoint_to_cpu)
