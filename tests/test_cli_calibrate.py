"""`rnnprune calibrate`: eq. 1 and Table 1 by hand, and a real training by its options."""

import json
import logging
import math

import pytest
from cli_runs import run, save_dense

from fairseq_rnnprune.report.trainlog import read_train_log


@pytest.fixture
def dense(tmp_path):
    return save_dense(tmp_path)


def test_calibrate_by_hand(capsys, dense):
    status, out, err = run(capsys, "calibrate", dense, "--sparsity", "0.5", "--json")
    assert (status, err) == (0, "")
    read = json.loads(out)
    assert (read["updates"], read["epochs"]) == (4000, 10)
    # An epoch is 400 updates, a quarter of the run 1000, half of it 2000.
    assert read["schedule"] == {"start": 400, "ramp": 1000, "end": 2000, "freq": 100}
    assert list(read["types"]) == ["recurrent", "input", "linear"]
    figures = read["types"]["input"]
    # 24 of 48 elements are below 25; theta = 2 q freq / (2 (1000 - 400) + 3 (2000 - 1000)).
    assert figures["q"] == 25.0
    assert figures["start_slope"] == pytest.approx(2 * 25 * 100 / 4200)
    assert figures["ramp_slope"] == pytest.approx(1.5 * 2 * 25 * 100 / 4200)
    # Masks change for the last time at update 1900.
    last = (figures["start_slope"] * 601 + figures["ramp_slope"] * 901) / 100
    assert figures["last_threshold"] == pytest.approx(last)
    assert figures["sparsity"] == math.floor(last) / 48
    assert figures["tensors"] == {"gru.weight_ih_l0": figures["sparsity"]}


def test_calibrate_prints_options_to_paste(capsys, dense):
    status, out, _ = run(capsys, "calibrate", dense, "--types", "recurrent,linear")
    assert status == 0
    assert out.splitlines()[-1] == (
        "--optimizer pruned --prune-inner adam --prune-schedule ramp --prune-types recurrent,linear"
        " --prune-q recurrent=4.4,linear=0.37 --prune-min-sparsity 0.9 --prune-max-sparsity 0.9"
        " --prune-start 400 --prune-ramp 1000 --prune-end 2000 --prune-freq 100"
        " --prune-ramp-factor 1.5 --prune-block-shape 1,1"
    )
    assert "for a run of 4000 updates in 10 epochs" in out


def test_calibrate_options_by_type_and_for_high_sparsity(capsys, dense):
    _, out, _ = run(
        *(capsys, "calibrate", dense, "--types", "recurrent,input", "--score", "l2"),
        *("--block-shape", "recurrent=2,2,input=1,4", "--sparsity", "0.96", "--freq", "50"),
        *("--ramp-factor", "2"),
    )
    options = out.splitlines()[-1]
    assert "--prune-block-shape recurrent=2,2,input=1,4" in options
    assert "--prune-freq 50 --prune-ramp-factor 2 " in options
    assert "--prune-min-sparsity 0.96 --prune-max-sparsity 0.96 " in options
    assert options.endswith("--prune-score l2")


def test_calibrate_without_a_model(capsys):
    status, out, _ = run(
        *(capsys, "calibrate", "--sparsity", "0.8", "--updates", "4000", "--epochs", "10"),
        *("--types", "recurrent,input", "--block-shape", "4,4"),
    )
    assert status == 0
    assert out.splitlines()[-1] == (
        "--optimizer pruned --prune-inner adam --prune-schedule ramp --prune-types recurrent,input"
        " --prune-q auto --prune-sparsity 0.8 --prune-start 400 --prune-ramp 1000 --prune-end 2000"
        " --prune-freq 100 --prune-ramp-factor 1.5 --prune-block-shape 4,4"
    )
    # Without epochs the optimizer finds the end of the first one.
    _, out, _ = run(capsys, "calibrate", "--updates", "400", "--json")
    options = json.loads(out)["options"]
    assert "--prune-start" not in options and "--prune-ramp 100 --prune-end 200" in options
    status, _, err = run(capsys, "calibrate")
    assert status == 2 and "expected a CHECKPOINT or the --updates" in err
    status, _, err = run(capsys, "calibrate", "--updates", "400", "--sparsity", "1")
    assert status == 2 and "expected a sparsity in (0, 1), got 1" in err


@pytest.mark.parametrize(
    "wrong, message",
    [
        (["--updates", "1"], "expected 0 <= start < end"),
        (["--ramp-factor", "-1"], "ramp"),
        (["--ramp-factor", "nan"], "ramp"),
        (["--freq", "0"], "freq"),
        (["--epochs", "inf"], "--epochs: expected a number above 0, got inf"),
    ],
)
def test_calibrate_prints_no_options_that_training_refuses(capsys, wrong, message):
    status, out, err = run(capsys, "calibrate", "--updates", "400", *wrong)
    assert (status, out) == (2, "") and message in err


def test_a_sparsity_is_printed_as_it_was_given(capsys, dense):
    for model in ([], [dense]):
        status, out, _ = run(
            capsys, "calibrate", *model, "--sparsity", "0.9999999", "--updates", "100"
        )
        assert status == 0 and "-sparsity 0.9999999 " in out


@pytest.mark.parametrize(
    "given, updates, epochs, start",
    [
        (["--updates", "8000"], 8000, 20, 400),
        (["--epochs", "20"], 8000, 20, 400),
        (["--updates", "8000", "--epochs", "10"], 8000, 10, 800),
    ],
)
def test_calibrate_for_another_run(capsys, dense, given, updates, epochs, start):
    _, out, _ = run(capsys, "calibrate", dense, "--json", *given)
    read = json.loads(out)
    assert (read["updates"], read["epochs"], read["schedule"]["start"]) == (updates, epochs, start)


def test_calibrate_for_a_short_run_changes_masks_more_often(capsys, dense):
    status, out, err = run(capsys, "calibrate", dense, "--json", "--updates", "105")
    assert (status, err) == (0, "")
    read = json.loads(out)
    # An epoch is 400 updates, so pruning starts halfway to the ramp.
    assert read["schedule"] == {"start": 13, "ramp": 26, "end": 52, "freq": 3}
    assert "--prune-freq 3 " in read["options"]


def test_a_real_training_by_the_options_that_calibrate_prints(capsys, caplog, tmp_path):
    import fairseq_runs as runs

    # fairseq's command sets this level; its main function, which runs here, does not.
    caplog.set_level(logging.INFO)
    data = runs.make_data(tmp_path)
    runs.run_train(data, tmp_path / "dense", "--optimizer", "adam")
    last = tmp_path / "dense" / "checkpoint_last.pt"
    capsys.readouterr()
    length = ["--updates", "10", "--epochs", "1", "--freq", "1"]
    status, out, err = run(capsys, "calibrate", last, *length, "--sparsity", "0.7", "--json")
    assert (status, err) == (0, "")
    calibrated = json.loads(out)

    log = tmp_path / "train.log"
    options = [*calibrated["options"].split(), "--log-file", str(log)]
    runs.run_train(data, tmp_path / "ramp", *options)
    capsys.readouterr()
    pruned = tmp_path / "ramp" / "checkpoint_last.pt"
    status, out, err = run(capsys, "report", last, pruned, "--json", "--plot", tmp_path)
    assert (status, err) == (0, "")
    read = json.loads(out)
    assert [len(c["tensors"]) for c in read["checkpoints"]] == [10, 10]
    assert len(read["plots"]) >= 2
    curves = read_train_log(log).curves
    totals = {t["type"]: t["sparsity"] for t in read["checkpoints"][1]["totals"]}
    for type in calibrated["types"]:
        last_logged = list(curves[f"sparsity_{type}"].values())[-1]
        assert totals[type] == pytest.approx(last_logged, abs=1e-4)
        assert totals[type] == pytest.approx(0.7, abs=0.01)
