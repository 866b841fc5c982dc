"""SparseGRU and SparseRNN: drop-ins for torch.nn.GRU and torch.nn.RNN at inference."""

from __future__ import annotations

from math import inf
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from .arguments import as_floats, check_float_tensor, is_plain, not_compiled
from .cpu_network import Network
from .direction import Direction, ShapeChoice, pack_layers
from .dispatch import choose_backend
from .lengths import check_lengths, pack_like, zero_padding
from .matrix import versions

# Before the first call: what a network was prepared of, its arrays and their versions, and itself.
_NOTHING: tuple[list, list[Tensor], list[int], Network | None] = ([], [], [], None)


class SparseRecurrent(nn.Module):
    """What packed recurrent networks share: layers, directions, layouts, checks.

    The input's products of a whole sequence are one matmul, the recurrent ones one per step.
    Layers and steps hand on float32; what comes out has the dtype of what came in. No dropout, no
    gradient; the state dict holds the packed arrays (SparseLinear). `.to(device)` moves them,
    `.half()` and the like leave them as they were packed. Its layers are those it was made of:
    one that is put in the place of another is not seen.
    """

    def __init__(self, layers: list[list[Direction]], batch_first: bool = False):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList(directions) for directions in layers)
        self.batch_first = batch_first
        self.num_layers, self.bidirectional = len(layers), len(layers[0]) == 2
        self.bias, self.dropout = layers[0][0].input.bias is not None, 0.0
        self.input_size = layers[0][0].input.W.shape[1]
        self.hidden_size = layers[0][0].recurrent.W.shape[1]
        self._cells = len(self._directions())
        self._parts = [p for d in self._directions() for p in (d.input, d.recurrent)]
        self._prepared = _NOTHING

    def flatten_parameters(self) -> None:
        """Nothing: models call it on torch's layers before they run them."""

    def _directions(self) -> list[Direction]:
        return [direction for directions in self.layers for direction in directions]

    @not_compiled
    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor | PackedSequence, Tensor]:
        """input [T, B, I] to the outputs [T, B, directions * H] of the last layer, and h_n.

        [B, T, ...] if batch_first; it may have no B. T is at least 1. The states before and after,
        hx (None: zeros) and h_n, are [layers * directions, B, H]. With lengths [B], the valid
        steps of each sequence, input is padded: so is the output, with zeros, and h_n is the state
        after the last valid step. A PackedSequence gives one, as in torch.
        """
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx, lengths)
        # Asked once, as a step of a small network takes less time than questions do.
        plain = is_plain(input) and (hx is None or is_plain(hx))
        self._check_input(input, plain)
        dtype, batched = input.dtype, input.dim() == 3
        x = input if plain else as_floats(input)
        if not batched:
            x = x.unsqueeze(1)
        elif self.batch_first:
            x = x.transpose(0, 1)
        h_0 = None if hx is None else self._check_states(hx, x, batched, plain)
        if lengths is None:
            out, h_n = self._whole(x, h_0, plain)
        else:
            h_0 = self._zeros(x) if h_0 is None else h_0
            lengths = check_lengths(lengths, x.shape[1], len(x), self._name)
            is_one_call = is_plain(x) and x.is_cpu and self._network(x) is not None
            run = self._run_by_length if is_one_call else self._run_padded
            out, h_n = run(x, h_0, lengths.to(x.device))
        if dtype != torch.float32:
            out, h_n = out.to(dtype), h_n.to(dtype)
        if not batched:
            return out.squeeze(1), h_n.squeeze(1)
        return (out.transpose(0, 1) if self.batch_first else out), h_n

    def _forward_packed(
        self, input: PackedSequence, hx: Tensor | None, lengths: Tensor | None
    ) -> tuple[PackedSequence, Tensor]:
        if lengths is not None:
            raise ValueError(
                f"{self._name}: expected no lengths beside a PackedSequence, which has its own"
            )
        x, lengths = pad_packed_sequence(input, self.batch_first)
        out, h_n = self(x, hx, lengths)
        return pack_like(out.transpose(0, 1) if self.batch_first else out, lengths, input), h_n

    def _run_by_length(self, x: Tensor, h_0: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Sequences of one length at a time.

        A batch of one is nearly as fast per sequence in the native kernels as one of 16, which
        costs 1.0 to 1.7 times less; and no step is taken for padding.
        """
        directions = len(self.layers[0])
        out = x.new_zeros(len(x), x.shape[1], directions * self.hidden_size, dtype=torch.float32)
        h_n = torch.empty_like(h_0, dtype=torch.float32)
        for length in lengths.unique().tolist():
            rows = (lengths == length).nonzero().squeeze(1)
            out[:length, rows], h_n[:, rows] = self._whole(x[:length, rows], h_0[:, rows])
        return out, h_n

    def _run_padded(self, x: Tensor, h_0: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """All at once, where a step costs much whatever the batch: on a GPU, by torch's CSR."""
        out, h_n = self._run(x, h_0, lengths)
        return zero_padding(out, lengths), h_n

    def _whole(self, x: Tensor, h_0: Tensor | None, plain: bool = False) -> tuple[Tensor, Tensor]:
        """Without padding: in one call if possible. `plain`: whether both are known to be so."""
        plain = plain or is_plain(x) and (h_0 is None or is_plain(h_0))
        on_cpu = x.is_cpu and (h_0 is None or h_0.is_cpu)
        network = self._network(x) if plain and on_cpu else None
        if network is not None:
            return network(x, h_0)
        # The layers, one by one, convert what is not plain or say what is wrong.
        return self._run(x, self._zeros(x) if h_0 is None else h_0)

    def _zeros(self, x: Tensor) -> Tensor:
        return x.new_zeros(self._cells, x.shape[1], self.hidden_size)

    def _run(self, x: Tensor, h_0: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Layer by layer, each matrix on the backend chosen for it."""
        h_n = []
        for directions in self.layers:
            outputs = []
            for direction in directions:
                output, last = direction(x, h_0[len(h_n)], lengths)
                outputs.append(output)
                h_n.append(last)
            x = torch.cat(outputs, dim=2)
        return x, torch.stack(h_n)

    def _network(self, x: Tensor) -> Network | None:
        """The network prepared for one call, if every matrix is going to run on the backend cpu.

        Copies of this module make their own.
        """
        made_of, arrays, before, network = self._prepared
        is_same = bool(made_of) and before == versions(arrays)
        for part, W, bias, backend in made_of:
            is_same &= part.W is W and part.bias is bias and part.backend == backend
        if not is_same:
            made_of = [(part, part.W, part.bias, part.backend) for part in self._parts]
            arrays = [array for part in self._parts for array in part.W.present]
            arrays += [part.bias for part in self._parts if part.bias is not None]
            before = versions(arrays)
            network = self._prepare(x)
            self._prepared = made_of, arrays, before, network
        return network

    def _prepare(self, x: Tensor) -> Network | None:
        chosen = {
            choose_backend(part.W, x.new_empty(1, part.W.shape[1]), part.backend).name
            for part in self._parts
        }
        one_call = chosen == {"cpu"}
        return Network(self.layers, self.input_size, self.hidden_size) if one_call else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_prepared": _NOTHING}

    @property
    def _name(self) -> str:
        return type(self).__name__

    def _check_input(self, x: Tensor, plain: bool) -> None:
        if not plain:
            check_float_tensor(self._name, "input", x)
        shape = x.shape
        if len(shape) not in (2, 3) or shape[-1] != self.input_size:
            layout = "B, T" if self.batch_first else "T, B"
            size = self.input_size
            raise ValueError(
                f"{self._name}: expected input [{layout}, {size}] or [T, {size}], got {list(shape)}"
            )
        if shape[1 if len(shape) == 3 and self.batch_first else 0] == 0:
            raise ValueError(f"{self._name}: expected at least one step, got input {list(shape)}")

    def _check_states(self, h_0: Tensor, x: Tensor, batched: bool, plain: bool) -> Tensor:
        """The states before x [T, B, I] as float32 [layers * directions, B, H]."""
        if not plain:
            check_float_tensor(self._name, "hx", h_0)
        batch = (x.shape[1],) if batched else ()
        expected = (self._cells, *batch, self.hidden_size)
        if h_0.shape != expected:
            raise ValueError(f"{self._name}: expected hx {list(expected)}, got {list(h_0.shape)}")
        h_0 = h_0 if plain else as_floats(h_0)
        return h_0 if batched else h_0.unsqueeze(1)


class SparseGRU(SparseRecurrent):
    """torch.nn.GRU (reset gate after the recurrent product) with packed weights."""

    @classmethod
    def from_dense(
        cls,
        gru: nn.GRU,
        block_shape: ShapeChoice = (16, 1),
        dtype: torch.dtype = torch.float32,
        backend: str | None = None,
    ) -> SparseGRU:
        """Packs any torch.nn.GRU: layers, directions, batch_first, with and without bias.

        `block_shape` is one for all weights, or a function of a weight and its number of gates. A
        recurrent diagonal is stored apart where that stores fewer values. TypeError for anything
        else than a GRU; errors as in BlockSparseMatrix.from_dense.
        """
        _check_type("SparseGRU", gru, nn.GRU)
        return cls(pack_layers(gru, "gru", block_shape, dtype, backend), gru.batch_first)


class SparseRNN(SparseRecurrent):
    """torch.nn.RNN, tanh or ReLU, with packed weights."""

    @classmethod
    def from_dense(
        cls,
        rnn: nn.RNN,
        block_shape: ShapeChoice = (16, 1),
        dtype: torch.dtype = torch.float32,
        backend: str | None = None,
        ceiling: float = inf,
    ) -> SparseRNN:
        """As SparseGRU.from_dense; a ReLU is cut off at `ceiling` > 0 (Deep Speech: 20)."""
        _check_type("SparseRNN", rnn, nn.RNN)
        if not ceiling > 0:
            raise ValueError(f"SparseRNN.from_dense: expected a ceiling above 0, got {ceiling}")
        layers = pack_layers(rnn, rnn.nonlinearity, block_shape, dtype, backend, ceiling)
        return cls(layers, rnn.batch_first)


def _check_type(owner: str, dense: nn.Module, expected: type) -> None:
    if not isinstance(dense, expected):
        raise TypeError(
            f"{owner}.from_dense: expected a torch.nn.{expected.__name__}, "
            f"got {type(dense).__name__}"
        )
