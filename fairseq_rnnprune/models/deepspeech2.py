"""`rnnprune_deepspeech2`: the Deep Speech 2 family for CTC, prunable and packable."""

# fairseq reads the types of options from typing's spelling: no deferred annotations, no X | None.
# ruff: noqa: UP045

import logging
from dataclasses import dataclass, field
from typing import Any, Optional

import torch
import torch.nn.functional as F
from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.modules import FairseqDropout
from torch import Tensor

from fairseq_rnnprune.layers import (
    GRU,
    ClippedRNN,
    Linear,
    Lookahead,
    valid_frames,
)
from fairseq_rnnprune.pruning import tag_prunable

from .front_end import Lengths, conv1d, conv2d
from .options import Packed, packed_field
from .streaming import ModelStream

logger = logging.getLogger(__name__)


@dataclass
class DeepSpeech2Config(FairseqDataclass):
    """Options of `rnnprune_deepspeech2`."""

    front_end: ChoiceEnum(["conv1d", "conv2d"]) = field(
        default="conv1d",
        metadata={
            "help": "conv1d: one light convolution over time; conv2d: Deep Speech 2's two over "
            "time and frequency, 32 channels, 2 input frames per output frame"
        },
    )
    conv_channels: int = field(default=192, metadata={"help": "output channels of conv1d"})
    conv_kernel: int = field(default=11, metadata={"help": "kernel of conv1d in input frames, odd"})
    conv_stride: int = field(
        default=3, metadata={"help": "input frames per output frame of conv1d"}
    )
    cell: ChoiceEnum(["gru", "relu"]) = field(
        default="gru",
        metadata={"help": "gru, or relu: clipped ReLU with sequence-wise batch normalisation"},
    )
    hidden_size: int = field(default=320, metadata={"help": "hidden units per direction"})
    rnn_layers: int = field(default=2, metadata={"help": "recurrent layers"})
    unidirectional: bool = field(
        default=False, metadata={"help": "forward in time only, so that the model can stream"}
    )
    lookahead: int = field(
        default=0,
        metadata={
            "help": "future output frames that a row convolution after the recurrent layers sees "
            "(0: none); needs --unidirectional"
        },
    )
    dropout: float = field(
        default=0.2,
        metadata={"help": "dropout after the front end, between layers, before the output layer"},
    )
    packed: Packed = packed_field()


def _size(layers: int, hidden_size: int) -> dict[str, Any]:
    return {"rnn_layers": layers, "hidden_size": hidden_size}


def _paper(cell: str, layers: int, hidden_size: int) -> dict[str, Any]:
    """Of 1704.05119, Table 3: the GRUs stream; it does not tell their lookahead."""
    streams = {"unidirectional": True, "lookahead": 20} if cell == "gru" else {}
    return {**_size(layers, hidden_size), "cell": cell, "front_end": "conv2d", **streams}


# Layers x hidden units: small ones for two cores, and the paper's.
SIZES = {
    "2x128": _size(2, 128),
    "2x320": _size(2, 320),
    "2x512": _size(2, 512),
    "7x1760": _paper("relu", 7, 1760),
    "7x2560": _paper("relu", 7, 2560),
    "7x3072": _paper("relu", 7, 3072),
    "3x2560": _paper("gru", 3, 2560),
    "3x3568": _paper("gru", 3, 3568),
}


class DeepSpeech2(BaseFairseqModel):
    """Convolutional front end, recurrent layers, row convolution, output layer, for CTC.

    Log-mel frames [B, T, mel_bins] become logits of one frame in `frame_stride`. What is said of
    an utterance never depends on the others of its batch, except on its statistics in training.
    Both directions of a layer are concatenated, as in torch.nn.RNN; Deep Speech 2
    (arXiv 1512.02595) adds them.
    """

    def __init__(self, cfg: DeepSpeech2Config, mel_bins: int, classes: int):
        super().__init__()
        _warn_of_front_end(cfg)
        _check_lookahead(cfg)
        self.mel_bins = mel_bins
        self.front_end = (
            conv2d(mel_bins)
            if cfg.front_end == "conv2d"
            else conv1d(mel_bins, cfg.conv_channels, cfg.conv_kernel, cfg.conv_stride)
        )
        shared = {
            "input_size": self.front_end.width,
            "hidden_size": cfg.hidden_size,
            "num_layers": cfg.rnn_layers,
            "dropout": cfg.dropout if cfg.rnn_layers > 1 else 0.0,
            "bidirectional": not cfg.unidirectional,
            "packed": cfg.packed,
        }
        self.rnn = ClippedRNN(**shared) if cfg.cell == "relu" else GRU(batch_first=True, **shared)
        width = cfg.hidden_size * (1 if cfg.unidirectional else 2)
        self.lookahead = Lookahead(width, cfg.lookahead) if cfg.lookahead else None
        self.output = Linear(width, classes, packed=cfg.packed)
        self.dropout = FairseqDropout(cfg.dropout, module_name="DeepSpeech2")
        tag_prunable(self)

    @classmethod
    def build_model(cls, cfg: DeepSpeech2Config, task: Any) -> "DeepSpeech2":
        return cls(cfg, task.config.mel_bins, len(task.target_dictionary))

    def forward(
        self, source: Tensor, padding_mask: Optional[Tensor] = None, **unused: Any
    ) -> dict[str, Optional[Tensor]]:
        """source [B, T, mel_bins], padding_mask [B, T] (True: padding; None: there is none).

        Returns "encoder_out", the logits [T', B, classes], and its "padding_mask" [B, T'] or None.
        ValueError for an utterance without a frame.
        """
        lengths = None if padding_mask is None else padding_mask.logical_not().sum(1)
        _check_source(source, lengths, self.mel_bins)
        # fairseq-generate --fp16 halves models, but not these inputs.
        source = source.to(self.output.bias.dtype)
        x = self.dropout(self.front_end(source, lengths))
        lengths = None if lengths is None else self.output_lengths(lengths)
        x, _ = self.rnn(x, lengths=lengths)
        if self.lookahead is not None:
            x = self.lookahead(x)
        logits = self.output(self.dropout(x)).transpose(0, 1)
        mask = None if lengths is None else ~valid_frames(lengths, len(logits))
        return {"encoder_out": logits, "padding_mask": mask}

    def get_normalized_probs(
        self, net_output: dict[str, Any], log_probs: bool, sample: Optional[dict[str, Any]] = None
    ) -> Tensor:
        """Probabilities or their logarithms [T', B, classes], in float32 or wider."""
        logits = net_output["encoder_out"]
        dtype = torch.promote_types(logits.dtype, torch.float32)
        normalise = F.log_softmax if log_probs else F.softmax
        return normalise(logits, dim=-1, dtype=dtype)

    def output_lengths(self, lengths: Lengths) -> Lengths:
        """Output frames of `lengths` input frames, an int or an integer tensor."""
        return self.front_end.output_lengths(lengths)

    @property
    def frame_stride(self) -> int:
        """Input frames per output frame."""
        return self.front_end.stride

    def stream(self) -> ModelStream:
        """Starts an utterance that arrives in pieces; ValueError unless unidirectional and eval."""
        return ModelStream(self)

    def max_positions(self) -> None:
        """There is no limit."""
        return None


def _check_lookahead(cfg: DeepSpeech2Config) -> None:
    if cfg.lookahead < 0:
        raise ValueError(
            f"rnnprune_deepspeech2: expected --lookahead of at least 0, got {cfg.lookahead}"
        )
    if cfg.lookahead and not cfg.unidirectional:
        raise ValueError(
            "rnnprune_deepspeech2: expected --lookahead with --unidirectional only, got "
            f"--lookahead {cfg.lookahead} for both directions; drop it, they see all that follows"
        )


def _warn_of_front_end(cfg: DeepSpeech2Config) -> None:
    names = ("conv_channels", "conv_kernel", "conv_stride")
    given = [name for name in names if getattr(cfg, name) != getattr(DeepSpeech2Config, name)]
    if cfg.front_end == "conv2d" and given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        logger.warning(
            "%s: ignored with --front-end conv2d, whose convolutions are the paper's", options
        )


def _check_source(source: Tensor, lengths: Optional[Tensor], mel_bins: int) -> None:
    if source.dim() != 3 or source.shape[2] != mel_bins:
        raise ValueError(
            f"DeepSpeech2: expected source [B, T, {mel_bins}], got {list(source.shape)}"
        )
    shortest = source.shape[1] if lengths is None or not len(lengths) else int(lengths.min())
    if shortest < 1:
        raise ValueError(
            "DeepSpeech2: expected at least one frame of each utterance, got one without; "
            "leave empty utterances out"
        )
