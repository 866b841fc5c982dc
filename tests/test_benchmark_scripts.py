"""The other scripts of benchmarks/ run, and their figures belong together."""

import json
import subprocess
import sys

import pytest
import torch
from benchmark_runs import BENCHMARKS, QUICK, run, scripts
from needs import needs_kernels
from torch import nn

from fairseq_rnnprune.experiment import save_result


@pytest.fixture
def load(monkeypatch):
    yield from scripts(monkeypatch)


@needs_kernels
def test_step(load, monkeypatch, tmp_path):
    options = "--hidden 32 --input 3 --steps 8".split()
    results = run(load, monkeypatch, tmp_path, "step", *options, *QUICK)
    figures = results["step-h32-i3-p90"]["figures"]
    packed = {"fp32-16x1", "bf16-16x1", "int8-16x4"}
    assert set(figures) == {"dense", "dense-cell", "dense-int8"} | packed
    for row in figures.values():
        assert row["overhead_us"] == pytest.approx(row["us"] - row["kernel_us"])


@needs_kernels
def test_threads(load, monkeypatch, tmp_path):
    options = "--hidden 32 --steps 3".split()
    results = run(load, monkeypatch, tmp_path, "threads", *options, *QUICK)
    row = results["threads-h32"]["figures"]["fp32-16x1"]
    assert row["gain"] == pytest.approx(row["us"] / row["threads_us"])


@needs_kernels
def test_threads_are_set_before_a_turn(load):
    harness = load("harness")
    seen, ones = [], torch.ones(1)

    def candidate(name, threads):
        call = lambda: seen.append((name, torch.get_num_threads())) or ones  # noqa: E731
        return harness.Candidate(name, call, ones.double(), 1e-6, threads=threads)

    harness.measure([candidate("one", 1), candidate("two", 2)], rounds=3, seconds=0, turn=0)
    assert set(seen) == {("one", 1), ("two", 2)}


@needs_kernels
def test_break_even(load, monkeypatch, tmp_path):
    options = "--hidden 32 --batch 1 2 --sparsity 0 0.5 0.9".split()
    results = run(load, monkeypatch, tmp_path, "break_even", *options, *QUICK)
    figures = results["break-even-h32"]["figures"]
    assert set(figures) == set(load("break_even").NAMES)
    for row in figures.values():
        assert row["sparsity_fp32"] in ("none", "0 %", "50 %", "90 %")
        assert row["batch_best"] in ("1", "2", "> 2")
        assert set(row["sparsities"]) <= {"0", "0.5", "0.9"}


@needs_kernels
@pytest.mark.filterwarnings("ignore:torch.(ao.quantization|quantize_per_tensor)")
@pytest.mark.parametrize("size", ["2x128", "relu"])
def test_speech(load, monkeypatch, tmp_path, size):
    script = load("speech")
    monkeypatch.setitem(script.SIZES, "relu", {"cell": "relu", "hidden_size": 64})
    options = ["--size", size, "--audio-seconds", "0.5", *QUICK]
    result = run(load, monkeypatch, tmp_path, "speech", *options)[f"rtf-{size}"]
    figures = result["figures"]
    packed = {"fp32", "bf16", "int8"}
    dense = {"dense", "dense-bf16", "dense-int8", *(["dense-torch"] if size == "relu" else [])}
    assert set(figures) == packed | dense | {"parameters", "best_dense"}
    assert figures["best_dense"] == min(figures[variant]["rtf"] for variant in dense)
    assert figures["dense-int8"]["error"] > 10 * figures["dense"]["error"], "not quantised"
    for variant in packed:
        assert figures[variant]["megabytes"] < figures["dense"]["megabytes"]
        assert figures[variant]["rtf"] == pytest.approx(figures[variant]["us"] / 0.5e6)
    for kind in ("speech", "speech_trained"):
        layout = json.loads((BENCHMARKS / "results" / kind / "table.json").read_text())
        for _, text in layout["columns"]:
            assert text.format_map(result)


@pytest.mark.parametrize("cell", ["gru", "relu"])
def test_states_of_random_speech_models_do_not_shrink(load, monkeypatch, cell):
    script = load("speech")
    monkeypatch.setitem(script.SIZES, "deep", {"cell": cell, "hidden_size": 64, "rnn_layers": 5})
    torch.manual_seed(1)
    with torch.no_grad():
        model = script.random_model("deep", script.SpeechConfig(), 0.9)
        outputs = []
        model.rnn.register_forward_hook(lambda *call: outputs.append(call[-1][0]))
        model(torch.randn(1, 90, 40))
    assert outputs[0].std(1).mean() > 0.03


@pytest.mark.filterwarnings("ignore:torch.(ao.quantization|quantize_per_tensor)")
def test_a_speech_model_without_recurrence_is_not_timed(load, monkeypatch, tmp_path):
    script = load("speech")
    monkeypatch.setitem(script.SIZES, "relu", {"cell": "relu", "hidden_size": 64})

    def along_the_batch(rnn):
        rnn.batch_first = False
        return LinearRNN(rnn)

    LinearRNN = script.LinearRNN
    monkeypatch.setattr(script, "LinearRNN", along_the_batch)
    options = ["--size", "relu", "--audio-seconds", "2", *QUICK]
    with pytest.raises(SystemExit, match="dense-int8: error"):
        run(load, monkeypatch, tmp_path, "speech", *options)


@pytest.mark.filterwarnings("ignore:torch.(ao.quantization|quantize_per_tensor)")
@pytest.mark.parametrize(("bidirectional", "batch_first"), [(False, False), (True, True)])
def test_a_relu_network_of_linear_layers_is_torchs(load, bidirectional, batch_first):
    script = load("speech")
    torch.manual_seed(1)
    more = {"bidirectional": bidirectional, "batch_first": batch_first}
    rnn = nn.RNN(6, 16, 2, nonlinearity="relu", **more).eval()
    x = torch.randn(5, 3, 6)
    with torch.no_grad():
        same = script.LinearRNN(rnn)
        for found, expected in zip(same(x), rnn(x), strict=True):
            torch.testing.assert_close(found, expected)
        quantised = script.quantize(same, {nn.Linear})
        error = (quantised(x)[0] - rnn(x)[0]).abs().max()
    assert 1e-4 < error < 0.1
    kinds = {
        type(layer).__module__ for d in quantised.layers for layer in (d[0].input, d[-1].recurrent)
    }
    assert kinds == {"torch.ao.nn.quantized.dynamic.modules.linear"}


@pytest.mark.parametrize("least", [0.0, 0.3, 0.9, None])
def test_the_first_winner_is_found_by_bisection(load, least):
    asked = []

    def wins(sparsity):
        asked.append(sparsity)
        return least is not None and sparsity >= least

    grid = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9]
    assert load("break_even").first_winner(grid, wins) == least
    assert len(asked) <= 3


def test_the_methods_whose_cost_is_measured_are_what_their_names_say(load):
    # The optimizer's own default would make all of them count gradients.
    for name, options in load("pruning_cost").METHODS.items():
        assert (options["prune_fisher_power"] > 0) == name.startswith("fisher"), name


def test_done_is_what_the_same_code_measured(load, monkeypatch, tmp_path):
    suite = load("suite")
    monkeypatch.setattr(suite, "ROOT", tmp_path)
    measured, other = tmp_path / suite.MEASURED[0] / "kernel.h", tmp_path / "README.md"
    measured.parent.mkdir(parents=True)
    measured.write_text("1")
    commits = [commit_all(tmp_path)]
    other.write_text("prose")
    commits.append(commit_all(tmp_path))
    job = suite.Job("step", "step.py", "", ("a", "b"))

    def is_done(commit):
        for name in job.names:
            path = save_result(tmp_path / "results" / "step", name, 1, "", {})
            path.write_text(json.dumps({**json.loads(path.read_text()), "commit": commit}))
        return job.is_done(tmp_path / "results")

    assert not job.is_done(tmp_path / "results")
    assert all(map(is_done, commits))
    assert not any(map(is_done, ("0" * 12, f"{commits[0]}+changes", "unknown")))
    (tmp_path / "results" / "step" / "a-s1.json").unlink()
    assert not job.is_done(tmp_path / "results")
    measured.write_text("2")
    assert not any(map(is_done, commits))


def commit_all(folder):
    """Commits what a folder holds into its own repository, and returns the commit."""
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return found.stdout.strip()[:12]


def test_every_result_of_the_suite_has_a_place_in_a_table(load):
    found = {}
    for job in load("suite").jobs():
        found.setdefault(job.kind, []).extend(job.names)
    for kind, names in found.items():
        layout = json.loads((BENCHMARKS / "results" / kind / "table.json").read_text())
        assert len(names) == len(set(names))
        assert set(names) == set(layout["order"]), kind


@needs_kernels
def test_the_tables_find_their_columns(load, monkeypatch, tmp_path, root):
    tables = {
        "gru": ["kernels", *"gru --hidden 32 --steps 2".split(), *QUICK],
        "matmul": ["kernels", *"matmul --hidden 32".split(), *QUICK],
        "step": ["step", *"--hidden 32 --steps 4".split(), *QUICK],
        "threads": ["threads", *"--hidden 32 --steps 2".split(), *QUICK],
        "break_even": ["break_even", *"--hidden 32 --batch 1 --sparsity 0.9".split(), *QUICK],
    }
    tables["gru_sparsity"] = tables["gru"]
    for kind, (script, *options) in tables.items():
        layout = json.loads((BENCHMARKS / "results" / kind / "table.json").read_text())
        [result] = run(load, monkeypatch, tmp_path / kind, script, *options).values()
        for _, text in layout["columns"]:
            assert text.format_map(result)


def test_plot(load, monkeypatch, tmp_path):
    plot = load("plot")
    for kind, sparsity, batch in (("gru", 0.9, 1), ("gru", 0.9, 4), ("gru_sparsity", 0.5, 1)):
        figures = {name: {"speedup": 1.0 + batch * sparsity} for name, *_ in plot.LINES}
        more = {"hidden": 8, "sparsity": sparsity, "batch": batch}
        save_result(tmp_path / kind, f"p{sparsity}-b{batch}", 1, "", figures, **more)
    arguments = ["plot", "--results", str(tmp_path), "--out", str(tmp_path / "plots")]
    monkeypatch.setattr(sys, "argv", arguments)
    plot.main()
    for name in ("speedup_by_sparsity.png", "speedup_by_batch.png"):
        image = (tmp_path / "plots" / name).read_bytes()
        assert image.startswith(b"\x89PNG") and len(image) < 100_000
    arguments[2] = str(tmp_path / "nothing")
    with pytest.raises(SystemExit, match="too few to draw"):
        plot.main()


def test_the_suite_lists_its_commands(root):
    script = [sys.executable, str(root / "benchmarks" / "suite.py"), "--list", "--only", "step"]
    done = subprocess.run(script, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "step.py --hidden 512" in done.stdout
