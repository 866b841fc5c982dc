"""What is pruned, and when: schedules, block masks and the pruner that joins them (torch only)."""

from .allocation import ALLOCATIONS, has_one_target
from .dropout import FollowingDropout
from .mask import (
    block_scores,
    block_sizes,
    check_block_shape,
    expand_mask,
    mask_from_zeros,
    select_lowest,
)
from .masked_weight import SCORES, MaskedWeight
from .penalty import PENALTIES, shrink
from .prunable import (
    TYPES,
    Prunable,
    find_prunable,
    last_name,
    prunable_parameters,
    read_tag,
    remove_tags,
    tag_prunable,
    tensor_identity,
)
from .pruner import Pruner
from .ramp import RAMPS, QuantileRamp, RampSchedule, default_start
from .schedule import CubicSchedule, OneShotSchedule, Schedule
from .target import meets_target, misses_target, passes_target

__all__ = [
    "ALLOCATIONS",
    "PENALTIES",
    "RAMPS",
    "SCORES",
    "TYPES",
    "CubicSchedule",
    "FollowingDropout",
    "MaskedWeight",
    "OneShotSchedule",
    "Prunable",
    "Pruner",
    "QuantileRamp",
    "RampSchedule",
    "Schedule",
    "block_scores",
    "block_sizes",
    "check_block_shape",
    "default_start",
    "expand_mask",
    "find_prunable",
    "has_one_target",
    "last_name",
    "mask_from_zeros",
    "meets_target",
    "misses_target",
    "prunable_parameters",
    "passes_target",
    "read_tag",
    "remove_tags",
    "select_lowest",
    "shrink",
    "tag_prunable",
    "tensor_identity",
]
