"""`rnnprune report` with its further tables, its page and its dictionaries, as a user meets it."""

import json
import re
import sys

import pytest
import torch
from cli_runs import run, save_dense, save_sparse

from fairseq_rnnprune.report import output


@pytest.fixture
def dense(tmp_path):
    return save_dense(tmp_path)


@pytest.fixture
def sparse(tmp_path):
    return save_sparse(tmp_path)


@pytest.fixture
def language(tmp_path):
    """A plain state dict: an embedding of 6 symbols, of which the fifth keeps one weight."""
    weight = torch.ones(6, 3)
    weight[4, 1:] = 0.0
    torch.save({"embed_tokens.weight": weight}, tmp_path / "language.pt")
    (tmp_path / "dict.txt").write_text("rare\x1b 3\noften 9\n")
    return tmp_path / "language.pt"


def test_the_default_output_stays_compact(capsys, dense, sparse):
    _, out, _ = run(capsys, "report", dense, sparse)
    assert "Units" not in out and "Overlap" not in out


def test_masks_that_cannot_be_compared_are_named(capsys, dense, language):
    _, out, _ = run(capsys, "report", dense, language, "--survivors")
    (line,) = re.findall(r"not in both of .*, or of other shapes: (.*)", out)
    assert "Overlap of masks" in out and "embed_tokens.weight" in line
    _, out, _ = run(capsys, "report", dense, dense, "--survivors")
    assert "not in both of" not in out


def test_survivors_are_printed(capsys, dense, sparse):
    status, out, err = run(capsys, "report", dense, sparse, "--survivors")
    assert (status, err) == (0, "")
    titles = ["Units", "Recurrent diagonals", "Kept weights per input", "Overlap of masks"]
    assert [line for line in out.splitlines() if line in titles] == titles
    # Gates of 4 x 4: r keeps columns 0 and 1, z rows 0 and 1, n nothing; W is dense. The dense
    # model's output layer reads its units, the other model has none.
    assert re.search(r"^gru.l0 +4 +0 +0 +0( +0){3} +0 +- +0( +0){3}$", out, re.M)
    assert re.search(r"^gru.l0 +z +4 +4 .* +2 +50.00 % +50.00 % +1.00$", out, re.M)
    assert re.search(r"^gru.weight_hh_l0 +recurrent +48 +16 +33.33 % +33.33 % +1.00", out, re.M)
    assert "1: dense, 2: sparse" in out
    assert "z = sigmoid(bias), always on" in out and "h (no gates)" not in out


def test_json_has_all_of_it(capsys, dense, sparse, tmp_path):
    page = tmp_path / "page.html"
    _, out, _ = run(capsys, "report", dense, sparse, sparse, "--json", "--html", page)
    read = json.loads(out)
    second = read["checkpoints"][1]
    (units,) = second["units"]
    assert (units["layer"], units["no_input"], units["no_output"]) == ("gru.l0", 0, None)
    assert units["diagonals"]["z"] == {
        "kept": 2,
        "share": 0.5,
        "density": 0.5,
        "times_density": 1.0,
    }
    # Columns 0 and 1 of U keep four weights of gate r, and all four keep two of gate z.
    (ih,) = second["inputs"]
    assert (ih["source"], ih["count"], ih["weights"], ih["pruned"]) == ("features", 4, 12, 0)
    assert len(ih["kept_by_each"]) == 4 and max(ih["kept_by_each"]) == ih["kept"]["highest"]
    labels = [c["label"] for c in read["checkpoints"]]
    assert [p["checkpoints"] for p in read["overlap"]] == [[labels[0], x] for x in labels[1:]]
    assert read["overlap"][0]["tensors"][0]["jaccard"] is not None
    assert (read["plots"], read["html"]) == ([], str(page))


@pytest.mark.parametrize("has_matplotlib", [True, False])
def test_a_page_is_one_file(capsys, sparse, tmp_path, monkeypatch, has_matplotlib):
    if not has_matplotlib:
        monkeypatch.setattr(output, "_has_matplotlib", lambda: False)
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    page = tmp_path / "new" / "report.html"
    status, out, err = run(capsys, "report", sparse, "--html", page)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"wrote {page}" and "png" not in out
    assert [p.name for p in page.parent.iterdir()] == ["report.html"]
    text = page.read_text("utf-8")
    images = text.count("data:image/png;base64,iVBOR")
    assert (images, text.count("<svg")) == ((5, 0) if has_matplotlib else (0, 2 + 3))


def test_a_page_and_plots_at_once(capsys, sparse, tmp_path):
    page = tmp_path / "report.html"
    _, out, _ = run(capsys, "report", sparse, "--html", page, "--plot", tmp_path / "plots")
    names = [f"{name}.png" for name in ("sparsity", "training", "inputs", "units", "masks")]
    assert out.splitlines()[-6:] == [f"wrote {tmp_path / 'plots' / n}" for n in names] + [
        f"wrote {page}"
    ]


def test_symbols_by_a_dictionary(capsys, language):
    _, out, _ = run(capsys, "report", language, "--survivors")
    assert "least kept: row 4 1, row 0 3" in out
    _, out, _ = run(
        capsys, "report", language, "--survivors", "--dict", language.parent / "dict.txt"
    )
    # A terminal must not obey what a file says.
    assert "least kept: rare\ufffd 1, <s> 3" in out
    assert re.search(r"^embed_tokens.weight +6 +3 +0 +1 +3 +3$", out, re.M)


def test_types_choose_the_tables(capsys, sparse):
    _, out, _ = run(capsys, "report", sparse, "--survivors", "--types", "input")
    assert "Kept weights per input" in out and "Units" not in out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--dict", "DICT"], "--dict: expected as many symbols as an embedding .* got 6 in .*txt"),
        (["--dict", "absent.txt"], "read_dictionary: expected a dict.txt of fairseq's, got absent"),
        (["--html", "FOLDER"], "--html: expected a new file or a page of HTML to replace"),
        (["--html", "CHECKPOINT"], "--html: expected a new file or a page of HTML to replace"),
    ],
)
def test_errors(capsys, sparse, language, tmp_path, arguments, message):
    files = {"DICT": tmp_path / "dict.txt", "FOLDER": tmp_path, "CHECKPOINT": sparse}
    status, out, err = run(capsys, "report", sparse, *(files.get(a, a) for a in arguments))
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert re.search(message, line), line
