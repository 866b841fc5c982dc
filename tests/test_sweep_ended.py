"""A sweep that is killed, stopped or left with torn files: what is kept, and how it goes on."""

import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cli_runs
import pytest
from cli_runs import save_sparse
from sweep_runs import ALL, arguments, rows, sweep, write_grid

from fairseq_rnnprune.experiment import count_parameters
from fairseq_rnnprune.sweep import results

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    "keep, left",
    [
        ("last", {"checkpoint_last.pt"}),
        ("all", {"checkpoint_last.pt", "checkpoint_best.pt", "checkpoint_1_9.pt"}),
        ("none", set()),
    ],
)
def test_what_is_kept_of_a_finished_run(capsys, tmp_path, keep, left):
    write_grid(tmp_path)
    folder = tmp_path / "w" / "dense-0-s2"
    folder.mkdir(parents=True)
    for name in ("checkpoint_best.pt", "checkpoint_1_9.pt", "checkpoint_last.pt"):
        (folder / name).write_bytes(save_sparse(tmp_path).read_bytes())
    assert sweep(capsys, tmp_path, "--only", "seed=2", "--keep", keep)[0] == 0
    assert {path.name for path in folder.glob("*.pt")} == left
    # Without a checkpoint a training has to begin again.
    assert (folder / "run.json").exists() == (keep != "none")


SLOW = """
import os, pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
lock = (folder.parent / "sweep.lock").stat()
os.fstat(next(n for n in range(3, 99) if os.path.exists(f"/dev/fd/{n}")
              and os.path.samestat(os.fstat(n), lock)))  # the lock is inherited
if os.fork() == 0:  # what a training starts must end with it, willing or not
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
while True:
    (folder / "beat").write_text(str(time.time()))
    time.sleep(0.02)
"""


def start(folder, *more):
    command = [sys.executable, "-m", "fairseq_rnnprune.cli", *arguments(folder, *more)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # Tests that run in the background inherit that Ctrl-C is ignored.
    return subprocess.Popen([*map(str, command)], **pipes, preexec_fn=attend_to_ctrl_c)


def attend_to_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_sweep_that_is_ended_ends_its_commands_and_goes_on_later(capsys, tmp_path, number):
    write_grid(tmp_path)
    (tmp_path / "training.py").write_text(SLOW)
    beat = tmp_path / "w" / "dense-0-s1" / "beat"
    with start(tmp_path) as process:
        wait_for(beat.exists)
        process.send_signal(number)
        try:
            err = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 130
        assert f"stopped: 0 of 4 runs are in {tmp_path / 'r.jsonl'}; the same command goes" in err
    # What a command has started holds the lock: none of it is left.
    with results.locked(tmp_path / "w" / "sweep.lock"):
        before = beat.read_text()
        time.sleep(0.1)
        assert beat.read_text() == before
    (tmp_path / "training.py").write_text("")
    assert sweep(capsys, tmp_path)[0] == 0
    assert [row["name"] for row in rows(tmp_path)] == ALL


LANGUAGE_MODEL = """
variables: {data: null}
axes:
  method: {dense: --optimizer adam, cubic: "PRUNED --prune-sparsity {sparsity}"}
  sparsity: [0.8]
train: fairseq-train {data} --user-dir {user_dir} MODEL {method} --save-dir {folder} --seed 3
  --batch-size 8 --lr 0.01 --clip-norm 1.0 --max-update 150 --save-interval-updates 5
  --keep-interval-updates 1 --disable-validation --num-workers 0 --cpu
  --log-format json --log-interval 5
evaluate:
  - fairseq-eval-lm {data} --user-dir {user_dir} --path {folder}/checkpoint_last.pt --cpu
    --num-workers 0
figures: {perplexity: 'Perplexity: ([\\d.]+)'}
"""


def test_a_language_model_that_is_killed_is_the_same_in_the_end(capsys, tmp_path, data):
    from fairseq_runs import MODEL, run_eval_lm, train_with

    pruned = "--optimizer pruned --prune-start 1 --prune-end 120 --prune-freq 2"
    grid = LANGUAGE_MODEL.replace("MODEL", " ".join(MODEL)).replace("PRUNED", pruned)
    (tmp_path / "grid.yaml").write_text(grid)
    command = ["sweep", tmp_path / "grid.yaml", "--set", f"data={data}", "--only", "method=cubic"]
    command += ["--results", tmp_path / "r.jsonl", "--work", tmp_path / "w"]
    folder = tmp_path / "w" / "cubic-0.8"
    module = [sys.executable, "-m", "fairseq_rnnprune.cli"]
    with subprocess.Popen([*module, *map(str, command)], stderr=subprocess.PIPE) as process:
        wait_for((folder / "checkpoint_last.pt").exists)
        process.kill()
    assert not (tmp_path / "r.jsonl").read_bytes()
    assert not json.loads((folder / "run.json").read_text())["trained"]
    status, _, err = cli_runs.run(capsys, *command)
    assert status == 0, err
    assert "Loaded checkpoint" in (folder / "train.log").read_text()
    (row,) = rows(tmp_path)
    # The same in one go, as the row says it.
    places = {"DATA": str(data), "user_dir": str(ROOT / "user_dir")}
    places["WORK/cubic-0.8"] = str(tmp_path / "once")
    train_with([places.get(word, word) for word in shlex.split(row["commands"][0])[1:]])
    once = tmp_path / "once" / "checkpoint_last.pt"
    assert row["figures"] | count_parameters(once) == row["figures"]
    assert row["figures"]["perplexity"] == pytest.approx(run_eval_lm(data, once), abs=0.01)
    assert 0.79 < row["figures"]["final_sparsity"] < 0.81
    assert row["figures"]["training_seconds"] >= 0
    assert [path.name for path in folder.glob("*.pt")] == ["checkpoint_last.pt"]
