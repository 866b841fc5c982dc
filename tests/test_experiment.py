"""Running commands and keeping their figures; the tables that are made of them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fairseq_rnnprune import experiment

ROOT = Path(__file__).parent.parent


def test_a_failing_command_says_what_it_printed(tmp_path):
    command = [sys.executable, "-c", "print('cause'); raise SystemExit(3)"]
    with pytest.raises(RuntimeError, match=r"exit status 0, got 3 from (?s:.*)cause"):
        experiment.run(command, tmp_path / "log")
    assert (tmp_path / "log").read_text() == "cause\n"
    assert experiment.run([sys.executable, "-c", "print(1)"]) == "1\n"


def test_figures_are_read_from_fairseqs_output(tmp_path):
    output = "| Evaluated 82,430 tokens in 3.0s\n| Loss (base 2): 6.7, Perplexity: 104.52\n"
    assert experiment.perplexity(output) == (104.52, 82430)
    with pytest.raises(ValueError, match="expected the output of fairseq-eval-lm"):
        experiment.perplexity("nothing")


def test_generated_texts_are_in_the_order_of_their_numbers():
    numbers = [10, 2, 0]
    output = "".join(f"S-{n}\tsource\nD-{n}\t-0.5\ttext {n}\nP-{n}\t-1\n" for n in numbers)
    found = experiment.generated(output + "D-1\t-9\t\n")
    assert list(found.items()) == [(0, "text 0"), (1, ""), (2, "text 2"), (10, "text 10")]


def test_rows_of_a_log_that_was_resumed(tmp_path):
    log = tmp_path / "train.log"
    row = 'x | INFO | train | {{"epoch": {}, "train_ppl": "{}", "train_train_wall": "{}"}}\nnoise\n'
    # The second epoch was begun, summed up, resumed and summed up again.
    log.write_text(row.format(1, 9, 10) + row.format(2, 8, 4) + row.format(2, 7, 11))
    assert [float(r["ppl"]) for r in experiment.training_rows(log)] == [9, 7]
    assert experiment.training_seconds(log) == 21
    # Killed while it wrote: part of a row, then the next training's options; and a stray byte.
    torn = row.format(3, 6, 9)[:50] + "2026 | INFO | train | {'seed': 1}\n"
    log.write_bytes(log.read_bytes() + torn.encode() + b"\xff\n" + row.format(3, 5, 2).encode())
    assert [float(r["ppl"]) for r in experiment.training_rows(log)] == [9, 7, 5]
    # Hydra's log of fairseq-hydra-train.
    hydra = row.format(1, 8, 4).replace("x | INFO | train | ", "[2026][train][INFO] - ")
    log.write_text(hydra.replace("[train]", "[train_inner]") + hydra)
    assert [float(r["ppl"]) for r in experiment.training_rows(log)] == [8]
    log.write_text("noise\n")
    with pytest.raises(ValueError, match="expected fairseq's JSON log, got no row"):
        experiment.training_rows(log)


def test_a_result_names_command_seed_commit_machine_and_versions(tmp_path):
    path = experiment.save_result(tmp_path, "run", 7, "do it", {"ppl": 1.5}, note="n")
    result = json.loads(path.read_text())
    assert path.name == "run-s7.json"
    assert (result["name"], result["seed"], result["command"]) == ("run", 7, "do it")
    assert result["figures"] == {"ppl": 1.5} and result["note"] == "n"
    assert result["commit"] and result["machine"]["cores"] and "torch" in result["versions"]
    assert [p.name for p in tmp_path.iterdir()] == ["run-s7.json"]


def test_a_table_is_made_of_result_files(tmp_path):
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        from tables import table
    finally:
        sys.path.pop(0)
    layout = {"order": ["b", "a"], "columns": [["run", "{name}"], ["x", "{figures[x]:.1f}"]]}
    (tmp_path / "table.json").write_text(json.dumps(layout))
    with pytest.raises(SystemExit, match="expected results in .*, got none"):
        table(tmp_path)
    for name, x in (("a", 1), ("b", 2)):
        experiment.save_result(tmp_path, name, 1, "", {"x": x})
    assert table(tmp_path) == "| run | x |\n| --- | --- |\n| b | 2.0 |\n| a | 1.0 |\n"


def test_the_tables_of_the_readmes_agree_with_the_results():
    command = [sys.executable, str(ROOT / "examples" / "tables.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_result_is_complete():
    files = [
        *ROOT.glob("examples/*/results/*-s*.json"),
        *ROOT.glob("benchmarks/results/*/*-s*.json"),
    ]
    for path in files:
        result = json.loads(path.read_text())
        for key in ("command", "seed", "commit", "machine", "versions", "figures"):
            assert key in result, f"{path.name}: no {key}"
        assert "changes" not in result["commit"], f"{path.name}: code differed from its commit"


def test_every_row_of_a_sweep_is_complete():
    for path in ROOT.glob("examples/*/results/*.jsonl"):
        for row in map(json.loads, path.read_text().splitlines()):
            for key in ("name", "axes", "commit", "machine", "versions", "figures"):
                assert key in row, f"{path.name}: {row['name']}: no {key}"
            assert "command" in row or "commands" in row
            assert "seed" in row["axes"], f"{path.name}: {row['name']}: no seed"
            assert "changes" not in row["commit"], f"{path.name}: code differed from its commit"
