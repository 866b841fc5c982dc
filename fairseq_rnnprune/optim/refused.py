"""Options of fairseq's that cannot go with masks."""

from __future__ import annotations

from typing import Any


def check_training(cfg: Any) -> None:
    """Raises ValueError for options that the masks would not survive."""
    common, distributed = cfg.common, cfg.distributed_training
    exact_fp16 = "--fp16 --fp16-no-flatten-grads"
    rules = (
        (
            common.memory_efficient_fp16,
            f"weights in fp32, got --memory-efficient-fp16; use {exact_fp16}",
        ),
        (
            common.fp16 and not common.fp16_no_flatten_grads,
            "one parameter per weight, got flat --fp16; add --fp16-no-flatten-grads",
        ),
        (
            common.amp,
            "checkpoints with the optimizer's masks, got --amp, which leaves them out; use "
            + exact_fp16,
        ),
        (
            cfg.optimization.use_bmuf,
            "the updates of one optimizer, got --use-bmuf, which averages weights between them; "
            "leave it out",
        ),
        (
            distributed.ddp_backend == "slowmo",
            "the updates of one optimizer, got --ddp-backend slowmo, which averages weights "
            "between them; take another backend",
        ),
        (
            distributed.ddp_backend == "fully_sharded",
            "whole weights in every process, got --ddp-backend fully_sharded; take another backend",
        ),
        (
            distributed.zero_sharding != "none",
            "whole moments in every process, got --zero-sharding; leave it out",
        ),
        (
            common.quantization_config_path,
            "one optimizer for the whole training, got --quantization-config-path, which makes new "
            "ones; leave it out",
        ),
    )
    for is_broken, expected in rules:
        if is_broken:
            raise ValueError(f"--optimizer pruned: expected {expected}")
