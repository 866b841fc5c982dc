"""The `rnnprune` command as a user meets it: output, exit status, one line per error."""

import json
import logging
import math
import re
import subprocess
import sys

import pytest
import torch

from fairseq_rnnprune import __version__, cli
from fairseq_rnnprune.report.trainlog import read_train_log


def run(capsys, *arguments):
    """Runs the command; returns exit status, standard output and standard error."""
    status = cli.main([str(a) for a in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def save(path, weights, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    parts = {
        "model": weights,
        "optimizer_history": [{"num_updates": 4000}],
        "extra_state": {"train_iterator": {"epoch": 11, "iterations_in_epoch": 0}},
    }
    torch.save({**parts, **more}, path)
    return path


@pytest.fixture
def dense(tmp_path):
    """A dense model of 4000 updates in 10 epochs: |w| is 1 to 48, 0.1 to 4.8, 0.01 to 0.4."""
    weights = {
        "gru.weight_ih_l0": torch.arange(1.0, 49).view(12, 4),
        "gru.weight_hh_l0": -torch.arange(1.0, 49).view(12, 4) / 10,
        "gru.bias_ih_l0": torch.zeros(12),
        "out.weight": torch.arange(1.0, 41).view(10, 4) / 100,
    }
    return save(tmp_path / "dense" / "c.pt", weights)


@pytest.fixture
def sparse(tmp_path):
    """A recurrent matrix that has lost 36 of 48 elements, in blocks of 2 x 2."""
    weight = torch.zeros(12, 4)
    weight[:4, :2] = 1.0
    weight[4:6] = 1.0
    weights = {"gru.weight_hh_l0": weight, "gru.weight_ih_l0": torch.ones(12, 4)}
    state = {"rnnprune": {"block_shape": {"recurrent": [2, 2]}}}
    path = save(tmp_path / "sparse" / "c.pt", weights, last_optimizer_state=state)
    line = {"num_updates": "10", "sparsity": "0.3", "sparsity_recurrent": "0.6"}
    (path.parent / "train.log").write_text(json.dumps({**line, "threshold_recurrent": 0.1}) + "\n")
    return path


def test_report_prints_a_table(capsys, sparse):
    status, out, err = run(capsys, "report", sparse)
    assert (status, err) == (0, "")
    assert re.search("^gru.weight_hh_l0 +recurrent +12x4 +66.67 % +66.67 % +16 ", out, re.MULTILINE)
    assert "blocks: recurrent 2 x 2, input 1 x 1" in out


def test_report_prints_json_and_nothing_else(capsys, dense, sparse, tmp_path):
    status, out, _ = run(capsys, "report", dense, sparse, "--json", "--plot", tmp_path / "plots")
    assert status == 0
    read = json.loads(out)
    assert [c["label"] for c in read["checkpoints"]] == ["dense", "sparse"]
    assert read["checkpoints"][1]["totals"][-1]["kept"] == 16 + 48
    names = ["sparsity.png", "training.png"]
    assert read["plots"] == [str(tmp_path / "plots" / name) for name in names]
    assert all((tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG") for name in names)


def test_report_options(capsys, sparse):
    shape = "recurrent=2,1,input=4x4"
    _, out, _ = run(capsys, "report", sparse, "--json", "--block-shape", shape)
    (read,) = json.loads(out)["checkpoints"]
    assert read["block_shape"] == {"recurrent": [2, 1], "input": [4, 4]}
    _, out, _ = run(capsys, "report", sparse, "--json", "--types", "input", "--block-shape", "4,2")
    (read,) = json.loads(out)["checkpoints"]
    assert read["block_shape"] == {"input": [4, 2]}


def test_report_draws_the_log_that_is_named(capsys, dense, sparse, tmp_path):
    log = sparse.parent / "train.log"
    status, out, _ = run(capsys, "report", dense, "--plot", tmp_path, "--log", log)
    assert status == 0
    assert out.splitlines()[-1] == f"wrote {tmp_path / 'training.png'}"


def test_a_log_found_beside_a_dense_model_is_passed_over(capsys, dense, tmp_path):
    (dense.parent / "train.log").write_text('{"num_updates": "1", "loss": "2"}\n')
    status, out, err = run(capsys, "report", dense, "--plot", tmp_path)
    assert (status, err) == (0, "")
    assert "sparsity.png" in out and "training.png" not in out


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
        " --prune-q recurrent=4.4,linear=0.37 --prune-start 400 --prune-ramp 1000 --prune-end 2000"
        " --prune-freq 100 --prune-ramp-factor 1.5 --prune-block-shape 1,1"
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
    assert options.endswith("--prune-score l2 --prune-max-sparsity 0.98")


def test_calibrate_warns_where_the_cap_would_stop_the_ramp(capsys, dense):
    _, out, _ = run(capsys, "calibrate", dense, "--types", "input", "--ramp-factor", "2")
    assert "input: more than 0.95, where --prune-max-sparsity stops it" in out


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


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: COMMAND; see rnnprune --help"),
        (["prune"], "invalid choice: 'prune'"),
        (["report"], "the following arguments are required: CHECKPOINT; see rnnprune report"),
        (["report", "absent.pt"], "read_checkpoint: expected a checkpoint file, got none at"),
        (["report", "SPARSE", "--types", "gru"], "--types: expected some of recurrent,.*'gru'"),
        (["report", "SPARSE", "--types", "linear"], "expected weights of type linear, got"),
        (["report", "SPARSE", "--block-shape", "4"], "--block-shape: expected rows,columns .*'4'"),
        (["report", "SPARSE", "--block-shape", "0,1"], "--block-shape: expected rows,columns"),
        (["report", "SPARSE", "--block-shape", "linear=1,1", "--types", "input"], "among input,"),
        (["report", "SPARSE", "--block-shape", "9,9"], "one gate of gru.weight_hh_l0, got 9 x 9"),
        (["report", "SPARSE", "--log", "a.log"], "--log: expected --plot DIR as well"),
        (["report", "SPARSE", "--plot", "SPARSE"], "File exists"),
        (["report", "SPARSE", "--plot", "p", "--log", "no.log"], "expected a training log, got no"),
        (["calibrate", "SPARSE"], "expected a dense model, got .* recurrent .* 66.7% zeros"),
        (["calibrate", "SPARSE", "--types", "linear"], "expected weights of type linear, got a"),
        (["calibrate", "DENSE", "--types", "embedding"], "expected weights of type embedding"),
        (["calibrate", "DENSE", "--sparsity", "1"], r"quantile: expected a sparsity in \(0, 1\)"),
        (["calibrate", "DENSE", "--freq", "5000"], "expected a mask update between start=400"),
        (["calibrate", "DENSE", "--freq", "often"], "argument --freq: invalid int value: 'often'"),
        (["calibrate", "DENSE", "--epochs", "0"], "expected a run of updates >= 1 and epochs > 0"),
        (["calibrate", "STATE"], "got unknown updates and unknown epochs; give --updates and"),
        (["calibrate", "EMBEDDING"], "type recurrent, input, linear, got .* with embedding"),
    ],
)
def test_errors_are_one_line_and_status_2(
    capsys, dense, sparse, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    torch.save({"out.weight": torch.ones(2, 2)}, "state.pt")
    torch.save({"embed.weight": torch.ones(2, 2)}, "embedding.pt")
    files = {"DENSE": dense, "SPARSE": sparse, "STATE": "state.pt", "EMBEDDING": "embedding.pt"}
    status, out, err = run(capsys, *(files.get(a, a) for a in arguments))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("rnnprune: error: ")
    assert re.search(message, line), line


@pytest.mark.parametrize("arguments", [["--help"], ["report", "--help"], ["calibrate", "--help"]])
def test_help(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: rnnprune")


def test_version(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"rnnprune {__version__}\n"


PROBE = """
import sys
from fairseq_rnnprune.cli import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("imported:", *({"torch", "fairseq", "omegaconf", "matplotlib"} & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments, imported", [(["--help"], ""), (["report", "c.pt"], " torch")])
def test_nothing_is_imported_before_it_is_needed(root, sparse, arguments, imported):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *(sparse if a == "c.pt" else a for a in arguments)],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == f"imported:{imported}"


def test_a_reader_that_leaves_early_is_no_error(root, dense):
    command = [sys.executable, "-m", "fairseq_rnnprune.cli", "report", dense, "--json"]
    with subprocess.Popen(
        command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


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
    assert len(read["plots"]) == 2
    curves = read_train_log(log).curves
    totals = {t["type"]: t["sparsity"] for t in read["checkpoints"][1]["totals"]}
    for type, figures in calibrated["types"].items():
        last_logged = list(curves[f"sparsity_{type}"].values())[-1]
        assert totals[type] == pytest.approx(last_logged, abs=1e-4)
        threshold = list(curves[f"threshold_{type}"].values())[-1]
        assert threshold == pytest.approx(figures["last_threshold"], abs=2e-6)
