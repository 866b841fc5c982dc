"""Training logs of every kind, and the figures of `rnnprune report --plot`."""

import math
import sys

import pytest
import torch
from report_samples import checkpoint, two_reports

from fairseq_rnnprune.report import plot, plot_survivors, table, trainlog
from fairseq_rnnprune.report.survivors import find_survivors

LOG = """\
| model rnnprune_gru_lm
{"epoch": 1, "loss": "9.1", "num_updates": "5", "sparsity": "0.1", "threshold_input": "nan"}
2026-01-01 10:00:00 | INFO | train_inner | {"num_updates": 10, "sparsity": 0.4, \
"sparsity_input": "0.5", "threshold_input": "0.02"}
{"epoch": 1, "train_num_updates": "12", "train_sparsity": "0.6", "train_sparsity_input": "0.7"}
{"epoch": 1, "valid_num_updates": "13", "valid_loss": "5.0", "sparsity": "1"}
{"num_updates": "10", "sparsity": "0.45"}
{"num_updates": "14", "sparsi
"""


def write_log(path, text=LOG):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_train_log_lines_of_every_kind(tmp_path):
    log = trainlog.read_train_log(write_log(tmp_path / "train.log"))
    assert log.curves == {
        "sparsity": {5: 0.1, 10: 0.45, 12: 0.6},
        "sparsity_input": {10: 0.5, 12: 0.7},
        "threshold_input": {10: 0.02},
    }
    assert log.by_type("threshold") == {"input": {10: 0.02}}


def test_logs_that_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected a training log, got .*No such file"):
        trainlog.read_train_log(tmp_path / "absent.log")
    dense = write_log(tmp_path / "dense.log", '{"num_updates": "5", "loss": "3"}\n[1]\n')
    with pytest.raises(ValueError, match="dense.log without a line on sparsity; train with"):
        trainlog.read_train_log(dense)


def test_finding_the_log_of_a_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "run" / "c.pt"
    assert trainlog.find_train_log(checkpoint(path=path)) is None
    beside = write_log(tmp_path / "run" / "train.log")
    assert trainlog.find_train_log(checkpoint(path=path)) == beside
    named = write_log(tmp_path / "logs" / "a.log")
    config = {"common": {"log_file": str(named)}}
    assert trainlog.find_train_log(checkpoint(path=path, config=config)) == named
    # Relative to where it was trained, which is not here.
    config = {"common": {"log_file": "plot.py"}}
    monkeypatch.chdir(write_log(tmp_path / "plot.py").parent)
    assert trainlog.find_train_log(checkpoint(path=path, config=config)) == beside


def figure_of(monkeypatch, module=plot):
    """Keeps the last figure that a module saves, to look into it."""
    kept = {}
    save = module.save

    def keep(figure, path):
        kept[path.name] = figure
        return save(figure, path)

    monkeypatch.setattr(module, "save", keep)
    return kept


def test_sparsity_plot_shows_every_gate(tmp_path, monkeypatch):
    figures = figure_of(monkeypatch)
    path = plot.plot_sparsity(two_reports(), tmp_path / "new")
    assert path == tmp_path / "new" / "sparsity.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    large, small = figures["sparsity.png"].axes
    assert large.get_title() == "large [1]: 98 of 113 kept"
    widths = [round(float(bar.get_width()), 2) for bar in large.patches[:8]]
    assert widths == [0, 50, 12.5, 0, 0, 100, 100, 9.09]
    assert len(small.patches) == 6
    labels = [label.get_text() for label in large.get_yticklabels()]
    assert labels == ["embed_tokens", "gru.weight_ih_l0", "gru.weight_hh_l0", "out"]
    assert "%" in large.get_xlabel()
    (legend,) = figures["sparsity.png"].legends
    titles = [text.get_text() for text in legend.get_texts()]
    assert titles == ["reset gate r", "update gate z", "new state n", "no gates"]


def test_training_plot_shows_both_quantities(tmp_path, monkeypatch):
    figures = figure_of(monkeypatch)
    log = trainlog.read_train_log(write_log(tmp_path / "train.log"))
    path = plot.plot_training([log, log], ["a", "b"], tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
    sparsity, _, threshold, _ = figures["training.png"].axes
    lines = {line.get_label(): line for line in sparsity.lines}
    assert list(lines["all types"].get_xdata()) == [5, 10, 12]
    assert all(map(math.isclose, lines["all types"].get_ydata(), [10, 45, 60]))
    assert list(threshold.lines[0].get_ydata()) == [0.02]
    assert threshold.get_xlabel() == "update"
    texts = [text.get_text() for text in figures["training.png"].legends[0].get_texts()]
    assert texts == ["input", "all types"]


def test_survivor_plots(tmp_path, monkeypatch):
    figures = figure_of(monkeypatch, plot_survivors)
    small = {"gru.weight_hh_l0": torch.ones(3, 1), "gru.weight_ih_l0": torch.ones(3, 4)}
    found = [
        find_survivors(checkpoint(), label="large"),
        find_survivors(checkpoint(small), label="small"),
    ]
    paths = plot_survivors.plot_survivors(found, tmp_path)
    assert [p.name for p in paths] == ["inputs.png", "units.png", "masks.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)
    (units,) = figures["units.png"].axes
    # Kept weights of unit 0: 2 + 3 + 4 of W and 2 of U, of 18; of the small model's: 15 of 15.
    assert units.get_title() == "gru.l0" and units.get_xlim() == (0, 100)
    masks = [axis for axis in figures["masks.png"].axes if axis.images]
    assert [axis.get_title() for axis in masks[:3]] == [
        f"large\n{gate}" for gate in ("reset gate r", "update gate z", "new state n")
    ]
    assert masks[0].images[0].get_array().tolist() == [[1, 1], [1, 1]]
    assert masks[1].images[0].get_array().tolist() == [[0, 0], [0, 0]]
    assert masks[1].get_xlabel() == "density 0.000"


def test_formulas_in_names_are_text(tmp_path, monkeypatch):
    figures = figure_of(monkeypatch, plot_survivors)
    tensors = {r"$\frac$.weight_hh_l0": torch.ones(3, 1), r"$\frac$.weight_ih_l0": torch.ones(3, 4)}
    plot_survivors.plot_survivors([find_survivors(checkpoint(tensors), label="$_$")], tmp_path)
    assert figures["units.png"].axes[0].get_title() == r"\$\frac\$.l0"
    plot.plot_sparsity([table.report_checkpoint(checkpoint(tensors), label="$_$")], tmp_path)


def test_a_label_that_is_not_utf8_is_drawn(tmp_path, monkeypatch):
    figures = figure_of(monkeypatch)
    plot.plot_sparsity([table.report_checkpoint(checkpoint(), label="b\udcff")], tmp_path)
    assert figures["sparsity.png"].axes[0].get_title().startswith("b\ufffd: ")


def test_no_plots_without_recurrent_weights_and_inputs(tmp_path):
    only = find_survivors(checkpoint({"embed.weight": torch.ones(4, 2)}))
    assert plot_survivors.plot_survivors([only], tmp_path) == []


def test_plots_need_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ValueError, match="expected matplotlib, got none installed; pip install"):
        plot.plot_sparsity(two_reports(), tmp_path)
