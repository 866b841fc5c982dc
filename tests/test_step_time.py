"""Step times of a sweep, measured in parts; and what is said of runs that differ in their seed."""

import json
import sys

import pytest
from example_scripts import load_script

from fairseq_rnnprune.sweep.rows import summarise


@pytest.fixture
def script():
    return load_script("comparison/step_time.py")


def test_models_without_a_checkpoint_keep_their_times(script, tmp_path, monkeypatch):
    results, steps = tmp_path / "an4.jsonl", tmp_path / "an4-steps.jsonl"
    rows = [{"name": name, "axes": {}, "figures": {"us": 0}} for name in ("a", "b", "c")]
    results.write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps.write_text("".join(json.dumps({**row, "figures": {"us": 1}}) + "\n" for row in rows[:2]))

    def measure(row, work, seconds):
        return {**row, "figures": {"us": 2}} if row["name"] == "b" else None

    monkeypatch.setattr(script, "measure", measure)
    monkeypatch.setattr(sys, "argv", ["step_time", str(results), "--work", str(tmp_path)])
    script.main()
    found = [json.loads(line) for line in steps.read_text().splitlines()]
    assert [(row["name"], row["figures"]["us"]) for row in found] == [("a", 1), ("b", 2)]


def test_without_any_checkpoint_nothing_is_lost(script, tmp_path, monkeypatch):
    results, steps = tmp_path / "an4.jsonl", tmp_path / "an4-steps.jsonl"
    for path in (results, steps):
        path.write_text(json.dumps({"name": "a", "axes": {}, "figures": {}}) + "\n")
    before = steps.read_text()
    monkeypatch.setattr(sys, "argv", ["step_time", str(results), "--work", str(tmp_path)])
    with pytest.raises(SystemExit, match="expected checkpoints of .* got none"):
        script.main()
    assert steps.read_text() == before


def test_texts_that_differ_between_seeds_are_listed():
    group = [{"commit": "x", "method": "m", "cer": 1.0}, {"commit": "y", "method": "m", "cer": 2.0}]
    row = summarise(group)
    assert (row["commit"], row["method"], row["runs"]) == ("x, y", "m", 2)
    assert f"{row['cer']:.1f}" == "1.5 (1.0 to 2.0)"
