"""`rnnprune bench`: counts by hand, what is found by name, the command, one line per error."""

import json
import re

import pytest
import torch
from cli_runs import run
from needs import needs_kernels
from torch import nn

from fairseq_rnnprune.bench import figures as bench
from fairseq_rnnprune.bench import render, timing, variants
from fairseq_rnnprune.bench.figures import Figures, Row, Settings, bench_layer
from fairseq_rnnprune.bench.layers import find_layers
from fairseq_rnnprune.bench.variants import Cost, dense_variants, packed_cost, packed_variants
from fairseq_rnnprune.layers import ClippedRNN
from fairseq_rnnprune.sparse import BlockSparseMatrix

QUICK = "--steps 4 --rounds 3 --seconds 0".split()


@pytest.fixture(autouse=True)
def short_turns(monkeypatch):
    monkeypatch.setattr(bench, "TURN", 1e-4)
    monkeypatch.setattr(timing.os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)


def block_weight():
    """[6, 5], two nonzeros: its blocks of 4 x 4 are two, of 8 values beyond the edges each."""
    weight = torch.zeros(6, 5)
    weight[0, 0], weight[5, 3] = 1.0, -1.0
    return weight


def gru_tensors(prefix="gru.", hidden=16, inputs=8):
    """A GRU whose recurrent weight keeps one column of gate r: one panel of 16 x 1."""
    gru = nn.GRU(inputs, hidden)
    recurrent = torch.zeros_like(gru.weight_hh_l0)
    recurrent[:16, 2] = 0.5
    tensors = {**gru.state_dict(), "weight_hh_l0": recurrent}
    return {prefix + name: tensor for name, tensor in tensors.items()}


def save(path, tensors):
    path.parent.mkdir(parents=True, exist_ok=True)
    extra = {"previous_training_time": 12.5}
    history = [{"num_updates": 40}]
    torch.save({"model": tensors, "extra_state": extra, "optimizer_history": history}, path)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    more = {"out.weight": torch.ones(20, 16), "out.bias": torch.zeros(20)}
    return save(tmp_path / "one" / "c.pt", gru_tensors() | more)


@pytest.mark.parametrize(
    "dtype, indices",
    # Pointers of two panels, two columns; integers: a scale for each of 8 rows.
    [
        (torch.float32, 12 + 4),
        (torch.bfloat16, 12 + 4),
        (torch.int16, 12 + 4 + 32),
        (torch.int8, 12 + 4 + 32),
    ],
)
def test_costs_of_blocks_by_hand(dtype, indices):
    W = BlockSparseMatrix.from_dense(block_weight(), (4, 4), dtype)
    stored = 2 * 16 * dtype.itemsize + indices
    # Beside activations in 8 bits an offset of each row is read.
    offsets = 32 if dtype == torch.int8 else 0
    assert packed_cost(W, "cpu") == Cost(2 * 16, stored, stored + offsets)
    # CSR multiplies nonzeros and reads a value and a column of each, and 7 row pointers.
    assert packed_cost(W, "torch_csr") == Cost(2, stored, 2 * 8 + 7 * 4)
    assert packed_cost(W, "reference") == Cost(30, stored, 4 * 30)


def test_a_diagonal_apart_is_multiplied_as_well():
    weight = torch.eye(4)
    weight[0, 3] = 2.0
    W = BlockSparseMatrix.from_dense(weight, (4, 4), diagonal=True)
    stored = 16 * 4 + 4 * 4 + 2 * 4 + 2
    assert packed_cost(W, "cpu") == Cost(16 + 4, stored, stored)


def test_int8_in_blocks_of_one_column_reads_no_offsets():
    W = BlockSparseMatrix.from_dense(torch.ones(16, 1), (16, 1), torch.int8)
    assert packed_cost(W, "cpu") == Cost(16, 16 + 8 + 2 + 64, 16 + 8 + 2 + 64)


@pytest.mark.filterwarnings("ignore:torch.(ao.quantization|quantize_per_tensor)")
def test_costs_of_a_dense_layer_by_hand():
    ((layer,), _) = find_layers(gru_tensors())
    elements = 48 * 8 + 48 * 16
    found = {v.name: v.cost for v in dense_variants(layer)}
    assert found["dense"] == Cost(elements, 4 * elements, 4 * elements)
    assert found["dense-bf16"] == Cost(elements, 2 * elements, 2 * elements)
    if "dense-int8" in found:
        assert found["dense-int8"] == Cost(elements, elements, elements)


@needs_kernels
def test_costs_of_a_packed_layer_by_hand():
    ((layer,), _) = find_layers(gru_tensors())
    (packed,) = packed_variants(layer, ["fp32"])
    assert packed.runs_on == "cpu" and layer.module.sparse is None
    # Dense input: three panels of 8 columns in 16 x 4 blocks; one kept column of 16 rows.
    assert packed.cost.multiply_adds == 48 * 8 + 16
    shapes = {tuple(m["shape"]): m for m in packed.matrices}
    assert shapes[48, 16]["block_shape"] == [16, 1]
    assert packed.cost.stored_bytes == sum(m["nbytes"] for m in packed.matrices)
    # 16 values, 4 pointers, a column.
    assert shapes[48, 16]["nbytes"] == 16 * 4 + 4 * 4 + 2


def test_layers_are_found_by_the_names_of_their_tensors():
    rnn = ClippedRNN(3, 4, num_layers=2, bidirectional=True)
    tied = torch.ones(7, 5)
    model = {
        "embed.weight": torch.ones(7, 2),
        "out.embed_tokens.weight": tied,
        "out.projection.weight": tied,
        "out.projection.bias": torch.full((7,), 3.0),
        **gru_tensors("decoder.gru.", inputs=6),
        **{f"rnn.{name}": tensor for name, tensor in rnn.state_dict().items()},
        **{f"lstm.{name}": t for name, t in nn.LSTM(3, 4).state_dict().items()},
        **{f"plain.{name}": t for name, t in nn.RNN(3, 4).state_dict().items()},
        **{f"cell.{name}": t.half() for name, t in nn.GRUCell(3, 4, bias=False).named_parameters()},
        "adaptive_softmax.tail.0.0.weight": torch.ones(4, 2),
        "odd.weight_ih_l1": torch.ones(12, 4),
        "odd.weight_hh_l1": torch.ones(12, 4),
    }
    found, left_out = find_layers(model)
    assert {layer.name: layer.kind for layer in found} == {
        "decoder.gru": "GRU 6 to 16",
        "rnn": "clipped RNN 3 to 4, 2 layers, both ways",
        "cell": "GRU 3 to 4",
        "out.projection": "linear 5 to 7",
        "adaptive_softmax.tail.0.0": "linear 2 to 4",
    }
    by_name = {layer.name: layer for layer in found}
    assert by_name["out.projection"].module.bias[0] == 3.0
    assert by_name["cell"].module.weight_ih_l0.dtype == torch.float32
    assert not by_name["rnn"].module.training
    rnn = by_name["rnn"].module
    assert len(rnn.weights()) == 8 and rnn.gates == 1
    assert set(left_out) == {"lstm", "plain", "odd"}
    assert "has 4 gates" in left_out["lstm"] and "has 1 gate:" in left_out["plain"]
    assert left_out["odd"] == "has no first layer"


def test_a_state_dict_of_a_lone_gru_and_one_that_lacks_a_tensor():
    (layer,), _ = find_layers(nn.GRU(3, 4).state_dict())
    assert (layer.name, layer.kind) == ("model", "GRU 3 to 4")
    tensors = nn.GRU(3, 4, bidirectional=True).state_dict()
    del tensors["weight_ih_l0_reverse"]
    found, left_out = find_layers(tensors)
    assert not found and "do not make up a GRU" in left_out["model"]


@pytest.mark.parametrize("both", [False, True])
def test_a_clipped_rnn_is_measured(both):
    rnn = ClippedRNN(6, 16, bidirectional=both)
    rnn.weight_hh_l0.data[:, 1:] = 0.0
    (layer,), _ = find_layers({f"rnn.{name}": t for name, t in rnn.state_dict().items()})
    found = bench_layer(layer, Settings(steps=3, rounds=3, seconds=0, values=("fp32",)))
    # torch has no quantised ReLU RNN.
    assert set(found.rows) == {"dense", "dense-bf16", "fp32", "auto"}
    directions = 2 if both else 1
    assert found.rows["dense"].cost.multiply_adds == directions * (16 * 6 + 16 * 16)
    assert found.nonzeros == directions * (16 * 6 + 16 * 16) - 16 * 15
    assert found.rows["fp32"].error < 1e-5


def test_auto_is_what_it_chooses(monkeypatch):
    (layer,), _ = find_layers(gru_tensors())
    quick = {"steps": 2, "rounds": 3, "seconds": 0}
    for packs, values, chosen in (
        (True, ("fp32", "int8"), "fp32"),
        (False, ("fp32",), "dense"),
        # What was not asked for is measured for auto alone.
        (True, ("int8",), None),
    ):
        monkeypatch.setattr(bench, "explain_packing", lambda *a, packs=packs, **k: (packs, "why"))
        rows = bench_layer(layer, Settings(values=values, **quick)).rows
        shown = [name for name in rows if name in variants.VALUES]
        assert shown == list(values)
        if chosen:
            assert rows["auto"] == rows[chosen]
        else:
            assert rows["auto"].cost.stored_bytes > rows["int8"].cost.stored_bytes


def test_a_step_of_a_sequence_is_what_counts(monkeypatch):
    (layer,), _ = find_layers(gru_tensors())
    seconds = lambda candidates, *_: {c.name: [8e-6] * 3 for c in candidates}  # noqa: E731
    monkeypatch.setattr(bench, "measure", seconds)
    assert bench_layer(layer, Settings(steps=4)).rows["dense"].us == pytest.approx(2.0)
    linear = find_layers({"out.weight": torch.ones(3, 2)})[0][0]
    assert bench_layer(linear, Settings(steps=4)).rows["dense"].us == pytest.approx(8.0)


def test_a_wrong_kernel_is_not_timed(monkeypatch):
    (layer,), _ = find_layers(gru_tensors())
    real = packed_variants

    def wrong(*arguments):
        return [
            variants.Variant(v.name, v.runs_on, v.cost, lambda x, v=v: v.run(x) + 0.1)
            for v in real(*arguments)
        ]

    monkeypatch.setattr(bench, "packed_variants", wrong)
    with pytest.raises(ValueError, match="expected gru packed as fp32 to agree .* error of .*e-0"):
        bench_layer(layer, Settings(steps=2, rounds=3, seconds=0))


def test_totals_are_of_the_variants_that_all_layers_have():
    def row(runs_on, n):
        return Row(runs_on, Cost(n, 10 * n, 100 * n), us=float(n))

    one = Figures("a", "", 5, {"dense": row("torch", 8), "fp32": row("cpu", 1)})
    more = {"dense": row("torch", 2), "dense-int8": row("torch", 1)}
    two = Figures("b", "", 2, {**more, "fp32": row("torch_csr", 3)})
    assert set(bench.total("all layers", [two, one]).rows) == {"dense", "fp32"}
    found = bench.total("all layers", [one, two])
    assert found.nonzeros == 7 and set(found.rows) == {"dense", "fp32"}
    assert found.rows["dense"] == row("torch", 10)
    assert found.rows["fp32"] == row("cpu, torch_csr", 4)
    assert (found.best_dense, two.best_dense) == ("dense", "dense-int8")
    cells = render._cells(found, "fp32")
    assert cells == ["cpu, torch_csr", "4 (2.5x)", "40 B (2.5x)", "400 B (2.5x)", "4.0 (2.5x)"]
    assert render._cells(found, "nonzero")[1] == "7 (1.4x)"


def test_the_command_prints_a_table(capsys, checkpoint, tmp_path):
    other = save(tmp_path / "two" / "c.pt", gru_tensors("other."))
    status, out, err = run(capsys, "bench", checkpoint, other, *QUICK, "--values", "fp32,bf16")
    assert (status, err) == (0, "")
    assert re.search(r"^gru +nonzero +400 \(2.9x\)", out, re.M)
    assert re.search(r"^GRU 8 to 16 +dense +torch +1,152 ", out, re.M)
    for title in ("out", "other", "all recurrent", "all layers"):
        assert re.search(f"^{title} +nonzero", out, re.M)
    assert re.search(r"^ +bf16 ", out, re.M) and not re.search(r"^ +int8 ", out, re.M)
    assert "one: " in out and "40 updates, trained for 12 s" in out
    assert "gru, auto: stays dense, 1,152 weights" in out or "gru, auto: packed" in out


def test_the_command_prints_json_and_nothing_else(capsys, checkpoint):
    threads = torch.get_num_threads()
    options = [*QUICK, "--batch", "2", "--threads", "2", "--values", "int8"]
    status, out, err = run(capsys, "bench", checkpoint, "--json", *options)
    assert (status, err) == (0, "")
    assert torch.get_num_threads() == threads
    read = json.loads(out)
    assert read["warning"] is None and "torch" in read["versions"] and read["commit"]
    assert read["machine"]["threads"] == 2 and read["machine"]["instruction_set"]
    assert read["settings"]["batch"] == 2 and read["settings"]["values"] == ["int8"]
    (found,) = read["checkpoints"]
    assert (found["updates"], found["training_seconds"], found["left_out"]) == (40, 12.5, {})
    gru, out_layer = found["layers"]
    assert (gru["name"], out_layer["name"]) == ("gru", "out")
    assert gru["nonzeros"] == 48 * 8 + 16 and gru["rounds"] == 3
    for layer in (gru, out_layer):
        dense, int8 = layer["variants"]["dense"], layer["variants"]["int8"]
        assert 0 < int8["us_20"] <= int8["us"] <= int8["us_80"]
        assert int8["speedup"] == pytest.approx(dense["us"] / int8["us"])
        best = layer["variants"][layer["best_dense"]]
        assert int8["over_best"] == pytest.approx(best["us"] / int8["us"])
        assert int8["stored_bytes"] == sum(m["nbytes"] for m in int8["matrices"])
    recurrent, whole = found["totals"]
    assert recurrent["variants"]["int8"]["us"] == gru["variants"]["int8"]["us"]
    for key in ("multiply_adds", "stored_bytes", "read_bytes", "us"):
        parts = [layer["variants"]["int8"][key] for layer in found["layers"]]
        assert whole["variants"]["int8"][key] == pytest.approx(sum(parts))


@pytest.mark.parametrize("load, warns", [(1.0, False), (1.5, True), (None, False)])
def test_a_busy_machine_is_warned_of(capsys, monkeypatch, checkpoint, load, warns):
    def average():
        if load is None:
            raise OSError
        return load, 0.0, 0.0

    monkeypatch.setattr(timing.os, "getloadavg", average, raising=False)
    options = [*QUICK, "--values", "fp32", "--json"]
    status, out, err = run(capsys, "bench", checkpoint, *options)
    assert status == 0
    warning = json.loads(out)["warning"]
    assert bool(warning) == warns
    if warns:
        assert warning.startswith("the machine is busy (load average 1.5, 1 used)")
        assert err == f"rnnprune: warning: {warning}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["bench"], "the following arguments are required: CHECKPOINT; see rnnprune bench"),
        (["bench", "absent.pt"], "read_checkpoint: expected a checkpoint file, got none at"),
        (["bench", "GRU", "absent.pt"], "read_checkpoint: expected a checkpoint file, got none"),
        (["bench", "text.pt"], "expected a file written by fairseq-train or torch.save, got text"),
        (["bench", "linear.pt"], "expected a model with a GRU or a clipped-ReLU RNN, got linear"),
        (["bench", "lstm.pt"], r"got lstm.pt, which has none \(lstm has 4 gates: only GRUs"),
        (["bench", "nan.pt"], "NaN"),
        (["bench", "GRU", "--values", "fp64"], "--values: expected some of fp32,.* got 'fp64'"),
        (["bench", "GRU", "--values", ""], "--values: expected some of fp32,bf16,int16,.* got ''"),
        (["bench", "GRU", "--batch", "0"], "--batch: expected a number of at least 1, got 0"),
        (["bench", "GRU", "--steps", "0"], "--steps: expected a number of at least 1, got 0"),
        (["bench", "GRU", "--threads", "0"], "--threads: expected a number of at least 1, got 0"),
        (["bench", "GRU", "--threads", "2000"], "--threads: expected a number up to 1024, got 2"),
        (["bench", "GRU", "--rounds", "2"], "--rounds: expected a number of at least 3, got 2"),
        (["bench", "GRU", "--seconds", "nan"], "--seconds: expected a number of at least 0"),
        (["bench", "GRU", "--steps", "many"], "argument --steps: invalid int value: 'many'"),
    ],
)
def test_errors_are_one_line_and_status_2(
    capsys, checkpoint, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.pt").write_text("no checkpoint")
    torch.save({"out.weight": torch.ones(2, 2)}, "linear.pt")
    torch.save({f"lstm.{n}": t for n, t in nn.LSTM(2, 2).state_dict().items()}, "lstm.pt")
    torch.save({n: torch.full_like(t, torch.nan) for n, t in gru_tensors().items()}, "nan.pt")
    status, out, err = run(capsys, *(checkpoint if a == "GRU" else a for a in arguments))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("rnnprune: error: ") and re.search(message, line), line


def test_a_number_of_threads_that_the_kernels_would_not_obey(capsys, monkeypatch, checkpoint):
    monkeypatch.setattr("fairseq_rnnprune.sparse.cpu_library.threads", lambda: 2)
    status, _, err = run(capsys, "bench", checkpoint, *QUICK)
    assert status == 2
    assert "--threads: expected RNNPRUNE_THREADS to be unset or 1, got 2" in err


def test_what_a_gpu_was_given_is_waited_for(monkeypatch):
    events = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: events.append("wait"))
    timing.timed(lambda: events.append("call"), 2)
    assert events == ["wait", "call", "call", "wait"]
