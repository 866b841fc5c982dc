"""The `rnnprune` command as a user meets it: output, exit status, one line per error."""

import json
import os
import re
import subprocess
import sys

import pytest
import torch
from cli_runs import run, save_dense, save_sparse

from fairseq_rnnprune import __version__, cli


@pytest.fixture
def dense(tmp_path):
    return save_dense(tmp_path)


@pytest.fixture
def sparse(tmp_path):
    return save_sparse(tmp_path)


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
    names = [f"{name}.png" for name in ("sparsity", "training", "inputs", "units", "masks")]
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


@pytest.mark.parametrize("command", [["report"], ["calibrate"], ["bench"], ["export"]])
def test_a_model_that_diverged_is_named(capsys, dense, tmp_path, command):
    state = torch.load(dense)
    state["model"]["gru.bias_ih_l0"][0] = torch.inf
    state["model"]["gru.weight_ih_l0"][0, 0] = torch.nan
    torch.save(state | {"cfg": {"model": {"_name": "rnnprune_gru_lm"}}}, dense)
    more = [tmp_path / "out.safetensors"] if command == ["export"] else []
    status, out, err = run(capsys, *command, dense, *more)
    assert (status, out) == (2, "")
    assert err.splitlines()[-1] == (
        f"rnnprune: error: {dense}: expected finite weights, got NaN or inf in gru.weight_ih_l0 "
        "and 1 more; the training diverged, take an earlier checkpoint"
    )
    assert not any(path.exists() for path in more)


def test_report_draws_the_log_that_is_named(capsys, dense, sparse, tmp_path):
    log = sparse.parent / "train.log"
    status, out, _ = run(capsys, "report", dense, "--plot", tmp_path, "--log", log)
    assert status == 0
    assert f"wrote {tmp_path / 'training.png'}" in out.splitlines()


def test_a_log_found_beside_a_dense_model_is_passed_over(capsys, dense, tmp_path):
    (dense.parent / "train.log").write_text('{"num_updates": "1", "loss": "2"}\n')
    status, out, err = run(capsys, "report", dense, "--plot", tmp_path)
    assert (status, err) == (0, "")
    assert "sparsity.png" in out and "training.png" not in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "the following arguments are required: COMMAND; see rnnprune --help"),
        (["prune"], "invalid choice: 'prune'"),
        (["report"], "the following arguments are required: CHECKPOINT; see rnnprune report"),
        (["report", "SPARSE", "-o", "x"], "arguments: -o x; see rnnprune report --help"),
        (["report", "absent.pt"], "read_checkpoint: expected a checkpoint file, got none at"),
        (["report", "SPARSE", "--types", "gru"], "--types: expected some of recurrent,.*'gru'"),
        (["report", "SPARSE", "--types", "linear"], "expected weights of type linear, got"),
        (
            ["report", "SPARSE", "--block-shape", "4"],
            "--block-shape: expected VALUE .*'4' .expected rows,columns",
        ),
        (
            ["report", "SPARSE", "--block-shape", "0,1"],
            "--block-shape: expected VALUE .* .expected rows,columns",
        ),
        (["report", "SPARSE", "--block-shape", "linear=1,1", "--types", "input"], "among input,"),
        (["report", "SPARSE", "--block-shape", "9,9"], "one gate of gru.weight_hh_l0, got 9 x 9"),
        (
            ["report", "SPARSE", "--log", "a.log"],
            "--log: expected --plot DIR or --html FILE as well",
        ),
        (["report", "SPARSE", "--plot", "SPARSE"], "File exists"),
        (["report", "SPARSE", "--plot", "p", "--log", "no.log"], "expected a training log, got no"),
        (["calibrate", "SPARSE"], "expected a dense model, got .* recurrent .* 66.7% zeros"),
        (["calibrate", "SPARSE", "--types", "linear"], "expected weights of type linear, got a"),
        (["calibrate", "DENSE", "--types", "embedding"], "expected weights of type embedding"),
        (["calibrate", "DENSE", "--sparsity", "1"], r"of: expected a sparsity in \(0, 1\)"),
        (["calibrate", "DENSE", "--freq", "5000"], "expected a mask update between start=400"),
        (["calibrate", "DENSE", "--freq", "often"], "argument --freq: invalid int value: 'often'"),
        (["calibrate", "DENSE", "--epochs", "0"], "--epochs: expected a number above 0, got 0"),
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


def test_a_closed_standard_output_is_no_error(capsys, monkeypatch, dense):
    monkeypatch.setattr(sys, "stdout", None)
    assert cli.main(["report", str(dense)]) == 0
    sys.stdout.close()
    assert capsys.readouterr().err == ""


def test_a_name_that_the_output_cannot_encode_is_escaped(dense, tmp_path):
    path = tmp_path / "ł.pt"
    path.write_bytes(dense.read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "fairseq_rnnprune.cli", "report", str(path)],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert b"\\u0142.pt" in done.stdout and done.stderr == b""


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
