"""Prunable layers. Packing follows: until then they are torch's own."""

from torch import nn

PACKED_CHOICES = ("auto", "dense", "fp32", "bf16", "int8")


class GRU(nn.GRU):
    """torch.nn.GRU with a choice of packing."""

    def __init__(self, *args, packed: str = "auto", **kwargs):
        super().__init__(*args, **kwargs)
        self.packed = packed


class Linear(nn.Linear):
    """torch.nn.Linear with a choice of packing."""

    def __init__(self, *args, packed: str = "auto", **kwargs):
        super().__init__(*args, **kwargs)
        self.packed = packed
