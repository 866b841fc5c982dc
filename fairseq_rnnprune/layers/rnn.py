"""ClippedRNN: the recurrent layers of Deep Speech 2, which can run packed at inference."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fairseq_rnnprune.sparse import (
    SparseRNN,
    check_lengths,
    choose_block_shape,
    last_valid,
    reverse_valid,
    valid_frames,
)

from .batch_norm import FrameBatchNorm
from .clipped_recurrence import CEILING, ClippedRecurrence
from .packable import Packable
from .packing import check_choice


class ClippedRNN(Packable, nn.Module):
    """Layers of h_t = min(max(norm(W x_t) + U h_{t-1}, 0), 20), in one or both directions.

    The recurrent layers of arXiv 1512.02595, with its sequence-wise batch normalisation of the
    input's product only (section 3.2), whose shift is the bias. Each direction has a W, a norm
    and a U of its own, and both are concatenated, as in torch.nn.RNN; the paper adds them.

    Parameters have the names of torch.nn.RNN's: weight_ih_l0 [H, I], weight_hh_l0 [H, H],
    weight_ih_l0_reverse, ...; so have the norms, norms.l0, norms.l0_reverse, ... `dropout` acts on
    what one layer hands to the next. `packed` is one of PACKED_CHOICES, obeyed by `pack`.
    """

    is_recurrent = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        packed: str = "auto",
    ):
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size
        self.num_layers, self.bidirectional = num_layers, bidirectional
        self.dropout = dropout
        self.packed = check_choice(packed, "the option packed")
        self.sparse = None
        directions = ("", "_reverse") if bidirectional else ("",)
        self._suffixes = [[f"l{i}{d}" for d in directions] for i in range(num_layers)]
        self.norms = nn.ModuleDict()
        for layer, suffixes in enumerate(self._suffixes):
            width = hidden_size * len(directions) if layer else input_size
            for suffix in suffixes:
                self.norms[suffix] = FrameBatchNorm(hidden_size)
                for kind, columns in (("ih", width), ("hh", hidden_size)):
                    weight = nn.Parameter(torch.empty(hidden_size, columns))
                    self.register_parameter(f"weight_{kind}_{suffix}", weight)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws W as torch.nn.RNN does, and U with the variance 1 / H.

        That is half of what keeps a signal from growing or fading through ReLUs (arXiv 1502.01852,
        section 2.2): states settle at a mean square of 1, as large as the normalised input.
        """
        for name, parameter in self.named_parameters(recurse=False):
            bound = self.hidden_size**-0.5
            if "_ih_" in name:
                nn.init.uniform_(parameter, -bound, bound)
            else:
                nn.init.normal_(parameter, std=bound)

    def forward(
        self, input: Tensor, hx: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """input [B, T, I] to the last layer's states [B, T, directions * H] and h_n.

        The states before and after, hx (None: zeros) and h_n, are [layers * directions, B, H].
        With lengths [B], input is padded: padding changes nothing, the output is zero there, and
        h_n is the state after the last valid step.
        """
        self._check_input(input)
        batch, steps, _ = input.shape
        cells = self.num_layers * len(self._suffixes[0])
        if hx is None:
            hx = input.new_zeros(cells, batch, self.hidden_size)
        elif hx.shape != (cells, batch, self.hidden_size):
            raise ValueError(
                f"ClippedRNN: expected hx {[cells, batch, self.hidden_size]}, got {list(hx.shape)}"
            )
        if self.sparse is not None:
            return self.sparse(input, hx, lengths)
        valid = None
        if lengths is not None:
            lengths = check_lengths(lengths, batch, steps, "ClippedRNN")
            lengths = lengths.to(input.device)
            valid = valid_frames(lengths, steps).t()
        x, h_n = input.transpose(0, 1), []
        for layer, states_before in enumerate(hx.chunk(self.num_layers)):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            x, last = self._layer(x, self._suffixes[layer], states_before, lengths, valid)
            h_n.append(last)
        if valid is not None:
            x = x.masked_fill(~valid.unsqueeze(2), 0.0)
        return x.transpose(0, 1), torch.cat(h_n)

    def _layer(
        self,
        x: Tensor,
        suffixes: list[str],
        hx: Tensor,
        lengths: Tensor | None,
        valid: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """x [T, B, I] and hx [directions, B, H] to the states [T, B, directions * H], and h_n."""
        products = []
        for suffix in suffixes:
            product = self.norms[suffix](F.linear(x, self._weight("ih", suffix)), valid)
            is_reverse = suffix.endswith("_reverse")
            products.append(reverse_valid(product, lengths) if is_reverse else product)
        inputs = torch.stack(products, dim=1)
        U = torch.stack([self._weight("hh", suffix) for suffix in suffixes])
        # Mixed precision ends here: the loop has one dtype, the products'.
        with torch.autocast(x.device.type, enabled=False):
            states = ClippedRecurrence.apply(inputs, U.to(inputs.dtype), hx.to(inputs.dtype))
        outputs, last = list(states.unbind(1)), last_valid(states.transpose(1, 2), lengths)
        if len(suffixes) == 2:
            outputs[1] = reverse_valid(outputs[1], lengths)
        return torch.cat(outputs, dim=2), last.transpose(0, 1)

    def folded(self) -> nn.RNN:
        """The same function at inference as a torch.nn.RNN, whose ReLU has yet to be clipped.

        The norms are folded into its input weights and biases; its recurrent weights are this
        layer's own, because together they may be a gigabyte.
        """
        rnn = nn.RNN(
            self.input_size,
            self.hidden_size,
            self.num_layers,
            nonlinearity="relu",
            batch_first=True,
            bidirectional=self.bidirectional,
            device="meta",
        )
        for suffix, norm in self.norms.items():
            scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
            shift = norm.bias.double() - norm.running_mean.double() * scale
            weight = self._weight("ih", suffix)
            dtype = torch.promote_types(weight.dtype, torch.float32)
            for name, tensor in {
                "weight_ih": weight.detach() * scale.detach().unsqueeze(1),
                "weight_hh": self._weight("hh", suffix),
                "bias_ih": shift,
                "bias_hh": torch.zeros_like(shift),
            }.items():
                parameter = nn.Parameter(tensor.detach().to(dtype), requires_grad=False)
                setattr(rnn, f"{name}_{suffix}", parameter)
        return rnn.eval()

    def _weight(self, kind: str, suffix: str) -> Tensor:
        return getattr(self, f"weight_{kind}_{suffix}")

    def _packed_copy(self, dtype: torch.dtype) -> SparseRNN:
        shape = partial(choose_block_shape, dtype=dtype, recurrent=True)
        return SparseRNN.from_dense(self.folded(), shape, dtype, ceiling=CEILING)

    def _check_input(self, input: Tensor) -> None:
        if input.dim() != 3 or input.shape[1] == 0 or input.shape[2] != self.input_size:
            raise ValueError(
                f"ClippedRNN: expected input [B, T, {self.input_size}] with T of at least 1, "
                f"got {list(input.shape)}"
            )

    def extra_repr(self) -> str:
        return (
            f"{self.input_size}, {self.hidden_size}, num_layers={self.num_layers}, "
            f"dropout={self.dropout}, bidirectional={self.bidirectional}"
        )
