"""`rnnprune export`: the file stands in for its checkpoint, and damaged ones are refused."""

import argparse
import json
import os

import pytest
import torch
from cli_runs import run, save_sparse
from fairseq import checkpoint_utils
from fairseq_runs import PRUNED, run_eval_lm, run_generate, run_train, train_arguments, train_with
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.nn.functional import one_hot

from fairseq_rnnprune.checkpoint import (
    matrices,
    read_checkpoint,
    read_packed_file,
    write_packed_file,
)
from fairseq_rnnprune.checkpoint.matrices import from_arrays, to_arrays
from fairseq_rnnprune.checkpoint.tree import from_json, to_json
from fairseq_rnnprune.models.gru_lm import GRULanguageModel
from fairseq_rnnprune.sparse import BlockSparseMatrix

VALUES = ("fp32", "bf16", "int16", "int8")


@pytest.fixture(scope="module")
def checkpoint(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pruned")
    run_train(data, folder, *PRUNED, "--prune-block-shape", "4,4")
    return folder / "checkpoint_last.pt"


@pytest.fixture
def exported(checkpoint, tmp_path, capsys):
    def export(values):
        path = tmp_path / f"{values}.safetensors"
        status, out, err = run(capsys, "export", checkpoint, path, "--values", values)
        assert (status, err) == (0, "")
        assert f"{path.stat().st_size:,}" in out and f"{checkpoint.stat().st_size:,}" in out
        return path

    return export


def weights(mask):
    """A state dict whose matrices have this mask, or part of it, and two names for one of them."""
    rows, columns = mask.shape
    gates = torch.randn(3 * columns, columns) * (torch.rand(3 * columns, columns) < 0.2)
    linear = torch.randn(rows, columns) * mask
    return {
        "gru.weight_ih_l0": torch.randn(3 * columns, rows) * mask.t().repeat(3, 1),
        "gru.weight_hh_l0": gates,
        "gru.bias_ih_l0": torch.randn(3 * columns),
        "embed.weight": linear,
        "out.weight": linear,
        "conv.weight": torch.randn(2, 3, 4),
        "steps": torch.tensor(7),
    }


@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_weights_come_back(rows, columns, density, seed):
    torch.manual_seed(seed)
    model = weights(torch.rand(rows, columns) < density)
    for dtype in (torch.float32, torch.bfloat16, torch.int16, torch.int8):
        back = from_arrays(*to_arrays(model, dtype))
        assert list(back) == list(model)
        assert back["embed.weight"] is back["out.weight"]
        for name, tensor in model.items():
            if dtype == torch.float32 or not name.endswith(("l0", "out.weight", "embed.weight")):
                assert torch.equal(back[name], tensor) and back[name].dtype == tensor.dtype
            elif "bias" in name:
                assert torch.equal(back[name], tensor)
            elif dtype == torch.bfloat16:
                assert torch.equal(back[name], tensor.bfloat16().float())
            else:
                half_a_level = tensor.abs().amax(1, keepdim=True) / 127 / 2
                assert ((back[name] - tensor).abs() <= half_a_level * 1.0001).all()
                assert (back[name][tensor == 0] == 0).all()


def test_a_second_export_of_eight_bits_changes_nothing():
    model = {"out.weight": torch.randn(40, 24) * (torch.rand(40, 24) < 0.2)}
    once = from_arrays(*to_arrays(model, torch.int8))
    twice = from_arrays(*to_arrays(once, torch.int8))
    torch.testing.assert_close(once, twice, rtol=1e-6, atol=0)


def test_the_form_of_fewest_bytes_is_taken():
    def packed(weight, dtype=torch.float32):
        arrays, layout = to_arrays({"rnn.weight_hh_l0": weight, "x.weight": weight}, dtype)
        how = layout["packed"].get("rnn.weight_hh_l0")
        return how and how["block_shape"], sorted(name.rpartition("/")[2] for name in arrays)

    scattered = torch.randn(64, 64) * (torch.rand(64, 64) < 0.1)
    blocks = (
        torch.randn(64, 64)
        * (torch.rand(16, 16) < 0.1).repeat_interleave(4, 0)[:, torch.arange(64) // 4]
    )
    assert packed(scattered)[0] == [1, 1]
    assert packed(blocks)[0] == [4, 4]
    assert packed(torch.randn(64, 64)) == (None, ["rnn.weight_hh_l0"])
    assert packed(torch.randn(64, 64), torch.int8)[0] is not None
    with_diagonal = blocks * (1 - torch.eye(64)) + torch.eye(64)
    assert "diagonal" in packed(with_diagonal)[1]
    arrays, _ = to_arrays({"x.weight": one_hot(torch.arange(64)).half()}, torch.float32)
    assert arrays["x.weight/values"].dtype == torch.float16


@given(
    seed=st.integers(0, 99),
    gates=st.sampled_from([1, 3]),
    rows=st.integers(1, 30),
    c=st.integers(1, 30),
)
def test_bytes_are_known_before_packing(seed, gates, rows, c):
    torch.manual_seed(seed)
    weight = torch.randn(gates * rows, c) * (torch.rand(gates * rows, c) < 0.3)
    for dtype in (torch.float32, torch.bfloat16, torch.int16, torch.int8):
        for shape in matrices.BLOCK_SHAPES:
            for diagonal in [False, True] if rows == c else [False]:
                if shape[0] <= rows and shape[1] <= c:
                    # Ones, because int8 drops blocks of weights that are small.
                    how = (weight.ne(0).float(), shape, dtype, gates, diagonal)
                    expected = BlockSparseMatrix.from_dense(*how).nbytes
                    assert matrices._bytes(weight, shape, diagonal, dtype, gates) == expected


def test_views_of_one_storage_are_written(tmp_path):
    storage = torch.randn(2, 8, 8)
    model = {"a.weight": storage[0], "b.weight": storage[1].t(), "a.bias": storage[0, 0]}
    write_packed_file(tmp_path / "m", {"cfg": {"a": 1}}, model)
    back = read_packed_file(tmp_path / "m")["model"]
    assert all(torch.equal(back[name], tensor) for name, tensor in model.items())


def test_plain_values_come_back():
    tensors = {}
    value = {
        "model": argparse.Namespace(arch="x", lr=[0.1, 1e-4], betas=(0.9, 0.98), none=None),
        "units": {"symbols": ["a", "ä"], "piece": torch.arange(3, dtype=torch.uint8), "on": True},
    }
    back = from_json(json.loads(json.dumps(to_json(value, tensors, "s"))), tensors)
    assert vars(back["model"]) == {
        "arch": "x",
        "lr": [0.1, 1e-4],
        "betas": [0.9, 0.98],
        "none": None,
    }
    assert list(tensors) == ["s/units/piece"] and back["units"]["piece"].tolist() == [0, 1, 2]
    assert back["units"]["symbols"] == ["a", "ä"] and back["units"]["on"] is True
    for bad in (object(), {1: 2}, {"@": 1}, b"bytes"):
        with pytest.raises(
            ValueError, match="plain values and tensors in the checkpoint's s/x, got"
        ):
            to_json({"x": bad}, {}, "s")


@pytest.mark.parametrize("values", VALUES)
def test_fairseq_runs_it_as_the_checkpoint(data, checkpoint, exported, capsys, values):
    path = exported(values)
    perplexity = run_eval_lm(data, checkpoint, "--batch-size", "4")
    tolerance = {"fp32": 0, "bf16": 5e-3, "int16": 1e-3, "int8": 2e-2}[values]
    assert run_eval_lm(data, path, "--batch-size", "4") == pytest.approx(perplexity, rel=tolerance)
    if values != "fp32":
        return
    texts = []
    for model in (checkpoint, path):
        overrides = ("--model-overrides", "{'packed': 'fp32'}")
        run_generate(data, model, "--batch-size", "4", "--beam", "2", *overrides)
        texts.append([x for x in capsys.readouterr().out.splitlines() if x[:2] in ("H-", "D-")])
    assert texts[0] and texts[0] == texts[1]
    hub = GRULanguageModel.from_pretrained(str(path.parent), path.name, str(data), packed="bf16")
    assert hub.cfg.model.packed == "bf16"
    assert hub.sample(["the cat"], beam=1, max_len_b=4)[0].startswith("the cat")


def test_options_of_an_old_checkpoint_are_overridden(tmp_path):
    args = argparse.Namespace(task="language_modeling", arch="rnnprune_gru_lm", data="old")
    write_packed_file(tmp_path / "m", {"args": args}, {"out.weight": torch.eye(8)})
    state = checkpoint_utils.load_checkpoint_to_cpu(str(tmp_path / "m"), {"data": "new"})
    assert (state["args"] or state["cfg"].task).data == "new"


def test_reports_say_the_same_and_the_file_is_small(checkpoint, exported, capsys):
    path = exported("fp32")
    reports = []
    for model in (checkpoint, path):
        status, out, _ = run(capsys, "report", model, "--json")
        (report,) = json.loads(out)["checkpoints"]
        reports.append({k: v for k, v in report.items() if k not in ("path", "label", "log")})
    assert reports[0] == reports[1]
    size = f"a file of rnnprune export, {path.stat().st_size:,} bytes; the table counts"
    assert size in run(capsys, "report", path)[1]
    assert reports[1]["block_shape"]["recurrent"] == [4, 4]
    before, after = read_checkpoint(checkpoint), read_checkpoint(path)
    assert (before.updates, before.config["model"]) == (after.updates, after.config["model"])
    assert path.stat().st_size < checkpoint.stat().st_size / 3
    large = {"out.weight": torch.randn(400, 400) * (torch.rand(400, 400) < 0.1)}
    arrays = [to_arrays(large, dtype)[0] for dtype in (torch.float32, torch.bfloat16, torch.int8)]
    sizes = [sum(a.nbytes for a in kinds.values()) for kinds in arrays]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] < 160_000 * 4 / 6


def test_training_goes_on_from_it(data, exported, tmp_path):
    path = exported("fp32")
    more = ("--finetune-from-model", str(path), "--max-update", "3", "--prune-freq", "1")
    train_with(train_arguments(data, tmp_path / "tuned", *PRUNED, "--prune-end", "3", *more))
    tuned = read_checkpoint(tmp_path / "tuned" / "checkpoint_last.pt").model
    for name, weight in read_checkpoint(path).model.items():
        if name.endswith("weight_hh_l0"):
            assert (tuned[name][weight == 0] == 0).all() and not torch.equal(tuned[name], weight)


def damaged(exported, tmp_path, how):
    path, broken = exported("fp32"), tmp_path / "broken.safetensors"
    if how == "truncated":
        broken.write_bytes(path.read_bytes()[:-100])
    elif how == "other":
        save_file({"w": torch.ones(2)}, broken)
    else:
        arrays = load_file(path)
        name = next(name for name in arrays if name.endswith("/columns"))
        if how == "column":
            arrays[name] = torch.full(arrays[name].shape, 60_000, dtype=torch.uint16)
        else:
            del arrays[name]
        with safe_open(path, "pt") as file:
            save_file(arrays, broken, file.metadata())
    return broken


@pytest.mark.parametrize("how", ["truncated", "other", "column", "missing"])
def test_damaged_files_are_one_clear_line(data, exported, tmp_path, capsys, how):
    path = damaged(exported, tmp_path, how)
    status, out, err = run(capsys, "report", path)
    assert (status, out) == (2, "")
    assert err.startswith("rnnprune: error: read_packed_file: expected a whole packed file, got")
    assert err.count("\n") == 1 and str(path) in err
    with pytest.raises(ValueError, match="expected a whole packed file"):
        run_eval_lm(data, path)


def test_bad_requests_leave_everything_as_it_was(checkpoint, tmp_path, capsys, monkeypatch):
    before = checkpoint.read_bytes()
    # Two checkpoints, as a glob may give them.
    other = tmp_path / "checkpoint_best.pt"
    other.write_bytes(before)
    # Of some other program.
    foreign = tmp_path / "foreign.safetensors"
    save_file({"w": torch.ones(2)}, foreign, {"format": "pt"})
    theirs = foreign.read_bytes()
    cases = [
        ([checkpoint, checkpoint], "expected a new file or an exported one to replace"),
        ([checkpoint, tmp_path], "expected a new file or an exported one to replace"),
        ([checkpoint, other], "expected a new file or an exported one to replace"),
        ([checkpoint, foreign], "expected a new file or an exported one to replace"),
        ([checkpoint, "/dev/null"], "expected a new file or an exported one to replace"),
        ([checkpoint, tmp_path / "no" / "m"], "expected a folder to write m into, got"),
        ([tmp_path / "absent.pt", tmp_path / "m"], "expected a checkpoint file, got none"),
        ([save_sparse(tmp_path), tmp_path / "m"], "with the options of its model, got"),
        ([checkpoint, tmp_path / "m", "--values", "fp8"], "invalid choice: 'fp8'"),
        ([checkpoint, tmp_path / os.fsdecode(b"b\xff")], "expected a path in UTF-8"),
    ]
    for arguments, message in cases:
        status, out, err = run(capsys, "export", *arguments)
        assert (status, out) == (2, "") and message in err and err.count("\n") == 1
    assert checkpoint.read_bytes() == before and not (tmp_path / "m").exists()
    assert foreign.read_bytes() == theirs
    # A disk that is full must not cost the file that was there.
    target = tmp_path / "m"
    assert run(capsys, "export", checkpoint, target, "--values", "int8")[0] == 0
    old = target.read_bytes()

    for kind in (OSError, SafetensorError):

        def fails(*_, kind=kind):
            raise kind("No space left on device")

        monkeypatch.setattr("fairseq_rnnprune.checkpoint.packed_file.save_file", fails)
        status, _, err = run(capsys, "export", checkpoint, target)
        assert status == 2 and "No space left" in err and err.count("\n") == 1
        assert target.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".m")] == []


def test_the_file_is_readable_as_any_other(checkpoint, exported, tmp_path):
    umask = os.umask(0o022)
    try:
        assert exported("fp32").stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(umask)


def test_writing_needs_no_fairseq_objects(tmp_path):
    model = {"out.weight": torch.eye(8)}
    write_packed_file(tmp_path / "m", {"cfg": {"a": 1}}, model)
    state = read_packed_file(tmp_path / "m")
    assert state["cfg"] == {"a": 1} and torch.equal(state["model"]["out.weight"], torch.eye(8))
    assert state["optimizer_history"][-1]["num_updates"] == 0
