"""`rnnprune plot`: which rows become which points, references, errors; and the tables of sweeps."""

import json
import re
import sys

import pytest
from cli_runs import run

from fairseq_rnnprune.display import figure
from fairseq_rnnprune.sweep import plot
from fairseq_rnnprune.sweep.rows import Spread, read_rows
from fairseq_rnnprune.sweep.series import make_picture


def row(method, sparsity, seed, cer, shape="1x1"):
    axes = {"method": method, "sparsity": sparsity, "shape": shape, "seed": seed}
    kept = round(1_000_000 * (1 - sparsity)) + seed
    name = f"{method}-{sparsity}-{shape}-s{seed}"
    return {"name": name, "axes": axes, "figures": {"kept": kept, "cer": cer}, "commit": "c"}


ROWS = [
    row("dense", 0, 1, 5.0),
    row("dense", 0, 2, 6.0),
    row("ramp", 0.9, 1, 9.0),
    row("cubic", 0.9, 1, 7.0),
    row("cubic", 0.9, 3, 8.0),
    row("cubic", 0.8, 1, 6.5),
    row("cubic", 0.8, 1, 6.75, shape="4x4"),
]


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in ROWS))
    return path


def test_points_are_means_over_seeds_in_order():
    picture = make_picture(ROWS, "kept", "cer", "method", "shape")
    points = {key: [p.mean for p in points] for key, points in picture.series.items()}
    assert points == {
        ("dense", "1x1"): [(1_000_001.5, 5.5)],
        ("ramp", "1x1"): [(100_001, 9.0)],
        ("cubic", "1x1"): [(100_002, 7.5), (200_001, 6.5)],
        ("cubic", "4x4"): [(200_001, 6.75)],
    }
    # Text in the order of the results.
    assert list(picture.series)[0] == ("dense", "1x1")
    assert picture.series["cubic", "1x1"][0].seeds == [(100_001, 7.0), (100_003, 8.0)]


def test_rows_that_are_no_seeds_are_not_averaged():
    # The same row again counts once.
    picture = make_picture([*ROWS, ROWS[0]], "kept", "cer", "method")
    assert picture.series["dense", None][0].mean == (1_000_001.5, 5.5)
    with pytest.raises(ValueError, match="expected one row of each run and seed, got dense-0-1x1"):
        make_picture([*ROWS, row("dense", 0, 1, 7.0)], "kept", "cer")


def test_a_diverged_seed_is_left_out():
    picture = make_picture([*ROWS, row("dense", 0, 3, float("nan"))], "kept", "cer", "method")
    assert picture.left_out == 1
    assert picture.series["dense", None][0].mean == (1_000_001.5, 5.5)


def test_where_and_reference_choose_rows():
    where, reference = {"method": ["cubic"], "sparsity": ["0.80"]}, {"method": ["dense"]}
    picture = make_picture(ROWS, "kept", "cer", "shape", None, where, reference)
    assert list(picture.series) == [("1x1", None), ("4x4", None)]
    assert picture.references == {"dense": 5.5}
    # Two kinds of references are called by their names.
    two = make_picture(ROWS, "kept", "cer", reference={"method": ["ramp", "dense"]})
    assert two.references == {"dense": 5.5, "ramp": 9.0}
    three = make_picture(ROWS, "kept", "cer", reference={"method": ["cubic"]})
    # A diverged seed is no part of a reference, and is counted.
    diverged = [*ROWS, row("dense", 0, 3, float("nan"))]
    picture = make_picture(diverged, "kept", "cer", reference={"method": ["dense"]})
    assert picture.references == {"dense": 5.5} and picture.left_out == 1
    names = {"cubic-0.9-1x1-s1": 7.5, "cubic-0.8-1x1-s1": 6.5, "cubic-0.8-4x4-s1": 6.75}
    assert three.references == names


def test_rows_without_numbers_are_counted():
    broken = {**ROWS[2], "figures": {"kept": 3}}
    assert make_picture([*ROWS, broken], "kept", "cer").left_out == 1
    # YAML takes 1e-3 for text.
    texts = [{**ROWS[2], "axes": {"lr": lr}} for lr in ("2e-3", "1e-3", "1e-2")]
    picture = make_picture(texts, "lr", "cer", "lr")
    assert list(picture.series) == [("1e-3", None), ("2e-3", None), ("1e-2", None)]
    assert picture.series["1e-3", None][0].mean == (0.001, 9.0)


def test_a_figure_has_lines_dots_and_references(capsys, results, tmp_path, monkeypatch):
    kept = []
    save = plot.save
    monkeypatch.setattr(plot, "save", lambda *args: kept.append(args[0]) or save(*args))
    status, out, err = run(
        *(capsys, "plot", results, "--x", "kept", "--y", "cer", "--by", "method"),
        *("--style", "shape", "--reference", "method=dense", "--log-x", "--lower-is-better"),
        *("--title", "AN4", "--x-label", "parameters $n$", "-o", tmp_path / "new" / "a.png"),
    )
    assert (status, err, out) == (0, "", f"wrote {tmp_path / 'new' / 'a.png'}\n")
    assert (tmp_path / "new" / "a.png").read_bytes().startswith(b"\x89PNG")
    (panel,) = kept[0].axes
    assert panel.get_xscale() == "log"
    assert panel.get_xlabel() == r"parameters \$n\$"
    assert panel.get_ylabel() == "cer (lower is better)"
    ramp, seeds, cubic, blocks, dense = panel.lines
    assert list(seeds.get_ydata()) == [7.0, 8.0] and seeds.get_linestyle() == "None"
    assert list(cubic.get_ydata()) == [7.5, 6.5]
    assert cubic.get_color() == blocks.get_color() != ramp.get_color()
    assert cubic.get_marker() == ramp.get_marker() != blocks.get_marker()
    assert list(dense.get_ydata()) == [5.5, 5.5]
    labels = [text.get_text() for text in kept[0].legends[0].get_texts()]
    assert labels == ["ramp, 1x1", "cubic, 1x1", "cubic, 4x4", "dense"]
    assert [figure.short(v) for v in (0.95, 1500, 2e6)] == ["0.95", "1.5 k", "2 M"]


def test_files_of_single_runs_are_rows(capsys, tmp_path, root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = root / "examples" / "speech" / "results"
    command = ["plot", folder, folder / "dense-s1.json", "--x", "kept_parameters"]
    status, out, err = run(capsys, *command, "--y", "test_cer", "--where", "name=dense,sparse-90")
    assert (status, err, out) == (0, "", "wrote test_cer.png\n")
    read = read_rows([folder])
    assert len(read) == len(list(folder.glob("*-s*.json"))) and read[0]["figures"]


@pytest.mark.parametrize(
    "more, message",
    [
        (["--x", "keep"], "--x: expected a column among cer, commit, kept, method, .*, got keep"),
        (["--by", "kind"], "--by: expected a column among .*, got kind"),
        (["--where", "kind=1"], "--where: expected a column among .*, got kind"),
        (["--where", "shape"], "--where: expected NAME=VALUE,VALUE, got 'shape'"),
        (["--where", "shape=8x8"], "rows with numbers in kept and cer, got none among 0 that"),
        (["--y", "method"], "rows with numbers in kept and method, got none among 7 that"),
        (
            ["--reference", "method=hard"],
            "--reference: .* of method=hard with a number in cer",
        ),
        (["--x", "sparsity", "--log-x"], "--log-x: expected x > 0, got 0; choose rows"),
    ],
)
def test_figures_that_cannot_be_drawn(capsys, results, tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capsys, "plot", results, "--x", "kept", "--y", "cer", *more)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert re.search(message, line), line
    assert not list(tmp_path.glob("*.png"))


def test_no_rows_and_too_many_values(capsys, tmp_path):
    path = tmp_path / "r.jsonl"
    status, _, err = run(capsys, "plot", path, "--x", "kept", "--y", "cer")
    assert status == 2 and "No such file" in err
    path.write_text("")
    command = ["plot", path, "--x", "kept", "--y", "cer", "--by", "method"]
    status, _, err = run(capsys, *command)
    assert status == 2 and "plot: expected rows in the results, got none" in err
    path.write_text("".join(json.dumps(row(f"m{i}", 0.5, 1, 1.0)) + "\n" for i in range(9)))
    status, _, err = run(capsys, *command)
    assert status == 2 and "--by: expected at most 8 values, which can be told apart, got 9" in err


def test_matplotlib_is_needed(capsys, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    status, _, err = run(capsys, "plot", results, "--x", "kept", "--y", "cer")
    assert status == 2 and "expected matplotlib, got none installed; pip install" in err


def test_a_spread_shows_its_range_where_there_is_one():
    assert f"{Spread([1, 2, 6]):.1f}" == "3.0 (1.0 to 6.0)"
    assert f"{Spread([1.01, 1.02]):.1f}" == f"{Spread([1.01]):.1f}" == "1.0"
    assert f"{Spread([1234])}" == "1234"
    assert "{x.mean:.0f} {x.low} {x.high}".format(x=Spread([1, 3])) == "2 1 3"


@pytest.fixture
def table(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "examples")
    import tables

    return tables.table


def test_a_table_of_the_results_of_a_sweep(results, table):
    layout = {
        "where": {"method": ["cubic", "ramp"], "shape": "1x1"},
        "order": {"method": ["cubic", "ramp"], "sparsity": []},
        "merge_seeds": True,
        "columns": [
            ["method", "{method}"],
            ["sparsity", "{sparsity:.0%}"],
            ["CER", "{cer:.1f}"],
            ["best", "{cer.low:.2f}"],
            ["seeds", "{runs}"],
            ["commit", "{commit}"],
        ],
    }
    (results.parent / "short.json").write_text(json.dumps(layout))
    assert table(results, "short").splitlines() == [
        "| method | sparsity | CER | best | seeds | commit |",
        "| --- | --- | --- | --- | --- | --- |",
        "| cubic | 80% | 6.5 | 6.50 | 1 | c |",
        "| cubic | 90% | 7.5 (7.0 to 8.0) | 7.00 | 2 | c |",
        "| ramp | 90% | 9.0 | 9.00 | 1 | c |",
    ]


def test_a_table_of_single_runs_and_of_one_number(results, table):
    layout = {"where": {"sparsity": 0.9}, "columns": [["run", "{name}"], ["kept", "{kept:,}"]]}
    (results.parent / "table.json").write_text(json.dumps(layout))
    assert table(results).splitlines()[2:] == [
        "| ramp-0.9-1x1-s1 | 100,001 |",
        "| cubic-0.9-1x1-s1 | 100,001 |",
        "| cubic-0.9-1x1-s3 | 100,003 |",
    ]


def test_a_table_lays_rows_side_by_side(results, table):
    layout = {
        "rename": {"method": {"cubic": "Zhu and Gupta"}},
        "order": {"shape": [], "sparsity": [], "method": []},
        "merge_seeds": True,
        "columns": [["method", "{method}"]],
        "across": {"title": "{shape} at {sparsity:.0%}", "cell": "{cer.mean:.2f}"},
    }
    (results.parent / "grid.json").write_text(json.dumps(layout))
    assert table(results, "grid").splitlines() == [
        "| method | 1x1 at 0% | 1x1 at 80% | 1x1 at 90% | 4x4 at 80% |",
        "| --- | --- | --- | --- | --- |",
        "| dense | 5.50 |  |  |  |",
        "| Zhu and Gupta |  | 6.50 | 7.50 | 6.75 |",
        "| ramp |  |  | 9.00 |  |",
    ]
    layout["across"]["title"] = "{shape}"
    (results.parent / "grid.json").write_text(json.dumps(layout))
    with pytest.raises(SystemExit, match="one row of .'Zhu and Gupta'. and 1x1, got two"):
        table(results, "grid")


@pytest.mark.parametrize(
    "layout, message",
    [
        ({"order": {"method": ["cubic"]}, "columns": []}, "no place for method 'dense'"),
        ({"where": {"method": "hard"}, "columns": []}, "expected rows of .*r.jsonl as"),
        ({"columns": [["x", "{wer}"]]}, "table.json: no column 'wer' in .*r.jsonl"),
    ],
)
def test_a_layout_that_does_not_fit(results, table, layout, message):
    (results.parent / "table.json").write_text(json.dumps(layout))
    with pytest.raises(SystemExit, match=message):
        table(results)


def test_seeds_may_be_series_of_their_own():
    picture = make_picture(ROWS[:2], "sparsity", "cer", "seed")
    found = {key: [point.seeds for point in points] for key, points in picture.series.items()}
    assert found == {(1, None): [[(0, 5.0)]], (2, None): [[(0, 6.0)]]}
