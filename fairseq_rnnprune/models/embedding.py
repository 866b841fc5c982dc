"""The embedding of tokens that the models share."""

from typing import Any

from torch import nn


def token_embedding(dictionary: Any, dimension: int) -> nn.Embedding:
    """An embedding of a dictionary's tokens, uniform in [-0.1, 0.1]; that of padding is zero."""
    embedding = nn.Embedding(len(dictionary), dimension, dictionary.pad())
    nn.init.uniform_(embedding.weight, -0.1, 0.1)
    nn.init.zeros_(embedding.weight[dictionary.pad()])
    return embedding
