"""How the options of `--optimizer pruned` become schedules."""

import re

import pytest
from fairseq import options
from omegaconf import OmegaConf

import fairseq_rnnprune.plugin  # noqa: F401
from fairseq_rnnprune.optim.options import PruningOptions
from fairseq_rnnprune.optim.reading import block_shapes, pruned_types, unread_options, worth
from fairseq_rnnprune.optim.schedules import build_schedules
from fairseq_rnnprune.pruning import CubicSchedule, OneShotSchedule, QuantileRamp, RampSchedule

EPOCHS = [1000]


def config(**given):
    # What other groups of options own is filled in by fairseq.
    owned = {"lr": [0.1], "tpu": False, "max_update": 0, "max_epoch": 20}
    return OmegaConf.merge(OmegaConf.structured(PruningOptions), owned, given)


def recurrent(epoch_lengths=EPOCHS, **given):
    return build_schedules(config(**given), ["recurrent"], epoch_lengths)["recurrent"]


def test_defaults_are_the_heuristics_of_table_1():
    ramp = recurrent(prune_schedule="ramp", prune_q="0.5")
    assert ramp == RampSchedule.from_quantile(0.5, 1000, 5000, 10000, freq=100, ramp_factor=1.5)
    assert recurrent() == CubicSchedule(1000, 10000, 100, final=0.9)
    assert recurrent(prune_schedule="ramp") == QuantileRamp(1000, 5000, 10000, 100, 0.9, 1.5)
    assert recurrent(prune_schedule="hard") == OneShotSchedule(10000, 0.9)
    # After the last of 20000 updates, which count from 0.
    assert recurrent(prune_schedule="one-shot") == OneShotSchedule(19999, 0.9)
    assert recurrent(prune_schedule="one-shot", prune_start="300") == OneShotSchedule(300, 0.9)
    for end in ("100%", "20e", "20000"):
        assert recurrent(prune_schedule="one-shot", prune_start=end) == OneShotSchedule(19999, 0.9)


@pytest.mark.parametrize(
    "given, power, score, allocation",
    [
        ({}, 0.25, "max", "global"),
        # Targets by gate or by type cannot be shared out.
        ({"prune_sparsity": "0.9/0.9/0.8"}, 0.25, "max", "uniform"),
        ({"prune_sparsity": "recurrent=0.9,input=0.8"}, 0.25, "max", "uniform"),
        # Each type asks for its own, even if they are equal.
        ({"prune_sparsity": "recurrent=0.9,input=0.9"}, 0.25, "max", "uniform"),
        # The score of a block says nothing about that of a single weight.
        ({"prune_block_shape": "recurrent=4,4,input=1,1"}, 0.25, "l2", "uniform"),
        ({"prune_block_shape": "recurrent=4,4,input=4x4"}, 0.25, "l2", "global"),
        ({"prune_allocation": "lamp"}, 0.25, "max", "lamp"),
        ({"prune_fisher_power": 0.5, "prune_allocation": "uniform"}, 0.5, "max", "uniform"),
        ({"prune_block_shape": "4,4"}, 0.25, "l2", "global"),
        ({"prune_block_shape": "4,4", "prune_score": "max"}, 0.25, "max", "global"),
        ({"prune_block_shape": "4,4", "prune_fisher_power": 0.0}, 0.0, "max", "uniform"),
        # By magnitude, matrices keep to themselves.
        ({"prune_fisher_power": 0.0}, 0.0, "max", "uniform"),
        ({"prune_fisher_power": 0.0, "prune_allocation": "global"}, 0.0, "max", "global"),
        # Without mean squares of gradients, or where something else says what is worth less.
        ({"prune_inner": "nag"}, 0.0, "max", "uniform"),
        ({"prune_schedule": "ramp"}, 0.0, "max", "uniform"),
        ({"prune_score": "random"}, 0.0, "random", "uniform"),
        ({"prune_penalty": "l1"}, 0.0, "max", "uniform"),
    ],
)
def test_gradients_count_and_matrices_share_a_target_where_they_can(
    given, power, score, allocation
):
    types = ["recurrent", "input"]
    schedules = build_schedules(config(**given), types, EPOCHS)
    shapes = block_shapes(config(**given), types)
    found = worth(config(**given), list(schedules.values()), list(shapes.values()))
    assert found == (power, score, allocation)


@pytest.mark.parametrize(
    "given, unread",
    [
        ({}, []),
        ({"prune_q": "0.1", "prune_ramp_factor": 2.0}, ["--prune-q", "--prune-ramp-factor"]),
        ({"prune_max_sparsity": 0.3}, ["--prune-max-sparsity"]),
        ({"prune_ramp_factor": 0.0}, ["--prune-ramp-factor"]),
        ({"prune_schedule": "ramp", "prune_max_sparsity": 0.97}, ["--prune-max-sparsity"]),
        ({"prune_schedule": "ramp", "prune_q": "0.1", "prune_max_sparsity": 0.97}, []),
        (
            {"prune_schedule": "ramp", "prune_q": "0.1", "prune_sparsity": "0.8"},
            ["--prune-sparsity"],
        ),
        ({"prune_schedule": "ramp", "prune_ramp": "2e"}, []),
        ({"prune_schedule": "one-shot", "prune_end": "50%"}, ["--prune-end"]),
        ({"prune_schedule": "hard", "prune_start": "50%"}, []),
    ],
)
def test_options_that_a_schedule_does_not_read_are_named(given, unread):
    choice = f"--prune-schedule {given.get('prune_schedule', 'cubic')}"
    assert unread_options(config(**given)) == ({choice: unread} if unread else {})


def test_updates_epochs_and_per_cent():
    schedule = recurrent(prune_start="300", prune_end="2.5e")
    assert (schedule.start, schedule.end) == (300, 2500)
    assert recurrent(prune_end="10%").end == 2000
    # Training ends with whichever comes first.
    assert recurrent(prune_end="25%", max_update=4000).end == 1000
    assert recurrent(prune_end="25%", max_update=4000, max_epoch=0).end == 1000
    assert recurrent([], prune_start="1", prune_end="25%", max_update=4000).end == 1000


def test_epochs_of_several_lengths():
    # As with --update-freq 1,2,4.
    lengths = [1000, 500, 250]
    assert recurrent(lengths, prune_start="1", prune_end="2e").end == 1500
    assert recurrent(lengths, prune_start="1", prune_end="3.5e").end == 1875
    assert recurrent(lengths, prune_start="1", prune_end="100%", max_epoch=4).end == 2000


def test_a_short_training_starts_before_its_ramp():
    ramp = {"prune_schedule": "ramp", "prune_q": "1"}
    assert recurrent(max_epoch=5, **ramp).start == 1000  # its ramp begins at 1250
    assert recurrent(max_epoch=2, **ramp).start == 250
    assert recurrent(max_epoch=0, max_update=200, prune_freq=5).start == 25


def test_values_by_type():
    types = ["recurrent", "input"]
    given = config(prune_sparsity="recurrent=0.95,input=0.5")
    schedules = build_schedules(given, types, EPOCHS)
    assert (schedules["recurrent"].final, schedules["input"].final) == (0.95, 0.5)
    by_gate = config(prune_sparsity="recurrent=0.95/0.95/0.8,input=0.5")
    assert build_schedules(by_gate, types, EPOCHS)["recurrent"].final == (0.95, 0.95, 0.8)
    shapes = block_shapes(config(prune_block_shape="recurrent=4,4,input=16x1"), types)
    assert shapes == {"recurrent": (4, 4), "input": (16, 1)}
    assert block_shapes(config(prune_block_shape="8,2"), types) == dict.fromkeys(types, (8, 2))
    assert pruned_types(config(prune_types=" recurrent, linear ")) == ["recurrent", "linear"]


@pytest.mark.parametrize(
    ("given", "epoch_lengths", "message"),
    [
        ({"prune_end": "50%", "max_epoch": 0}, EPOCHS, "--max-update or --max-epoch, of which 50%"),
        ({"prune_start": "1", "prune_end": "2e"}, [], "--prune-end: expected a known epoch"),
        ({"prune_start": "1.5"}, EPOCHS, r"updates \(3000\), epochs \(2e\) or per cent"),
        (
            {"prune_sparsity": "a=0.9,b=0.9"},
            EPOCHS,
            "expected types among recurrent .--prune-types., got a in",
        ),
        ({"prune_sparsity": "0.9/0.9/1"}, EPOCHS, r"expected final in \[0, 1\), got 1"),
        (
            {"prune_sparsity": "0.9/0.9/0.8", "prune_schedule": "ramp"},
            EPOCHS,
            "expected one sparsity for all gates with --prune-schedule ramp",
        ),
        (
            {"prune_sparsity": "recurrent=x"},
            EPOCHS,
            "--prune-sparsity: expected VALUE or TYPE=VALU",
        ),
    ],
)
def test_bad_options_are_refused(given, epoch_lengths, message):
    with pytest.raises(ValueError, match=message):
        recurrent(epoch_lengths, **given)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"prune_start": "2e", "prune_end": "2500", "prune_freq": 1000, "prune_sparsity": "0.8"},
            "cubic: .* none with freq=1000;.* .from --prune-end 2500, --prune-start 2e = 2000, "
            "--prune-freq 1000, --prune-sparsity 0.8.$",
        ),
        (
            {"prune_start": "90%"},
            "cubic: .* start=18000, end=10000; .*--prune-end 50% = 10000 by default, --prune-start",
        ),
        ({"prune_freq": 99999}, "--prune-start 1000 by default, --prune-freq 99999,"),
        (
            {"prune_schedule": "ramp", "prune_q": "-1"},
            "ramp: .*--prune-ramp-factor .*--prune-q -1.$",
        ),
        (
            {"prune_schedule": "hard", "prune_sparsity": "1"},
            ".from --prune-start 50% = 10000 by defa",
        ),
    ],
)
def test_what_no_schedule_can_do_is_told_in_options(given, told):
    with pytest.raises(ValueError, match="^--prune-schedule ") as refusal:
        recurrent(**given)
    assert re.search(told, str(refusal.value))
    assert ("--prune-freq" in str(refusal.value)) == (given.get("prune_schedule") != "hard")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"prune_start": "soon"}, "^--prune-start: expected updates"),
        ({"prune_sparsity": "much"}, "^--prune-sparsity: expected VALUE"),
        (
            {"prune_schedule": "ramp", "prune_sparsity": "0.9/0.9/0.8"},
            "^--prune-sparsity: expected one",
        ),
    ],
)
def test_what_is_no_value_is_told_by_its_option_alone(given, told):
    with pytest.raises(ValueError, match=told):
        recurrent(**given)


@pytest.mark.parametrize("arch", ["--arch rnnprune_gru_lm", "--arch=rnnprune_gru_lm"])
def test_help_explains_every_option(arch, capsys):
    parser = options.get_training_parser()
    arguments = [*arch.split(), "--optimizer", "pruned", "--help"]
    with pytest.raises(SystemExit):
        options.parse_args_and_arch(parser, arguments)
    text = " ".join(capsys.readouterr().out.split())
    for option in ("inner", "schedule", "start", "ramp", "end", "freq", "q", "ramp-factor"):
        assert f"--prune-{option} " in text
    for option in ("sparsity", "max-sparsity", "min-sparsity", "types", "block-shape", "score"):
        assert f"--prune-{option} " in text
    for option in ("allocation", "keep-diagonal", "penalty", "penalty-strength"):
        assert f"--prune-{option} " in text
    assert "default nag: 0.99; sgd: 0.0" in text
    assert "default: 25%" in text
    assert "--decoder-hidden-size" in text


def test_help_without_a_model_is_fairseqs_own(capsys):
    with pytest.raises(SystemExit):
        options.parse_args_and_arch(options.get_training_parser(), ["--help"])
    assert "--max-update" in capsys.readouterr().out
