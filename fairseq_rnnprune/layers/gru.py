"""GRU: torch.nn.GRU that can run packed at inference."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fairseq_rnnprune.sparse import (
    SparseGRU,
    check_lengths,
    choose_block_shape,
    last_valid,
    reverse_valid,
    zero_padding,
)

from .packable import Packable
from .packing import check_choice


class GRU(Packable, nn.GRU):
    """torch.nn.GRU: its arguments, parameters, initialisation and fused forward, until packed.

    Once packed, `forward` runs a SparseGRU at every batch size: as long as `auto` chose to pack,
    that is faster from batch 1 to 512 on CPUs; on GPUs it was not measured. `packed` is one of
    PACKED_CHOICES, obeyed by `pack`.
    """

    gates = 3
    is_recurrent = True

    def __init__(self, *args: Any, packed: str = "auto", **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.packed = check_choice(packed, "the option packed")
        self.sparse = None

    def forward(
        self, input: Tensor, hx: Tensor | None = None, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """As torch.nn.GRU's; with lengths [B], as torch.nn.GRU's of a PackedSequence.

        In this case input is padded, [T, B, I] or, if batch_first, [B, T, I]; the output is padded
        with zeros, and h_n is the state after the last valid step.
        """
        if self.sparse is not None:
            return self.sparse(input, hx, lengths)
        if lengths is None:
            return super().forward(input, hx)
        if not isinstance(input, Tensor) or input.dim() != 3:
            got = list(input.shape) if isinstance(input, Tensor) else type(input).__name__
            raise ValueError(f"GRU: expected a batch of three dimensions with lengths, got {got}")
        time = 1 if self.batch_first else 0
        steps = input.shape[time]
        lengths = check_lengths(lengths, input.shape[1 - time], steps, "GRU")
        if bool((lengths == steps).all()):
            return super().forward(input, hx)
        # cuDNN has a kernel for PackedSequences; torch's loop over them on CPUs takes half as long
        # again as that over a padded batch (H = 128 to 512, 12 % of the frames padding).
        run = self._run_packed if input.is_cuda else self._run_padded
        return run(input, hx, lengths)

    def _run_packed(
        self, input: Tensor, hx: Tensor | None, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        steps = input.shape[1 if self.batch_first else 0]
        sequence = pack_padded_sequence(input, lengths.cpu(), self.batch_first, False)
        output, h_n = super().forward(sequence, hx)
        return pad_packed_sequence(output, self.batch_first, 0.0, steps)[0], h_n

    def _run_padded(
        self, input: Tensor, hx: Tensor | None, lengths: Tensor
    ) -> tuple[Tensor, Tensor]:
        """One direction at a time, so that each meets the padding last."""
        x = input.transpose(0, 1) if self.batch_first else input
        directions = 2 if self.bidirectional else 1
        shape = (self.num_layers * directions, x.shape[1], self.hidden_size)
        if hx is None:
            hx = x.new_zeros(shape)
        elif hx.shape != shape:
            raise ValueError(f"GRU: expected hx {list(shape)}, got {list(hx.shape)}")
        h_n: list[Tensor] = []
        for layer in range(self.num_layers):
            if layer > 0:
                x = F.dropout(x, self.dropout, self.training)
            outputs = []
            for direction in range(directions):
                cell = len(h_n)
                output, _ = torch.gru(
                    reverse_valid(x, lengths) if direction else x,
                    hx[cell : cell + 1],
                    self.all_weights[cell],
                    self.bias,
                    num_layers=1,
                    dropout=0.0,
                    train=self.training,
                    bidirectional=False,
                    batch_first=False,
                )
                h_n.append(last_valid(output, lengths))
                outputs.append(reverse_valid(output, lengths) if direction else output)
            x = torch.cat(outputs, dim=2)
        x = zero_padding(x, lengths)
        return (x.transpose(0, 1) if self.batch_first else x), torch.stack(h_n)

    def _packed_copy(self, dtype: torch.dtype) -> SparseGRU:
        return SparseGRU.from_dense(self, partial(choose_block_shape, dtype=dtype), dtype)
