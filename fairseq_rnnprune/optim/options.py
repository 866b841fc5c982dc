"""The options of `--optimizer pruned`, and the schedules that they describe."""

# fairseq reads the types of options from typing's spelling: no deferred annotations, no X | None.
# ruff: noqa: UP006, UP035, UP045

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, List, Optional, TypeVar

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from fairseq_rnnprune.pruning import (
    TYPES,
    CubicSchedule,
    OneShotSchedule,
    RampSchedule,
    Schedule,
    default_start,
)

T = TypeVar("T")


@dataclass
class PruningOptions(FairseqDataclass):
    """What is pruned, when and how far; defaults are the heuristics of 1704.05119, Table 1."""

    prune_inner: str = field(
        default="adam",
        metadata={"help": "dense optimizer that makes the updates: adam, nag, ... (default: adam)"},
    )
    prune_schedule: ChoiceEnum(["ramp", "cubic", "one-shot"]) = field(
        default="cubic",
        metadata={
            "help": "ramp: rising threshold up to --prune-q (arXiv 1704.05119); cubic: target "
            "sparsity per matrix (arXiv 1710.01878); one-shot: prune once, at --prune-start "
            "(default: cubic)"
        },
    )
    prune_start: Optional[str] = field(
        default=None,
        metadata={
            "help": "pruning starts after this many updates (N), epochs (2e) or per cent of the "
            "training (10%%); default: 1e, or earlier in a run of a few epochs; one-shot: 50%%"
        },
    )
    prune_ramp: Optional[str] = field(
        default=None,
        metadata={"help": "the threshold rises faster from here on (N, 2e, 25%%); default: 25%%"},
    )
    prune_end: Optional[str] = field(
        default=None, metadata={"help": "masks are final from here on (N, 2e, 50%%); default: 50%%"}
    )
    prune_freq: int = field(
        default=100, metadata={"help": "updates between two changes of masks (default: 100)"}
    )
    prune_q: Optional[str] = field(
        default=None,
        metadata={
            "help": "ramp: 90th percentile of |weight| (of the block score, with blocks) in a "
            "dense model, as `rnnprune calibrate` prints it; Q or recurrent=Q,input=Q,..."
        },
    )
    prune_ramp_factor: float = field(
        default=1.5,
        metadata={"help": "ramp: slope after --prune-ramp / slope before it (default: 1.5)"},
    )
    prune_sparsity: str = field(
        default="0.9",
        metadata={
            "help": "cubic, one-shot: final sparsity in [0, 1); S or recurrent=S,input=S "
            "(default: 0.9)"
        },
    )
    prune_max_sparsity: float = field(
        default=0.95,
        metadata={
            "help": "ramp: the threshold of a type stops where its sparsity, in (0, 1), reaches "
            "this (default: 0.95)"
        },
    )
    prune_types: str = field(
        default="recurrent,input,linear",
        metadata={
            "help": f"types of weights to prune, among {', '.join(TYPES)} "
            "(default: recurrent,input,linear)"
        },
    )
    prune_block_shape: str = field(
        default="1,1",
        metadata={
            "help": "rows,columns of a block, pruned as one; R,C or recurrent=R,C,input=R,C "
            "(default: 1,1)"
        },
    )
    prune_score: ChoiceEnum(["max", "mean", "l2"]) = field(
        default="max",
        metadata={"help": "importance of a block: max |w|, mean |w| or l2 norm (default: max)"},
    )
    # Values that other groups of options own.
    lr: List[float] = II("optimization.lr")
    tpu: bool = II("common.tpu")
    max_update: int = II("optimization.max_update")
    max_epoch: int = II("optimization.max_epoch")


def pruned_types(cfg: Any) -> list[str]:
    """The types named by --prune-types; ValueError for an unknown one."""
    types = [t.strip() for t in cfg.prune_types.split(",") if t.strip()]
    unknown = [t for t in types if t not in TYPES]
    if unknown or not types:
        raise ValueError(
            f"--prune-types: expected some of {','.join(TYPES)}, got {cfg.prune_types!r}"
        )
    return types


def block_shapes(cfg: Any, types: list[str]) -> dict[str, tuple[int, int]]:
    """Block shape by type from --prune-block-shape."""

    def parse(text: str) -> tuple[int, int]:
        match = re.fullmatch(r"(\d+)[,x](\d+)", text)
        if not match:
            raise ValueError("rows,columns such as 4,4")
        return int(match[1]), int(match[2])

    return _by_type("--prune-block-shape", cfg.prune_block_shape, types, parse)


def build_schedules(cfg: Any, types: list[str], epoch_length: Optional[int]) -> dict[str, Schedule]:
    """Schedule by type; `epoch_length` is the number of updates in an epoch, if known."""

    def updates(option: str, default: str) -> int:
        given = getattr(cfg, option[2:].replace("-", "_"))
        return _updates(cfg, option, default if given is None else given, epoch_length)

    def start_before(ramp: int) -> int:
        start = updates("--prune-start", "1e")
        return default_start(start, ramp) if cfg.prune_start is None else start

    if cfg.prune_schedule == "ramp":
        if cfg.prune_q is None:
            raise ValueError(
                "--prune-schedule ramp: expected --prune-q, got none; `rnnprune calibrate "
                "CHECKPOINT` prints it for a dense model, and --prune-schedule cubic needs none"
            )
        q = _by_type("--prune-q", cfg.prune_q, types, float)
        ramp, end = updates("--prune-ramp", "25%"), updates("--prune-end", "50%")
        start = start_before(ramp)
        return {
            t: RampSchedule.from_quantile(
                q[t], start, ramp, end, cfg.prune_freq, cfg.prune_ramp_factor
            )
            for t in types
        }
    final = _by_type("--prune-sparsity", cfg.prune_sparsity, types, float)
    if cfg.prune_schedule == "cubic":
        end = updates("--prune-end", "50%")
        start = start_before(end // 2)
        return {t: CubicSchedule(start, end, cfg.prune_freq, final[t]) for t in types}
    return {t: OneShotSchedule(updates("--prune-start", "50%"), final[t]) for t in types}


def _by_type(option: str, text: str, types: list[str], parse: Callable[[str], T]) -> dict[str, T]:
    """Reads `VALUE` (for all types) or `type=VALUE,type=VALUE` (for every pruned type)."""
    try:
        if "=" not in text:
            return dict.fromkeys(types, parse(text))
        pairs = [part.split("=", 1) for part in re.split(r",(?=[a-z]+=)", text)]
        values = {type_: parse(value) for type_, value in pairs}
    except ValueError as error:
        raise ValueError(
            f"{option}: expected VALUE or TYPE=VALUE,TYPE=VALUE, got {text!r} ({error})"
        ) from None
    if set(values) != set(types):
        raise ValueError(
            f"{option}: expected a value for each of {','.join(types)} (--prune-types), "
            f"got {text!r}"
        )
    return values


def _updates(cfg: Any, option: str, text: str, epoch_length: Optional[int]) -> int:
    """Reads a number of updates written as N, 2e (epochs) or 25% (of the training)."""
    match = re.fullmatch(r"(\d+)|(\d+(?:\.\d+)?)(e|%)", str(text))
    if not match:
        raise ValueError(
            f"{option}: expected updates (3000), epochs (2e) or per cent (25%), got {text!r}"
        )
    if match[1]:
        return int(match[1])
    amount = float(match[2])
    if match[3] == "e":
        return round(amount * _known(option, text, epoch_length))
    return round(amount / 100 * _total_updates(cfg, option, text, epoch_length))


def _total_updates(cfg: Any, option: str, text: str, epoch_length: Optional[int]) -> int:
    """Updates of the whole training, from --max-update and --max-epoch."""
    totals = []
    if cfg.max_update:
        totals.append(cfg.max_update)
    if cfg.max_epoch and (epoch_length or not totals):
        totals.append(cfg.max_epoch * _known(option, text, epoch_length))
    if not totals:
        raise ValueError(
            f"{option}: expected --max-update or --max-epoch, of which {text} is a part, got "
            "neither; give one of them, or give the option in updates"
        )
    return min(totals)


def _known(option: str, text: str, epoch_length: Optional[int]) -> int:
    if epoch_length is None:
        raise ValueError(
            f"{option}: expected a known epoch length for {text}, got none outside "
            "fairseq-train; give the option in updates"
        )
    return epoch_length
