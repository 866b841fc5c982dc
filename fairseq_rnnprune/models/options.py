"""What the models' options share."""

from dataclasses import field
from typing import Any

from fairseq.dataclass import ChoiceEnum

from fairseq_rnnprune.layers import PACKED_CHOICES

Packed = ChoiceEnum(list(PACKED_CHOICES))


def packed_field() -> Any:
    """The field `packed: Packed` of a model's options."""
    return field(
        default="auto",
        metadata={
            "help": "weights at inference: auto (packed where that is faster), dense, or packed "
            "with fp32, bf16 or int8 values; RNNPRUNE_PACKED replaces auto"
        },
    )
