"""Small speech models and padded batches for them."""

from types import SimpleNamespace

import torch
from fairseq.data import Dictionary
from sparse_samples import pruned
from torch import Tensor

import fairseq_rnnprune.plugin  # noqa: F401
from fairseq_rnnprune.models.deepspeech2 import DeepSpeech2, DeepSpeech2Config

MEL_BINS = 6
SMALL = {"conv_channels": 10, "conv_kernel": 5, "hidden_size": 8}
STREAMING = {"unidirectional": True, "lookahead": 3}


def speech_task() -> SimpleNamespace:
    """What a model and the ctc criterion ask of a task: 9 classes, 5 of them letters."""
    dictionary = Dictionary()
    for letter in "abcd|":
        dictionary.add_symbol(letter)
    return SimpleNamespace(config=SimpleNamespace(mel_bins=MEL_BINS), target_dictionary=dictionary)


def build(**options: object) -> DeepSpeech2:
    """A model in evaluation mode with every third weight, whose norms have seen some frames."""
    torch.manual_seed(0)
    model = DeepSpeech2.build_model(DeepSpeech2Config(**{**SMALL, **options}), speech_task())
    with torch.no_grad():
        for _ in range(3):
            model(3 * torch.randn(4, 30, MEL_BINS) + 1)
    return pruned(model, 3)


def padded_batch(lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Random frames [B, T, mel_bins] with NaN as padding, and the padding mask [B, T]."""
    mask = torch.arange(max(lengths)) >= torch.tensor(lengths).unsqueeze(1)
    source = torch.randn(len(lengths), max(lengths), MEL_BINS)
    return source.masked_fill(mask.unsqueeze(2), float("nan")), mask


def log_probabilities(model: DeepSpeech2, features: Tensor) -> Tensor:
    """Of one whole utterance [T, mel_bins]: [T', classes]."""
    with torch.no_grad():
        return model.get_normalized_probs(model(features.unsqueeze(0)), log_probs=True)[:, 0]
