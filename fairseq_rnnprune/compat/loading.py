"""What torch.load may build when it reads a fairseq checkpoint."""

from __future__ import annotations

import argparse
import typing
from collections import defaultdict

import torch


def checkpoint_classes() -> list:
    """The classes in fairseq's checkpoints and broadcasts beyond those that torch allows itself.

    A checkpoint keeps the options of a model with named sizes as a Namespace. On a resume with
    several processes the first one sends the others the checkpoint with its configuration as
    omegaconf objects (DictConfig and what those consist of) and placeholders for the tensors.
    """
    from fairseq.distributed.utils import _TensorPlaceholder
    from omegaconf import DictConfig, ListConfig
    from omegaconf.base import ContainerMetadata, Metadata
    from omegaconf.nodes import AnyNode

    config = [DictConfig, ListConfig, ContainerMetadata, Metadata, AnyNode]
    inside_config = [typing.Any, dict, list, int, defaultdict]
    return [argparse.Namespace, _TensorPlaceholder, *config, *inside_config]


def trust_checkpoint_classes() -> None:
    """Allow torch.load those classes: torch 2.6 made `weights_only=True` the default."""
    torch.serialization.add_safe_globals(checkpoint_classes())
