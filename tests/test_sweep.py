"""`rnnprune sweep`: what is run, in which order, what a row says, and what survives a kill."""

import fcntl
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import cli_runs
import pytest
from cli_runs import save_sparse
from sweep_runs import GRID, arguments, calls, rows, sweep, write_grid

from fairseq_rnnprune.experiment import count_parameters
from fairseq_rnnprune.sweep import results, run

ROOT = Path(__file__).parent.parent

ALL = ["dense-0-s1", "dense-0-s2", "cubic-0.8-s1", "cubic-0.9-s1"]


def test_every_combination_is_run_once_and_in_order(capsys, tmp_path):
    write_grid(
        tmp_path,
        GRID.replace("- {method: cubic}", "- {method: cubic}\n  - {method: dense, sparsity: 0}"),
    )
    status, out, err = sweep(capsys, tmp_path)
    assert status == 0, err
    assert [row["name"] for row in rows(tmp_path)] == ALL
    assert out == f"4 runs: 0 were in {tmp_path / 'r.jsonl'}, 4 are new\n"
    assert err.startswith("done dense-0-s1: training_seconds 3, final_sparsity 0.4, ")


def test_a_second_time_nothing_is_run(capsys, tmp_path):
    write_grid(tmp_path)
    sweep(capsys, tmp_path, "--only", "method=cubic")
    assert calls(tmp_path) == {"cubic-0.8-s1": 1, "cubic-0.9-s1": 1}
    sweep(capsys, tmp_path)
    before = (tmp_path / "r.jsonl").read_bytes()
    status, out, err = sweep(capsys, tmp_path)
    assert (status, err) == (0, "") and "4 runs: 4 were in" in out
    assert calls(tmp_path) == dict.fromkeys(ALL, 1)
    assert (tmp_path / "r.jsonl").read_bytes() == before


def test_a_row_says_what_was_run_and_no_private_path(capsys, tmp_path):
    write_grid(tmp_path)
    folder = tmp_path / "w" / "cubic-0.9-s1"
    folder.mkdir(parents=True)
    save_sparse(tmp_path).rename(folder / "checkpoint_last.pt")
    sweep(capsys, tmp_path, "--only", "sparsity=0.90")
    (row,) = rows(tmp_path)
    assert row["axes"] == {"method": "cubic", "sparsity": 0.9, "seed": 1}
    assert row["figures"] == {
        "parameters": 96,
        "kept_parameters": 12 + 48 + 4,
        "training_seconds": 3.0,
        "final_sparsity": 0.4,
        "final_sparsity_recurrent": 0.9,
        "test_cer": 9.0,
        "said": "cubic",
    }
    train, evaluate = row["commands"]
    assert train == "PYTHON TRAINING WORK/cubic-0.9-s1 cubic 0.9 0.9 DATA --seed 1"
    assert evaluate.startswith("PYTHON -c 'print(")
    assert str(tmp_path) not in json.dumps(row)
    assert row["commit"] and row["machine"]["jobs"] == 1 and "torch" in row["versions"]


def test_a_dry_run_prints_commands_and_does_nothing(capsys, tmp_path):
    write_grid(tmp_path)
    status, out, _ = sweep(capsys, tmp_path, "--dry-run")
    assert status == 0 and not (tmp_path / "r.jsonl").exists() and not (tmp_path / "w").exists()
    lines = out.splitlines()
    assert lines[0] == "# dense-0-s1" and lines[-1] == "# 4 runs: 0 in the results, 4 to do"
    # A path with a space in it is one word.
    assert f" dense 0 '{tmp_path / 'some data'}' --seed 1" in lines[1]
    sweep(capsys, tmp_path, "--only", "method=dense", "--only", "seed=2")
    _, out, _ = sweep(capsys, tmp_path, "--dry-run")
    assert "# dense-0-s2 (in the results)" in out.splitlines()


def test_results_of_a_grid_that_has_changed_are_refused(capsys, tmp_path):
    write_grid(tmp_path)
    sweep(capsys, tmp_path)
    status, _, err = sweep(capsys, tmp_path, "--set", "more=--lr 2")
    assert status == 2 and len(err.splitlines()) == 1
    assert "the run dense-0-s1 in" in err and "the grid has changed: give other --results" in err
    assert re.search("got `DATA --seed 1` where the grid has `DATA --lr 2 --seed`", err)
    assert len(rows(tmp_path)) == 4


def test_a_folder_that_another_training_began_is_refused(capsys, tmp_path):
    write_grid(tmp_path)
    sweep(capsys, tmp_path)
    (tmp_path / "r.jsonl").unlink()
    status, _, err = sweep(capsys, tmp_path, "--set", "more=--lr 2")
    assert status == 2 and "dense-0-s1 to be begun with the grid's training and variables" in err
    # Other data with the same name in the results.
    status, _, err = sweep(capsys, tmp_path, "--set", f"data={tmp_path}")
    assert status == 2 and "delete the folder, or give another --work" in err
    assert calls(tmp_path) == dict.fromkeys(ALL, 1)


def test_a_failed_run_is_named_and_the_others_go_on(capsys, tmp_path):
    write_grid(tmp_path, GRID.replace("runs:", "runs:\n  - {method: broken, sparsity: 0.8}"))
    status, out, err = sweep(capsys, tmp_path)
    assert status == 2 and "5 runs: 0 were in" in out
    assert "failed broken-0.8-s1: train: exit status 1; " in err
    assert "cause of the failure\n" in err
    last = err.splitlines()[-1]
    assert last.endswith("got 1 that failed: broken-0.8-s1; the same command tries them again")
    assert [row["name"] for row in rows(tmp_path)] == ALL


def test_a_figure_that_is_not_found_fails_the_run_but_not_its_training(capsys, tmp_path):
    write_grid(tmp_path, GRID.replace("CER: (", "WER: ("))
    status, _, err = sweep(capsys, tmp_path, "--only", "seed=2")
    assert status == 2 and r"failed dense-0-s2: figures: test_cer: expected 'WER: ([\\d.]+)'" in err
    write_grid(tmp_path)
    assert sweep(capsys, tmp_path)[0] == 0
    # The evaluation is repeated, the training is not: fairseq would add an update to it.
    assert calls(tmp_path)["dense-0-s2"] == 1


def test_named_evaluations_give_named_figures(capsys, tmp_path):
    named = GRID.replace('- "{python}', 'test: "{python}') + "\n"
    named = named.replace("figures:", '  valid: "{python} -c \'print(\\"CER: 3\\")\'"\nfigures:')
    write_grid(tmp_path, named.replace("test_cer:", "cer:"))
    status, _, err = sweep(capsys, tmp_path, "--only", "sparsity=0.9")
    assert status == 0, err
    (row,) = rows(tmp_path)
    found = {n: v for n, v in row["figures"].items() if "cer" in n or "said" in n}
    assert found == {"test_cer": 9.0, "valid_cer": 3.0, "test_said": "cubic"}


def test_two_at_a_time_have_one_thread_each(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    write_grid(tmp_path, GRID.replace("{more}", ""))
    (tmp_path / "training.py").write_text(
        "import os, pathlib, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "(folder / 'calls').write_text(os.environ['OMP_NUM_THREADS'])\n"
        # Ends only if another one runs beside it.
        "for _ in range(3000):\n"
        "    if len(list(folder.parent.glob('*/calls'))) == 2: raise SystemExit\n"
        "    time.sleep(0.01)\n"
        "raise SystemExit('alone')\n"
    )
    status, _, err = sweep(capsys, tmp_path, "--jobs", "2", "--only", "method=dense")
    assert status == 0, err
    assert sorted(row["name"] for row in rows(tmp_path)) == ALL[:2]
    machine = rows(tmp_path)[0]["machine"]
    assert (machine["threads"], machine["jobs"]) == (1, 2)
    assert (tmp_path / "w" / "dense-0-s1" / "calls").read_text() == "1"


def test_a_torn_last_line_is_dropped_and_its_run_repeated(capsys, tmp_path):
    write_grid(tmp_path)
    sweep(capsys, tmp_path)
    file = tmp_path / "r.jsonl"
    whole = file.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in (start + 1, start + 40, len(whole) - 2):
        file.write_bytes(whole[:cut])
        status, out, _ = sweep(capsys, tmp_path)
        assert status == 0 and "dropped the last line, which was torn" in out
        assert [row["name"] for row in rows(tmp_path)] == ALL
    # A row of which only the end of the line is missing is a row.
    file.write_bytes(whole[:-1])
    assert "4 were in" in sweep(capsys, tmp_path)[1] and file.read_bytes() == whole


def test_a_file_that_holds_no_results_is_left_alone(capsys, tmp_path):
    write_grid(tmp_path)
    for text in ("a text", '{"a": 1}', "{broken\n"):
        (tmp_path / "r.jsonl").write_text(text)
        status, _, err = sweep(capsys, tmp_path)
        assert status == 2 and "r.jsonl, line 1: expected a JSON object with figures" in err
        assert (tmp_path / "r.jsonl").read_text() == text


@pytest.mark.parametrize("name", ["r.jsonl", "w/sweep.lock"])
def test_two_sweeps_on_one_place_are_refused(capsys, tmp_path, monkeypatch, name):
    monkeypatch.setattr(results, "LOCK_SECONDS", 0.1)
    write_grid(tmp_path)
    (tmp_path / "w").mkdir()
    with (tmp_path / name).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, _, err = sweep(capsys, tmp_path)
    assert status == 2 and f"expected {tmp_path / name} for this sweep alone" in err
    assert sweep(capsys, tmp_path)[0] == 0


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("axes:", "axis: {}\naxes:", "expected the keys variables, axes, .*, got axis"),
        ("axes:", "- axes:", "grid.yaml: expected YAML, got a fault: "),
        ("{data}", "{dat}", r"train: expected one of \{data\}, \{folder\}, .*, got \{dat\}"),
        ('more: ""', 'more: "{more}"', r"expected a text without itself in it, got \{more\}"),
        ("{folder}", "{work}", r"train: expected \{folder\} in it, got none"),
        ("--seed {seed}", "", r"expected \{seed\} in a command, got it in none"),
        (
            "{method: cubic}",
            "{method: cubik}",
            "runs: method: expected dense, cubic, broken, got c",
        ),
        ("{method: cubic}", "{methods: cubic}", "expected the axes method, sparsity, seed, got me"),
        ("seed: [1]", "seed: [yes]", "axes: seed: expected a text or number, got True; quote"),
        ("seed: [1]", "seed: 1", "axes: seed: expected a list of values, or a mapping .* got 1"),
        (
            "seed: [1]",
            "seed: [a/b, a_b]",
            "expected values that tell runs apart, got .*-sa_b twice",
        ),
        ("seed: [1]", "data: [1]", "expected every name once, got data again"),
        ("CER: ([\\d.]+)", "CER: (", "figures: test_cer: expected a regular expression, got 'CER"),
        ("CER: ([\\d.]+)", "CER", "expected a regular expression with one group, got 'CER' with 0"),
        ("evaluate:\n  -", "evaluate:\n  a b:", "evaluate: expected names of letters"),
        ("{python} {training}", "pyton {training}", "expected a command that is installed, got py"),
        ("{python} {training}", "fairseq-train", "train: expected --log-format json, got it with"),
        ("{python} {training}", "'{python}", "train: expected a command line, got .*No closing"),
        ("train:", "trains:", "expected the keys"),
    ],
)
def test_grids_that_cannot_be_meant_so(capsys, tmp_path, old, new, message):
    assert old in GRID
    write_grid(tmp_path, GRID.replace(old, new))
    status, out, err = sweep(capsys, tmp_path)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert re.search(message, line), line
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--jobs", "0"], "--jobs: expected a number of runs >= 1, got 0"),
        (["--set", "lr"], "--set: expected NAME=VALUE, got 'lr'"),
        (["--set", "lr=1"], r"--set: expected variables of .* \(python, data, .*\), got lr"),
        (["--only", "method"], "--only: expected NAME=VALUE,VALUE, got 'method'"),
        (["--only", "shape=4x4"], "--only: expected one of method, sparsity, seed, got shape"),
        (["--only", "method=cubic,ramp"], "expected method among dense, cubic, got 'ramp'"),
    ],
)
def test_options_that_fit_no_grid(capsys, tmp_path, more, message):
    write_grid(tmp_path)
    status, _, err = sweep(capsys, tmp_path, *more)
    assert status == 2 and re.search(message, err), err


def test_a_variable_without_value_is_asked_for(capsys, tmp_path):
    write_grid(tmp_path)
    command = ["sweep", tmp_path / "grid.yaml", "--results", "r", "--work", "w"]
    status, _, err = cli_runs.run(capsys, *command)
    assert status == 2 and "expected a value of python, data, training, got none; add --set" in err


def test_without_yaml_it_says_so(capsys, tmp_path, monkeypatch):
    write_grid(tmp_path)
    monkeypatch.setitem(sys.modules, "yaml", None)
    status, _, err = sweep(capsys, tmp_path)
    assert status == 2 and "expected PyYAML, got none installed; pip install PyYAML" in err


def test_braces_of_other_things_stay(capsys, tmp_path):
    write_grid(tmp_path, GRID.replace("{more}", "\\\"{'packed': '{sparsity}'}\\\" {}"))
    _, out, _ = sweep(capsys, tmp_path, "--dry-run", "--only", "sparsity=0.9")
    assert """{'"'"'packed'"'"': '"'"'0.9'"'"'}' '{}' --seed 1""" in out


@pytest.mark.parametrize("whole, left", [({"checkpoint_best.pt"}, True), (set(), False)])
def test_a_torn_checkpoint_is_replaced_by_the_newest_whole_one(tmp_path, whole, left):
    checkpoint = save_sparse(tmp_path).read_bytes()
    for age, name in ((9, "checkpoint1.pt"), (5, "checkpoint_best.pt"), (0, "checkpoint_last.pt")):
        path = tmp_path / name
        path.write_bytes(checkpoint + name.encode() if name in whole else checkpoint[:-30])
        os.utime(path, (1e9 - age, 1e9 - age))
    run.repair_checkpoint(tmp_path)
    last = tmp_path / "checkpoint_last.pt"
    assert last.exists() == left
    if left:
        assert last.read_bytes() == (tmp_path / "checkpoint_best.pt").read_bytes()
        run.repair_checkpoint(tmp_path)
        assert last.exists()


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
