"""Pruners of one weight."""

from dataclasses import replace

from fairseq_rnnprune.pruning import Prunable, Pruner, RampSchedule

RECURRENT = Prunable("w", "recurrent", 1)


def pruner_of(weight, schedule, block_shape=(1, 1), gates=1, **options):
    prunable = replace(RECURRENT, gates=gates)
    return Pruner(
        [(prunable, weight)], {"recurrent": schedule}, {"recurrent": block_shape}, **options
    )


def run(pruner, updates):
    for _ in range(updates):
        pruner.step()


def ramp(slope=1.0, end=100):
    return RampSchedule(start=0, ramp=end, end=end, freq=1, start_slope=slope, ramp_slope=slope)


def resumed(pruner, weight, schedule, *args, **options):
    """A pruner with the state of another, as from its checkpoint."""
    later = pruner_of(weight, schedule, *args, **options)
    later.load_state_dict(pruner.state_dict())
    return later
