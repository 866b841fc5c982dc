"""`rnnprune_gru_seq2seq`: translation with a GRU encoder, a GRU decoder and attention."""

from dataclasses import dataclass, field
from typing import Any

from fairseq.dataclass import FairseqDataclass
from fairseq.models import FairseqEncoderDecoderModel

from fairseq_rnnprune.pruning import tag_prunable

from .embedding import token_embedding
from .gru_decoder import AttentionalGRUDecoder
from .gru_encoder import GRUEncoder
from .options import Packed, packed_field


@dataclass
class GRUSeq2SeqConfig(FairseqDataclass):
    """Options of `rnnprune_gru_seq2seq`."""

    encoder_embed_dim: int = field(default=256, metadata={"help": "source embedding dimension"})
    encoder_hidden_size: int = field(
        default=512, metadata={"help": "hidden units per layer and direction"}
    )
    encoder_layers: int = field(default=1, metadata={"help": "bidirectional GRU layers"})
    decoder_embed_dim: int = field(
        default=256, metadata={"help": "dimension of target embedding and attentional vector"}
    )
    decoder_hidden_size: int = field(default=512, metadata={"help": "hidden units per layer"})
    decoder_layers: int = field(default=1, metadata={"help": "GRU layers"})
    dropout: float = field(
        default=0.1,
        metadata={
            "help": "dropout of embeddings, between layers, of what the encoder hands on, and "
            "before the output layer"
        },
    )
    layer_norm: bool = field(
        default=False,
        metadata={"help": "layer norm of the encoder's outputs and before the output layer"},
    )
    share_decoder_input_output_embed: bool = field(
        default=False, metadata={"help": "tie the output layer to the target embedding"}
    )
    share_all_embeddings: bool = field(
        default=False,
        metadata={"help": "one embedding for source, target and output; needs a joined dictionary"},
    )
    packed: Packed = packed_field()


def _size(embed_dim: int, hidden_size: int, layers: int) -> dict[str, int]:
    sizes = {"embed_dim": embed_dim, "hidden_size": hidden_size, "layers": layers}
    return {f"{side}_{k}": size for side in ("encoder", "decoder") for k, size in sizes.items()}


# From two cores up.
SIZES = {"256": _size(256, 256, 1), "512": _size(256, 512, 1), "1024": _size(512, 1024, 2)}


class GRUSeq2Seq(FairseqEncoderDecoderModel):
    """Bidirectional GRU encoder and attentional GRU decoder; see both for their variants."""

    def __init__(self, encoder: GRUEncoder, decoder: AttentionalGRUDecoder):
        super().__init__(encoder, decoder)
        tag_prunable(self)

    @classmethod
    def build_model(cls, cfg: GRUSeq2SeqConfig, task: Any) -> "GRUSeq2Seq":
        source, target = task.source_dictionary, task.target_dictionary
        source_embedding = token_embedding(source, cfg.encoder_embed_dim)
        if cfg.share_all_embeddings:
            _check_shareable(cfg, source, target)
            target_embedding = source_embedding
        else:
            target_embedding = token_embedding(target, cfg.decoder_embed_dim)
        encoder = GRUEncoder(cfg, source, source_embedding)
        return cls(encoder, AttentionalGRUDecoder(cfg, target, target_embedding))


def _check_shareable(cfg: GRUSeq2SeqConfig, source: Any, target: Any) -> None:
    if source != target:
        raise ValueError(
            "rnnprune_gru_seq2seq: expected one dictionary for --share-all-embeddings, got "
            f"{len(source)} source and {len(target)} target types that differ; "
            "run fairseq-preprocess with --joined-dictionary"
        )
    if cfg.encoder_embed_dim != cfg.decoder_embed_dim:
        raise ValueError(
            "rnnprune_gru_seq2seq: expected one embedding dimension for --share-all-embeddings, "
            f"got {cfg.encoder_embed_dim} and {cfg.decoder_embed_dim}"
        )
