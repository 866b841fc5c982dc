"""Warnings that tell a user of fairseq nothing."""

from __future__ import annotations

import warnings

_HYDRA = (
    r"hydra\.experimental\.\w+\(\) is no longer experimental",
    r"\s*The version_base parameter is not specified",
    r"In '.*': Usage of deprecated keyword in package header",
    r"\s*'.*' is validated against ConfigStore schema with the same name",
    r"\s*The strict flag in the compose API is deprecated",
)


def silence_hydra() -> None:
    """Ignore what hydra 1.1 to 1.3 say about fairseq's use of hydra 1.0, and nothing else."""
    for message in _HYDRA:
        warnings.filterwarnings("ignore", message, UserWarning)
