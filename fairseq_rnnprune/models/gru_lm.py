"""`rnnprune_gru_lm`: a GRU language model whose every large matrix can be pruned and packed."""

# fairseq reads the types of options from typing's spelling: no deferred annotations, no X | None.
# ruff: noqa: UP045

from dataclasses import dataclass, field
from typing import Any, Optional

from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqIncrementalDecoder, FairseqLanguageModel
from fairseq.modules import AdaptiveSoftmax, FairseqDropout
from fairseq.utils import eval_str_list
from omegaconf import II
from torch import Tensor, nn

from fairseq_rnnprune.layers import GRU, Linear, make_packable
from fairseq_rnnprune.pruning import tag_prunable

from .embedding import token_embedding
from .options import Packed, packed_field

IncrementalState = dict[str, dict[str, Optional[Tensor]]]


@dataclass
class GRULanguageModelConfig(FairseqDataclass):
    """Options of `rnnprune_gru_lm`."""

    decoder_embed_dim: int = field(default=512, metadata={"help": "embedding dimension"})
    decoder_hidden_size: int = field(default=512, metadata={"help": "hidden units per layer"})
    decoder_layers: int = field(default=1, metadata={"help": "GRU layers"})
    dropout: float = field(
        default=0.1, metadata={"help": "dropout after the embedding, between layers, after them"}
    )
    decoder_dropout_in: Optional[float] = field(
        default=None, metadata={"help": "dropout after the embedding (default: --dropout)"}
    )
    decoder_dropout_out: Optional[float] = field(
        default=None, metadata={"help": "dropout before the output layer (default: --dropout)"}
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "tie the output layer to the embedding"}
    )
    adaptive_softmax_cutoff: Optional[str] = field(
        default=None,
        metadata={"help": "cut-offs such as 2000,10000; needs --criterion adaptive_loss"},
    )
    adaptive_softmax_factor: float = field(
        default=4.0, metadata={"help": "each further cluster is this much narrower"}
    )
    packed: Packed = packed_field()
    tokens_per_sample: int = II("task.tokens_per_sample")


def _size(embed_dim: int, hidden_size: int) -> dict[str, int]:
    return {"decoder_embed_dim": embed_dim, "decoder_hidden_size": hidden_size}


# The paper's GRU widths (1704.05119, Table 3) and small ones for two cores, all of one layer.
SIZES = {
    "256": _size(256, 256),
    "512": _size(512, 512),
    "1024": _size(512, 1024),
    "1760": _size(1024, 1760),
    "2560": _size(1024, 2560),
    "3568": _size(1024, 3568),
}


class GRULanguageModel(FairseqLanguageModel):
    """Embedding, GRU layers and an output layer over the vocabulary."""

    def __init__(self, decoder: "GRUDecoder"):
        super().__init__(decoder)
        tag_prunable(self)

    @classmethod
    def build_model(cls, cfg: GRULanguageModelConfig, task: Any) -> "GRULanguageModel":
        if cfg.adaptive_softmax_cutoff is not None and cfg.share_decoder_input_output_embed:
            raise ValueError(
                "rnnprune_gru_lm: expected --adaptive-softmax-cutoff or "
                "--share-decoder-input-output-embed, got both; drop one"
            )
        source, target = task.source_dictionary, task.target_dictionary
        if len(source) != len(target) and cfg.share_decoder_input_output_embed:
            raise ValueError(
                "rnnprune_gru_lm: expected one dictionary for --share-decoder-input-output-embed, "
                f"got {len(source)} symbols in and {len(target)} out; drop it, or "
                "--output-dictionary-size"
            )
        return cls(GRUDecoder(cfg, target, source))


class GRUDecoder(FairseqIncrementalDecoder):
    """GRU decoder without encoder: tokens [B, T] to logits [B, T, vocabulary].

    The GRU is torch.nn.GRU's: the reset gate acts after the recurrent product (arXiv 1406.1078v3
    differs), gates in the order r, z, n. Between the calls of incremental decoding, the hidden
    state [layers, B, H] is kept under the key "hidden".
    """

    def __init__(self, cfg: GRULanguageModelConfig, dictionary: Any, source_dictionary: Any):
        super().__init__(dictionary)
        embed_dim, hidden_size = cfg.decoder_embed_dim, cfg.decoder_hidden_size
        dropout_in = _first(cfg.decoder_dropout_in, cfg.dropout)
        dropout_out = _first(cfg.decoder_dropout_out, cfg.dropout)
        self.dropout_in = FairseqDropout(dropout_in, module_name="GRUDecoder")
        self.dropout_out = FairseqDropout(dropout_out, module_name="GRUDecoder")
        self.embed_tokens = token_embedding(source_dictionary, embed_dim)
        self.gru = GRU(
            embed_dim,
            hidden_size,
            cfg.decoder_layers,
            batch_first=True,
            dropout=cfg.dropout if cfg.decoder_layers > 1 else 0.0,
            packed=cfg.packed,
        )
        self.adaptive_softmax = None
        if cfg.adaptive_softmax_cutoff is not None:
            self.adaptive_softmax = AdaptiveSoftmax(
                len(dictionary),
                hidden_size,
                eval_str_list(cfg.adaptive_softmax_cutoff, type=int),
                dropout=dropout_out,
                factor=cfg.adaptive_softmax_factor,
            )
            make_packable(self.adaptive_softmax, cfg.packed)
            return
        tied = cfg.share_decoder_input_output_embed
        self.projection = nn.Identity()
        if tied and embed_dim != hidden_size:
            self.projection = Linear(hidden_size, embed_dim, packed=cfg.packed)
        self.output_projection = Linear(
            embed_dim if tied else hidden_size, len(dictionary), packed=cfg.packed
        )
        if tied:
            self.output_projection.weight = self.embed_tokens.weight

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: None = None,
        incremental_state: Optional[IncrementalState] = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Returns logits [B, T, vocabulary] (features with adaptive softmax) and extras."""
        features, extra = self.extract_features(prev_output_tokens, None, incremental_state)
        return self.output_layer(features), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: None = None,
        incremental_state: Optional[IncrementalState] = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Returns features [B, T, H]; with a cached state, of the last token only."""
        hidden = None
        if incremental_state is not None:
            cached = self.get_incremental_state(incremental_state, "cached_state")
            if cached is not None:
                prev_output_tokens, hidden = prev_output_tokens[:, -1:], cached["hidden"]
        x = self.dropout_in(self.embed_tokens(prev_output_tokens))
        x, hidden = self.gru(x, hidden)
        if incremental_state is not None:
            self.set_incremental_state(incremental_state, "cached_state", {"hidden": hidden})
        # fairseq's generator looks for "attn" in the extras of every decoder.
        return self.dropout_out(x), {"attn": [None]}

    def output_layer(self, features: Tensor, **unused: Any) -> Tensor:
        """Projects features [B, T, H] to logits; adaptive softmax does that in its criterion."""
        if self.adaptive_softmax is not None:
            return features
        return self.output_projection(self.projection(features))

    def reorder_incremental_state(
        self, incremental_state: IncrementalState, new_order: Tensor
    ) -> None:
        """Follows beam search: row i of the state becomes row new_order[i]."""
        cached = self.get_incremental_state(incremental_state, "cached_state")
        if cached is not None:
            hidden = cached["hidden"].index_select(1, new_order)
            self.set_incremental_state(incremental_state, "cached_state", {"hidden": hidden})


def _first(value: Optional[float], default: float) -> float:
    return default if value is None else value
