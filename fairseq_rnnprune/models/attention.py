"""Global attention: what is remembered of a source, and one look at it per target step."""

import torch
from torch import Tensor, nn

from fairseq_rnnprune.layers import Linear


class Memory(nn.Module):
    """Projects encoder outputs once for all target steps."""

    def __init__(self, output_size: int, state_size: int, vector_size: int, packed: str = "auto"):
        super().__init__()
        self.key = Linear(output_size, state_size, bias=False, packed=packed)
        self.value = Linear(output_size, vector_size, bias=False, packed=packed)

    def forward(self, outputs: Tensor, is_padding: Tensor) -> dict[str, Tensor]:
        """Outputs [B, S, C] and their padding mask [B, S] to what `Attention` looks at.

        That is "keys" [B, S, H], "values" [B, S, A] and "penalty" [B, S], which is added to the
        scores: -inf where there is padding, else 0.
        """
        penalty = outputs.new_zeros(is_padding.shape).masked_fill_(is_padding, float("-inf"))
        return {"keys": self.key(outputs), "values": self.value(outputs), "penalty": penalty}


class Attention(nn.Module):
    """Attends from decoder states [B, H] to a memory with the "general" score.

    score_s = state . key_s with key_s = W_key output_s, weights = softmax(score), and the
    attentional vector is tanh(sum_s(weight_s value_s) + W_state state + b) with value_s =
    W_value output_s: arXiv 1508.04025, sections 3 and 3.1, where [W_value, W_state] is one matrix
    W_c. Apart, each output is multiplied once per sentence instead of once per step.
    """

    def __init__(self, state_size: int, vector_size: int, packed: str = "auto"):
        super().__init__()
        self.state = Linear(state_size, vector_size, packed=packed)

    def forward(self, state: Tensor, memory: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """State [B, H] to the attentional vector [B, A] and the weights [B, S]."""
        scores = torch.bmm(memory["keys"], state.unsqueeze(2)).squeeze(2) + memory["penalty"]
        weights = torch.softmax(scores, dim=1)
        context = torch.bmm(weights.unsqueeze(1), memory["values"]).squeeze(1)
        return torch.tanh(context + self.state(state)), weights
