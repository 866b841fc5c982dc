"""What the models' options share."""

from collections.abc import Mapping
from dataclasses import field, fields, make_dataclass
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
            "with fp32, bf16, int16 or int8 values; RNNPRUNE_PACKED replaces auto"
        },
    )


def named_size(options: type, size: str, defaults: Mapping[str, Any]) -> type:
    """The options of a model's named size: the same ones with other defaults.

    A dataclass of its own, since fairseq-hydra-train fills in a dataclass's defaults before an
    architecture function could have a say.
    """
    changed = [
        (f.name, f.type, field(default=defaults[f.name], metadata=f.metadata))
        for f in fields(options)
        if f.name in defaults
    ]
    return make_dataclass(f"{options.__name__}_{size}", changed, bases=(options,))
