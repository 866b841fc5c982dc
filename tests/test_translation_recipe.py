"""examples/translation/run.py: its data folder, its lengths and the mistakes of users."""

import dataclasses
import json
import shlex
import sys

import pytest
from example_scripts import load_script

import fairseq_rnnprune.recipe


@pytest.fixture
def recipe():
    return load_script("translation/run.py")


@pytest.fixture
def text(recipe, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for path in recipe.text_files(folder):
        path.write_text("a bird is near the old house\nthe cat eats fish\n" * 3)
    return folder


def fail(recipe, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        recipe.main()
    assert stopped.value.code == 2


def fake_preprocess(calls, fails=False):
    """fairseq-preprocess, which refuses a folder that exists."""

    def fairseq(command, *arguments):
        calls.append(command)
        data = arguments[arguments.index("--destdir") + 1]
        data.mkdir()
        if fails:
            raise KeyboardInterrupt
        (data / "test.en-de.de.idx").touch()

    return fairseq


def test_an_interrupted_preprocess_is_made_again_and_a_finished_one_kept(
    recipe, text, tmp_path, monkeypatch
):
    calls, work = [], tmp_path / "work"
    monkeypatch.setattr(recipe, "fairseq", fake_preprocess(calls, fails=True))
    with pytest.raises(KeyboardInterrupt):
        recipe.preprocess(text, work)
    monkeypatch.setattr(recipe, "fairseq", fake_preprocess(calls))
    assert recipe.preprocess(text, work) == recipe.preprocess(text, work) == work / "data"
    assert calls == ["preprocess"] * 2
    assert (work / "pieces" / "test.de").read_text().startswith("\u2581")


def test_lines_are_those_of_the_file(recipe, tmp_path):
    # str.splitlines would find five.
    path = tmp_path / "text"
    path.write_text("a\u2028b\nc\x85d\ne\n", encoding="utf-8")
    assert recipe.read_lines(path) == ["a\u2028b", "c\x85d", "e"]


@pytest.mark.parametrize("what", ["text", "pieces", "no stamp"])
def test_work_of_another_text_is_refused(recipe, text, tmp_path, monkeypatch, what):
    work = tmp_path / "work"
    monkeypatch.setattr(recipe, "fairseq", fake_preprocess([]))
    recipe.preprocess(text, work)
    if what == "text":
        (text / "test2016.de").write_text("another\n")
    elif what == "pieces":
        recipe.PIECES += 1
    else:
        (work / "made_from.json").unlink()
    wrong = "text and pieces" if what == "no stamp" else what
    message = f"expected the {wrong} that .*work was made from, got others; name a new --work"
    with pytest.raises(SystemExit, match=message):
        recipe.preprocess(text, work)


def test_a_missing_text_is_one_line(recipe, text, tmp_path, monkeypatch, capsys):
    (text / "valid.de").unlink()
    (text / "test2016.en").unlink()
    fail(recipe, monkeypatch, "dense", "--text", text, "--work", tmp_path / "work")
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"--text: expected the file {text / 'valid.de'}, got none" in message
    assert not (tmp_path / "work").exists()


def test_a_ramp_needs_the_dense_run(recipe, text, tmp_path, monkeypatch, capsys):
    work = tmp_path / "work"
    fail(recipe, monkeypatch, "ramp-90", "--text", text, "--work", work, "--seed", "7")
    message = capsys.readouterr().err.splitlines()[-1]
    assert "ramp-90: expected the dense model" in message
    assert message.endswith("got none; run dense with --seed 7 first")


@pytest.mark.parametrize(
    "lines, lengths",
    [
        (29_000, "--max-update 6810 --warmup-updates 400 --prune-freq 50"),
        (64, "--max-update 15 --warmup-updates 1 --prune-freq 1"),
        (65, "--max-update 30 --warmup-updates 3 --prune-freq 1"),
    ],
)
def test_lengths_follow_the_number_of_sentences(recipe, lines, lengths):
    assert recipe.lengths(lines, True) == shlex.split(lengths)
    assert recipe.lengths(lines, False) == shlex.split(lengths)[:4]


def test_a_run_records_sparsity_and_the_bleu_of_every_packing(recipe, text, tmp_path, monkeypatch):
    row = {"epoch": 15, "train_train_wall": "9", "train_sparsity": "0.8", "train_ppl": "8.5"}
    row |= {"train_sparsity_recurrent": "0.85", "train_sparsity_input": "0.75"}
    right = (text / "test2016.de").read_text().splitlines()

    def fairseq(command, *arguments, log=None):
        if command == "preprocess":
            return fake_preprocess([])(command, *arguments)
        if command == "train":
            return log.write_text(f"x | INFO | train | {json.dumps(row)}\n")
        lines = ["a house"] * len(right) if "int8" in arguments[-1] else right
        return "".join(f"D-{i}\t-0.1\t{line}\n" for i, line in enumerate(lines))

    for module in (recipe, fairseq_rnnprune.recipe):
        monkeypatch.setattr(module, "fairseq", fairseq)
    monkeypatch.setattr(recipe, "count_parameters", lambda checkpoint: {})
    script = tmp_path / "translation" / "run.py"
    monkeypatch.setattr(recipe, "RECIPE", dataclasses.replace(recipe.RECIPE, script=script))
    arguments = ["cubic-80", "--text", text, "--work", tmp_path / "work"]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
    recipe.main()
    result = json.loads((script.parent / "results" / "cubic-80-s1.json").read_text())
    figures = result["figures"]
    assert (result["packed"], figures["test_bleu"]) == ("fp32", 100)
    assert figures["same_text_packed"] is True
    bleu = figures["bleu_by_packed"]
    assert list(bleu) == ["fp32", "dense", "bf16", "int8"] and bleu["int8"] < 50
    assert (figures["sparsity"], figures["training_perplexity"]) == (0.8, 8.5)
    assert figures["sparsity_by_type"] == {"recurrent": 0.85, "input": 0.75}
    assert "--max-update 15 " in result["fairseq_train"]
    command = "python examples/translation/run.py cubic-80 --seed 1 --text TEXT --work W"
    assert result["command"] == command


def test_a_dense_run_has_no_sparsity(recipe, tmp_path):
    log = tmp_path / "train.log"
    log.write_text('x | INFO | train | {"epoch": 1, "train_train_wall": "9"}\n')
    assert recipe.final_sparsity(log) == {"sparsity": 0, "sparsity_by_type": {}}
