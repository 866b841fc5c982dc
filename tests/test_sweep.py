"""`rnnprune sweep`: what is run, in which order, what a row says, what is refused."""

import fcntl
import json
import re

import pytest
from cli_runs import save_sparse
from sweep_runs import ALL, GRID, calls, rows, sweep, write_grid

from fairseq_rnnprune.sweep import results


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


def test_finished_runs_are_not_taken_for_those_of_other_data(capsys, tmp_path):
    write_grid(tmp_path)
    sweep(capsys, tmp_path)
    status, _, err = sweep(capsys, tmp_path, "--set", f"data={tmp_path}")
    assert status == 2 and "delete the folder, or give another --work" in err


@pytest.mark.parametrize("logged", ['{"step": 1, "loss": 2.0}', '{"epoch": 1, "loss": 2.0}'])
def test_a_log_of_another_program_has_no_figures_of_fairseq(capsys, tmp_path, logged):
    write_grid(tmp_path)
    (tmp_path / "training.py").write_text(f"print('[2026-01-01][train][INFO] - {logged}')")
    assert sweep(capsys, tmp_path)[0] == 0
    assert all("training_seconds" not in row["figures"] for row in rows(tmp_path))


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


def with_evaluation(line):
    """The grid whose evaluation is called test, with another one beside it."""
    named = GRID.replace('- "{python}', 'test: "{python}').replace("test_cer:", "cer:")
    return named.replace("figures:", f"  {line}\nfigures:")


def test_named_evaluations_give_named_figures(capsys, tmp_path):
    write_grid(tmp_path, with_evaluation('valid: "{python} -c \'print(\\"CER: 3\\")\'"'))
    status, _, err = sweep(capsys, tmp_path, "--only", "sparsity=0.9")
    assert status == 0, err
    (row,) = rows(tmp_path)
    found = {n: v for n, v in row["figures"].items() if "cer" in n or "said" in n}
    assert found == {"test_cer": 9.0, "valid_cer": 3.0, "test_said": "cubic"}


def test_an_evaluation_without_figures_is_told(capsys, tmp_path):
    # Its name is the beginning of the other's.
    write_grid(tmp_path, with_evaluation("te: '{python} -c print()'").replace(" test:", " te_st:"))
    status, out, err = sweep(capsys, tmp_path, "--only", "sparsity=0.9")
    assert status == 0, err
    assert ", no figure in evaluate-te.log" in err
    (row,) = rows(tmp_path)
    assert row["no_figures_from"] == ["te"]


def test_a_figure_that_finished_runs_do_not_have_is_told(capsys, tmp_path):
    write_grid(tmp_path)
    assert sweep(capsys, tmp_path)[0] == 0
    # test_cer ends as cer does.
    write_grid(tmp_path, GRID.replace("figures: {", "figures: {cer: 'WER: (.*)', "))
    status, out, err = sweep(capsys, tmp_path)
    assert status == 0 and "4 runs: 4 were in" in out
    assert "r.jsonl: 4 finished runs have no cer, which the grid has by now" in err
    # Without their lines they are evaluated again, not trained.
    (tmp_path / "r.jsonl").unlink()
    write_grid(tmp_path, GRID.replace("figures: {", "figures: {all: '(CER)', "))
    assert sweep(capsys, tmp_path)[0] == 0
    assert all(row["figures"]["all"] == "CER" for row in rows(tmp_path))
    assert set(calls(tmp_path).values()) == {1}


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
