"""Grids and options of `rnnprune sweep` that cannot be meant so, and what stays as it is."""

import re
import sys

import cli_runs
import pytest
from sweep_runs import GRID, sweep, write_grid


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
        ("test_cer: '", "seed: '", "called otherwise than an axis, got seed for both"),
        ("CER: ([\\d.]+)", "CER: (", "figures: test_cer: expected a regular expression, got 'CER"),
        ("CER: ([\\d.]+)", "CER", "expected a regular expression with one group, got 'CER' with 0"),
        ("evaluate:\n  -", "evaluate:\n  a b:", "evaluate: expected names of letters"),
        ("{python} {training}", "pyton {training}", "expected a command that is installed, got py"),
        ("{python} {training}", "fairseq-train", "train: expected --log-format json, got it with"),
        ("{python} {training}", "'{python}", "train: expected a command line, got .*No closing"),
        ("train:", "trains:", "expected the keys"),
        (
            "train:",
            "axes: {seed: [1]}\ntrain:",
            "expected every key once in .* line 2, got axes twice",
        ),
        ("cubic: ", "dense: ", "every key once in the mapping that begins in line 4, got dense tw"),
        ("evaluate:\n  -", "variants:\n  -", "expected the keys"),
        (
            "  - {method: dense, sparsity: 0, seed: [1, 2]}\n  - {method: cubic}",
            "  []",
            "runs: expected a list of mappings",
        ),
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


def test_figures_need_evaluations(capsys, tmp_path):
    write_grid(tmp_path, GRID[: GRID.index("evaluate:")] + GRID[GRID.index("figures:") :])
    status, _, err = sweep(capsys, tmp_path)
    assert status == 2 and "expected commands under `evaluate`, got none" in err


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


def test_values_with_commas_are_chosen(capsys, tmp_path):
    blocks = GRID.replace("seed: [1]\n", 'seed: [1]\n  block: ["1,1", "4,4", "16,1"]\n')
    write_grid(tmp_path, blocks.replace("{more}", "--block {block}"))

    def chosen(*texts):
        only = [word for text in texts for word in ("--only", f"block={text}")]
        status, out, err = sweep(capsys, tmp_path, "--dry-run", *only)
        return err if status else set(re.findall(r"--block (\S+)", out))

    assert chosen("4,4") == {"4,4"}
    assert chosen("4,4", "16,1") == {"4,4", "16,1"}
    assert "expected block among 1,1, 4,4, 16,1, got '8'" in chosen("8,8")


def test_braces_of_other_things_stay(capsys, tmp_path):
    write_grid(tmp_path, GRID.replace("{more}", "\\\"{'packed': '{sparsity}'}\\\" {}"))
    _, out, _ = sweep(capsys, tmp_path, "--dry-run", "--only", "sparsity=0.9")
    assert """{'"'"'packed'"'"': '"'"'0.9'"'"'}' '{}' --seed 1""" in out
