"""The options of `--optimizer pruned`; `reading.py` says what their values mean."""

# fairseq reads the types of options from typing's spelling: no deferred annotations, no X | None.
# ruff: noqa: UP006, UP035, UP045

from dataclasses import dataclass, field
from typing import List, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II

from fairseq_rnnprune.pruning import ALLOCATIONS, PENALTIES, SCORES, TYPES


@dataclass
class PruningOptions(FairseqDataclass):
    """What is pruned, when and how far; defaults are the heuristics of 1704.05119, Table 1."""

    prune_inner: str = field(
        default="adam",
        metadata={"help": "dense optimizer that makes the updates: adam, nag, ... (default: adam)"},
    )
    prune_schedule: ChoiceEnum(["ramp", "cubic", "hard", "one-shot"]) = field(
        default="cubic",
        metadata={
            "help": "ramp: rising threshold up to --prune-q (arXiv 1704.05119); cubic: target "
            "sparsity (arXiv 1710.01878); hard: prune once, in the middle of the "
            "training, and train on; one-shot: prune once, after the last update (default: cubic)"
        },
    )
    prune_start: Optional[str] = field(
        default=None,
        metadata={
            "help": "pruning starts after this many updates (N), epochs (2e) or per cent of the "
            "training (10%%); default: 1e, or earlier in a run of a few epochs; hard: 50%%; "
            "one-shot: the last update"
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
    prune_q: str = field(
        default="auto",
        metadata={
            "help": "ramp: 90th percentile of |weight| (of the block score, with blocks) in a "
            "dense model, as `rnnprune calibrate` prints it; Q or recurrent=Q,input=Q,...; auto: "
            "the quantile that --prune-sparsity names, read from the weights of the run itself at "
            "every change of masks (default: auto)"
        },
    )
    prune_ramp_factor: float = field(
        default=1.5,
        metadata={"help": "ramp: slope after --prune-ramp / slope before it (default: 1.5)"},
    )
    prune_sparsity: str = field(
        default="0.9",
        metadata={
            "help": "final sparsity in [0, 1), for a ramp with --prune-q auto and every other "
            "schedule; S or recurrent=S,input=S; S may be one per gate: 0.95/0.95/0.8 for reset, "
            "update and new (not for a ramp) (default: 0.9)"
        },
    )
    prune_max_sparsity: float = field(
        default=0.95,
        metadata={
            "help": "ramp with --prune-q Q: the threshold of a type is held where its sparsity, in "
            "(0, 1), reaches this (default: 0.95)"
        },
    )
    prune_min_sparsity: float = field(
        default=0.0,
        metadata={
            "help": "ramp with --prune-q Q: the last change of masks raises the threshold of a "
            "type until its sparsity, in [0, 1), is this (default: 0)"
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
    prune_score: ChoiceEnum(["auto", *SCORES]) = field(
        default="auto",
        metadata={
            "help": "importance of a block: max |w|, mean |w|, l2 norm or random, a baseline; "
            "auto: l2 where gradients count, else max (default: auto)"
        },
    )
    prune_fisher_power: Optional[float] = field(
        default=None,
        metadata={
            "help": "every |w| counts times the mean square of its gradients, which Adam keeps, to "
            "this power: 0, magnitudes alone; 0.5, Optimal Brain Damage; not for a ramp (default: "
            "0.25 with adam, where nothing else rules it out; else 0)"
        },
    )
    prune_allocation: ChoiceEnum(["auto", *ALLOCATIONS]) = field(
        default="auto",
        metadata={
            "help": "which matrix gives how much of the sparsity: uniform, each its target; "
            "global, the lowest scores of all (arXiv 1606.09274); lamp, the lowest relative to "
            "what is left of their matrix (arXiv 2010.07611); auto: global where gradients count, "
            "one target is given for all, and blocks have one shape, else uniform (default: auto)"
        },
    )
    prune_keep_diagonal: bool = field(
        default=False,
        metadata={
            "help": "never prune the diagonals of recurrent weights, as LPCNet does; they count "
            "in the sparsity, which LPCNet's own do not"
        },
    )
    prune_penalty: ChoiceEnum(["none", *PENALTIES]) = field(
        default="none",
        metadata={
            "help": "shrinks the weights to be pruned until masks are final: l1, every weight; "
            "group-lasso, every block (arXiv 1711.02782, section 3.2) (default: none)"
        },
    )
    prune_penalty_strength: float = field(
        default=0.01,
        metadata={
            "help": "times the learning rate: what an update takes from every |weight|, or from "
            "the root mean square of every block, beside what the optimizer does, as decoupled "
            "weight decay is; for adam, strong for others (default: 0.01)"
        },
    )
    prune_dropout_power: float = field(
        default=0.0,
        metadata={
            "help": "every dropout rate is multiplied by the density of all pruned matrices, in "
            "(0, 1], to this power: 0, rates stay; 0.5, the rule of arXiv 1506.02626, which has "
            "one density for each layer (default: 0)"
        },
    )
    # Values that other groups of options own.
    lr: List[float] = II("optimization.lr")
    tpu: bool = II("common.tpu")
    max_update: int = II("optimization.max_update")
    max_epoch: int = II("optimization.max_epoch")
