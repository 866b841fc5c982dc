"""`rnnprune report`: counts checked by hand, tables and JSON."""

import io
import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from report_samples import checkpoint, model, two_reports

from fairseq_rnnprune.display import grid
from fairseq_rnnprune.display.labels import short_labels
from fairseq_rnnprune.report import render, table
from fairseq_rnnprune.sparse import BlockSparseMatrix


def row(report, name, gate=None):
    return next(r for r in report.tensors + report.totals if (r.name, r.gate) == (name, gate))


def test_elements_by_hand():
    report = table.report_checkpoint(checkpoint())
    order = [(r.name, r.gate) for r in report.tensors]
    assert order == [
        ("embed_tokens.weight", None),
        *(("gru.weight_ih_l0", gate) for gate in (None, "r", "z", "n")),
        *(("gru.weight_hh_l0", gate) for gate in (None, "r", "z", "n")),
        ("out.weight", None),
    ]
    ih, r, z, n = (row(report, "gru.weight_ih_l0", gate) for gate in (None, "r", "z", "n"))
    assert (ih.shape, r.shape, ih.type) == ((6, 4), (2, 4), "input")
    assert (ih.kept, r.kept, z.kept, n.kept) == (19, 4, 7, 8)
    assert (r.sparsity, z.sparsity, n.sparsity) == (0.5, 1 / 8, 0.0)
    assert [row(report, "gru.weight_hh_l0", g).sparsity for g in ("r", "z", "n")] == [0, 1, 1]
    assert (ih.dense_bytes, r.dense_bytes) == (96, 32)


def test_totals_by_hand():
    report = table.report_checkpoint(checkpoint())
    names = ["all recurrent", "all input", "all linear", "all embedding", "never pruned"]
    assert [t.name for t in report.totals] == [*names, "whole model"]
    kept = {t.name: (t.kept, t.elements) for t in report.totals}
    assert kept["all recurrent"] == (4, 12)
    assert kept["all input"] == (19, 24)
    assert kept["all linear"] == (20, 22)
    # The convolution and three biases: their zeros were not pruned.
    assert kept["never pruned"] == (35, 35)
    assert kept["whole model"] == (4 + 19 + 20 + 20 + 35, 12 + 24 + 22 + 20 + 35)
    whole = report.totals[-1]
    assert whole.dense_bytes == 113 * 4
    assert whole.stored_bytes == sum(t.stored_bytes for t in report.totals[:-1])
    assert whole.block_sparsity is None


def test_blocks_by_hand():
    report = table.report_checkpoint(checkpoint(), block_shapes={"input": (2, 2)})
    ih, r, z = (row(report, "gru.weight_ih_l0", gate) for gate in (None, "r", "z"))
    assert (ih.blocks, ih.kept_blocks, ih.block_sparsity) == (6, 5, 1 / 6)
    assert (r.block_sparsity, z.block_sparsity) == (0.5, 0.0)
    assert row(report, "all input").block_sparsity == 1 / 6
    assert row(report, "out.weight").block_sparsity == row(report, "out.weight").sparsity


def test_block_shapes_come_from_the_training_unless_given():
    shapes = {"input": (2, 2), "recurrent": (1, 2)}
    trained = table.report_checkpoint(checkpoint(block_shapes=shapes))
    assert trained.block_shapes["input"] == (2, 2)
    assert trained.block_shapes["recurrent"] == (1, 2)
    assert trained.block_shapes["linear"] == (1, 1)
    given = table.report_checkpoint(checkpoint(block_shapes=shapes), block_shapes={"input": (1, 1)})
    assert given.block_shapes["input"] == (1, 1)
    dense = table.report_checkpoint(checkpoint())
    assert set(dense.block_shapes.values()) == {(1, 1)}


def test_stored_bytes_are_packed_where_that_is_smaller():
    weight = torch.zeros(96, 64)
    weight[:32, :8] = 1.0
    tensors = {"gru.weight_ih_l0": weight, "gru.weight_hh_l0": torch.ones(96, 32)}
    report = table.report_checkpoint(checkpoint(tensors), block_shapes={"input": (8, 4)})
    packed = BlockSparseMatrix.from_dense(weight, (8, 4), torch.float32, gates=3)
    sparse, dense = row(report, "gru.weight_ih_l0"), row(report, "gru.weight_hh_l0")
    assert sparse.packed and sparse.stored_bytes == packed.nbytes < sparse.dense_bytes
    assert row(report, "gru.weight_ih_l0", "n").stored_bytes < 32 * 64
    assert not dense.packed and dense.stored_bytes == dense.dense_bytes == 96 * 32 * 4


def test_an_embedding_is_never_packed():
    embedding = torch.zeros(64, 64)
    embedding[0] = 1.0
    report = table.report_checkpoint(checkpoint({"embed_tokens.weight": embedding}))
    (only,) = report.tensors
    assert not only.packed and only.stored_bytes == 64 * 64 * 4


def test_a_tied_matrix_is_counted_once():
    tied = torch.ones(5, 4)
    bias = torch.ones(3)
    tensors = {"embed_tokens.weight": tied, "out.weight": tied, "steps": torch.tensor(3)}
    report = table.report_checkpoint(checkpoint(tensors | {"a.bias": bias, "b.bias": bias}))
    assert report.totals[-1].elements == 20 + 3
    report = table.report_checkpoint(checkpoint(tensors))
    assert row(report, "never pruned").elements == 0
    assert report.totals[-1].sparsity == row(report, "never pruned").sparsity == 0.0


def test_types_that_are_not_shown_still_count():
    report = table.report_checkpoint(checkpoint(), types=["recurrent"])
    assert {r.name for r in report.tensors} == {"gru.weight_hh_l0"}
    assert [t.name for t in report.totals][:2] == ["all recurrent", "other types"]
    assert row(report, "other types").kept == 19 + 20 + 20
    assert report.totals[-1].elements == 113


def test_refused_reports():
    with pytest.raises(ValueError, match="type linear, got run/c.pt with recurrent"):
        table.report_checkpoint(checkpoint({"rnn.weight_hh_l0": torch.ones(3, 3)}), ["linear"])
    with pytest.raises(ValueError, match="one gate of gru.weight_hh_l0, got 4 x 1"):
        table.report_checkpoint(checkpoint(), block_shapes={"recurrent": (4, 1)})


@pytest.mark.parametrize(
    "paths, labels",
    [
        (["runs/a/best.pt"], ["best.pt"]),
        (["runs/a/best.pt", "runs/b/best.pt"], ["a", "b"]),
        (["runs/a/1.pt", "runs/a/2.pt"], ["1.pt", "2.pt"]),
        (["runs/a/1.pt", "runs/b/2.pt"], ["a/1.pt", "b/2.pt"]),
        (["a.pt", "a.pt"], ["a.pt #1", "a.pt #2"]),
    ],
)
def test_short_labels(paths, labels):
    assert short_labels([Path(p) for p in paths]) == labels


def test_table_of_two_checkpoints(capsys):
    grid.print_grid(render.report_grid(two_reports()))
    groups, header, rule, *rows = capsys.readouterr().out.splitlines()
    assert "- large [1] -" in groups and "- small -" in groups
    figures = ["sparsity", "kept", "dense", "packed"]
    assert header.split() == ["tensor", "type", "shape", *figures, *figures]
    assert set(rule) == {"-"} and max(map(len, rows)) <= len(rule)
    cells = {" ".join(line.split()[:2]): line.split() for line in rows}
    ih = "6x4 / 3x4 20.83 % 19 96 B 96 B 0.00 % 12 48 B 48 B"
    assert " ".join(cells["gru.weight_ih_l0 input"][2:]) == ih
    assert cells["out.weight linear"][-4:] == ["-"] * 4
    gates = [line for line in rows if line.startswith("  gate r")]
    assert [g.split()[2:6] for g in gates] == [
        ["2x4", "/", "1x4", "50.00"],
        ["2x2", "/", "1x1", "0.00"],
    ]


def test_inference_says_how_each_layer_runs_and_why():
    tensors = model()
    tensors["gru.weight_hh_l0"], tensors["gru.weight_ih_l0"] = (
        torch.zeros(1920, 640),
        torch.zeros(1920, 64),
    )
    tensors["gru.weight_hh_l0"][::16] = 1.0
    report = table.report_checkpoint(checkpoint(tensors), label="c.pt")
    assert "weights are too few, packing pays from" in report.inference["out"]
    gru = report.inference["gru"]
    assert gru.startswith("packed, density 0.05")
    assert re.search("1920 x 640 in blocks of .* on (cpu|torch_csr)", gru)
    notes = render.report_notes([report])
    assert notes[2:4] == [
        "c.pt: how its layers run on this machine (packed=auto):",
        f"  gru: {gru}",
    ]
    [shown] = render.report_json([report])["checkpoints"]
    assert shown["inference"] == report.inference


@pytest.mark.parametrize(
    "config, told",
    [
        ({"model": {"_name": "rnnprune_gru_lm"}}, "layers run on"),
        ({"model": {"_name": "lstm_lm"}}, "layers would run in a rnnprune_ model on"),
        ({"arch": "lstm_lm"}, "layers would run in a rnnprune_ model on"),
    ],
)
def test_of_other_models_it_says_what_would_be(config, told):
    report = table.report_checkpoint(replace(checkpoint(model()), config=config), label="c.pt")
    assert f"c.pt: how its {told} this machine (packed=auto):" in render.report_notes([report])


def test_what_runs_packed_of_tied_weights_is_the_output_layer():
    tied = torch.ones(40, 8)
    report = table.report_checkpoint(checkpoint({"a.weight": tied, "b.weight": tied}))
    assert list(report.inference) == ["b"]


def test_layers_of_other_kinds_stay_dense():
    lstm, rnn = torch.nn.LSTM(8, 8), torch.nn.RNN(8, 8)
    tensors = {
        f"{n}.{k}": w for n, m in (("l", lstm), ("r", rnn)) for k, w in m.state_dict().items()
    }
    inference = table.report_checkpoint(checkpoint(tensors)).inference
    assert inference["l"].startswith("stays dense, has 4 gates: only GRUs and clipped-ReLU RNNs")
    assert inference["r"].startswith("stays dense, has 1 gate: only GRUs")
    tensors |= {"r.norms.0.weight": torch.ones(8), "l.norms.0.weight": torch.ones(8)}
    inference = table.report_checkpoint(checkpoint(tensors)).inference
    assert "gate" not in inference["r"] and "has 4 gates" in inference["l"]


def test_table_with_blocks_and_notes():
    report = table.report_checkpoint(checkpoint(), block_shapes={"input": (2, 2)}, label="c.pt")
    shown = render.report_grid([report])
    assert shown.header[3:] == ["sparsity", "blocks", "kept", "dense", "packed"]
    ih = next(r for r in shown.rows if r[0] == "gru.weight_ih_l0")
    assert ih[3:6] == ["20.83 %", "16.67 %", "19"]
    origin, packing, *inference = render.report_notes([report])
    assert "run/c.pt, 93 updates" in origin and "input 2 x 2" in origin
    assert packing == "packed: float32 values in those blocks; dense where that is smaller"


def test_a_terminal_gets_the_same_cells(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("COLUMNS", "40")
    grid.print_grid(render.report_grid(two_reports()))
    text = sys.stdout.getvalue()
    for cell in ("large [1]", "small", "embed_tokens.weight", "gate z", "6x4 / 3x4", "whole model"):
        assert cell in text


def test_json_holds_every_figure():
    report = table.report_checkpoint(checkpoint(), block_shapes={"input": (2, 2)}, label="c")
    read = json.loads(json.dumps(render.report_json([report])))
    assert read["packed_dtype"] == "float32"
    (only,) = read["checkpoints"]
    assert (only["path"], only["label"], only["updates"]) == ("run/c.pt", "c", 93)
    assert only["block_shape"]["input"] == [2, 2]
    r = next(t for t in only["tensors"] if (t["type"], t["gate"]) == ("input", "r"))
    assert (r["shape"], r["kept"], r["sparsity"], r["block_sparsity"]) == ([2, 4], 4, 0.5, 0.5)
    assert only["totals"][-1]["elements"] == 113


@pytest.mark.parametrize(
    "number, text", [(0, "0 B"), (999, "999 B"), (1500, "1.50 kB"), (10**6, "1.00 MB")]
)
def test_sizes(number, text):
    assert grid.size(number) == text
