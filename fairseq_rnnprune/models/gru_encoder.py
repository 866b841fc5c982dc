"""The encoder of `rnnprune_gru_seq2seq`."""

from typing import Any

import torch
from fairseq.models import FairseqEncoder
from fairseq.modules import FairseqDropout
from torch import Tensor, nn

from fairseq_rnnprune.layers import GRU

from .attention import Memory


class GRUEncoder(FairseqEncoder):
    """Bidirectional GRU over source tokens [B, S], padded on either side.

    A sentence comes out the same alone and in any batch: padding is moved behind it before the GRU
    runs, which stops at each sentence's length, and back afterwards.
    """

    def __init__(self, cfg: Any, dictionary: Any, embed_tokens: nn.Embedding):
        super().__init__(dictionary)
        self.padding = dictionary.pad()
        self.embed_tokens = embed_tokens
        self.dropout = FairseqDropout(cfg.dropout, module_name="GRUEncoder")
        self.gru = GRU(
            cfg.encoder_embed_dim,
            cfg.encoder_hidden_size,
            cfg.encoder_layers,
            batch_first=True,
            dropout=cfg.dropout if cfg.encoder_layers > 1 else 0.0,
            bidirectional=True,
            packed=cfg.packed,
        )
        size = 2 * cfg.encoder_hidden_size
        self.norm = nn.LayerNorm(size) if cfg.layer_norm else nn.Identity()
        self.memory = Memory(size, cfg.decoder_hidden_size, cfg.decoder_embed_dim, cfg.packed)

    def forward(
        self, src_tokens: Tensor, src_lengths: Tensor | None = None, **unused: Any
    ) -> dict[str, Tensor]:
        """Returns the memory of the outputs, and the top layer's "final" states [B, 2H]."""
        is_padding = src_tokens.eq(self.padding)
        before, lengths = _spans(~is_padding)
        x = self.dropout(self.embed_tokens(_roll(src_tokens, before)))
        outputs, states = self.gru(x, lengths=lengths)
        outputs = self.dropout(self.norm(_roll(outputs, -before)))
        final = self.dropout(torch.cat([states[-2], states[-1]], dim=1))
        return {**self.memory(outputs, is_padding), "final": final}

    def reorder_encoder_out(
        self, encoder_out: dict[str, Tensor], new_order: Tensor
    ) -> dict[str, Tensor]:
        """Follows beam search: row i becomes row new_order[i]."""
        return {name: x.index_select(0, new_order) for name, x in encoder_out.items()}


def _spans(is_token: Tensor) -> tuple[Tensor, Tensor]:
    """Padding before each sentence [B], and its length [B] from the first token to the last."""
    steps = is_token.shape[1]
    before = is_token.int().argmax(dim=1)
    after = is_token.flip(1).int().argmax(dim=1)
    return before, (steps - before - after) * is_token.any(dim=1)


def _roll(x: Tensor, by: Tensor) -> Tensor:
    """x [B, S, ...] with row i moved left by by[i], what leaves coming in on the right."""
    if not by.any():
        return x
    rows, steps = x.shape[:2]
    index = (torch.arange(steps, device=x.device) + by.unsqueeze(1)) % steps
    return x[torch.arange(rows, device=x.device).unsqueeze(1), index]
