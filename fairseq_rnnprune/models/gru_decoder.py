"""The decoder of `rnnprune_gru_seq2seq`."""

from typing import Any

import torch
import torch.nn.functional as F
from fairseq.models import FairseqIncrementalDecoder
from fairseq.modules import FairseqDropout
from torch import Tensor, nn

from fairseq_rnnprune.layers import GRU, Linear
from fairseq_rnnprune.sparse.reference import gru_step

from .attention import Attention

IncrementalState = dict[str, dict[str, Tensor | None]]


class AttentionalGRUDecoder(FairseqIncrementalDecoder):
    """GRU layers with input feeding, and global attention from the top one.

    Input feeding (arXiv 1508.04025, section 3.3): the GRU reads each token's embedding beside the
    attentional vector of the step before, which is 0 at first. Its first state comes from the
    encoder's final states through a linear layer and tanh. The GRU is torch.nn.GRU's: the reset
    gate acts after the recurrent product, gates in the order r, z, n. Between the calls of
    incremental decoding "hidden" [layers, B, H] and "feed" [B, A] are kept.
    """

    def __init__(self, cfg: Any, dictionary: Any, embed_tokens: nn.Embedding):
        super().__init__(dictionary)
        embed_dim, hidden_size, packed = cfg.decoder_embed_dim, cfg.decoder_hidden_size, cfg.packed
        self.padding = dictionary.pad()
        self.embed_tokens = embed_tokens
        self.dropout = FairseqDropout(cfg.dropout, module_name="AttentionalGRUDecoder")
        self.bridge = Linear(
            2 * cfg.encoder_hidden_size, cfg.decoder_layers * hidden_size, packed=packed
        )
        self.gru = GRU(
            2 * embed_dim,
            hidden_size,
            cfg.decoder_layers,
            dropout=cfg.dropout if cfg.decoder_layers > 1 else 0.0,
            packed=packed,
        )
        self.attention = Attention(hidden_size, embed_dim, packed)
        self.norm = nn.LayerNorm(embed_dim) if cfg.layer_norm else nn.Identity()
        self.output_projection = Linear(embed_dim, len(dictionary), packed=packed)
        if cfg.share_decoder_input_output_embed or cfg.share_all_embeddings:
            self.output_projection.weight = embed_tokens.weight

    def forward(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Tensor] | None = None,
        incremental_state: IncrementalState | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Returns logits [B, T, vocabulary], and the attention's weights "attn": [[B, T, S]]."""
        features, extra = self.extract_features(prev_output_tokens, encoder_out, incremental_state)
        return self.output_layer(features), extra

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, Tensor] | None = None,
        incremental_state: IncrementalState | None = None,
        **unused: Any,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Returns attentional vectors [B, T, A]; with a cached state, of the last token only."""
        state = None
        if incremental_state is not None:
            state = self.get_incremental_state(incremental_state, "cached_state")
        if state is None:
            # Not at every step, where a GPU would have to be waited for.
            if bool(prev_output_tokens[:, 0].eq(self.padding).any()):
                raise ValueError(
                    "rnnprune_gru_seq2seq: expected targets padded on the right, got padding "
                    "before one; leave out --left-pad-target"
                )
            state = self._first_state(encoder_out["final"])
        else:
            prev_output_tokens = prev_output_tokens[:, -1:]
        x = self.dropout(self.embed_tokens(prev_output_tokens))
        vectors, weights, state = self._run(x, state, encoder_out)
        if incremental_state is not None:
            self.set_incremental_state(incremental_state, "cached_state", state)
        return self.dropout(self.norm(vectors)), {"attn": [weights]}

    def output_layer(self, features: Tensor, **unused: Any) -> Tensor:
        """Projects features [B, T, A] to logits."""
        return self.output_projection(features)

    def reorder_incremental_state(
        self, incremental_state: IncrementalState, new_order: Tensor
    ) -> None:
        """Follows beam search: row i of the state becomes row new_order[i]."""
        state = self.get_incremental_state(incremental_state, "cached_state")
        if state is not None:
            state = {
                name: x.index_select(1 if name == "hidden" else 0, new_order)
                for name, x in state.items()
            }
            self.set_incremental_state(incremental_state, "cached_state", state)

    def _first_state(self, final: Tensor) -> dict[str, Tensor]:
        hidden = torch.tanh(self.bridge(final))
        return {
            "hidden": hidden.view(len(hidden), self.gru.num_layers, -1).transpose(0, 1),
            "feed": hidden.new_zeros(len(hidden), self.output_projection.in_features),
        }

    def _run(
        self, x: Tensor, state: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Embeddings [B, T, E] to attentional vectors [B, T, A], weights [B, T, S], last state."""
        hidden, feed = state["hidden"].unbind(0), state["feed"]
        is_packed = self.gru.sparse is not None
        step = self._packed_step if is_packed else self._dense_step
        if not is_packed:
            # The embeddings' part of the first layer's gates, of all steps at once.
            x = F.linear(x, self.gru.weight_ih_l0[:, : x.shape[2]], self.gru.bias_ih_l0)
        vectors, weights = [], []
        for x_t in x.unbind(1):
            hidden = step(x_t, feed, hidden)
            feed, weight = self.attention(hidden[-1], memory)
            vectors.append(feed)
            weights.append(weight)
        state = {"hidden": torch.stack(list(hidden)), "feed": feed}
        return torch.stack(vectors, dim=1), torch.stack(weights, dim=1), state

    def _packed_step(self, x: Tensor, feed: Tensor, hidden: Any) -> Any:
        inputs = torch.cat([x, feed], dim=1).unsqueeze(0)
        return self.gru(inputs, torch.stack(list(hidden)))[1].unbind(0)

    def _dense_step(self, gates_x: Tensor, feed: Tensor, hidden: Any) -> Any:
        fed = self.gru.weight_ih_l0[:, -feed.shape[1] :]
        gates_x = torch.addmm(gates_x, feed, fed.t())
        states = []
        for layer, h in enumerate(hidden):
            weight_ih, weight_hh, bias_ih, bias_hh = self.gru.all_weights[layer]
            if layer > 0:
                below = F.dropout(states[-1], self.gru.dropout, self.training)
                gates_x = F.linear(below, weight_ih, bias_ih)
            states.append(gru_step(gates_x, F.linear(h, weight_hh, bias_hh), h))
        return states
