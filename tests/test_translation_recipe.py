"""examples/translation/run.py: its data folder, its lengths and the mistakes of users."""

import dataclasses
import json
import shlex
import sys

import pytest
from example_scripts import EXAMPLES, load_script

import fairseq_rnnprune.recipe


@pytest.fixture
def parallel_text():
    return load_script("translation/parallel_text.py")


@pytest.fixture
def recipe(monkeypatch, parallel_text):
    monkeypatch.syspath_prepend(str(EXAMPLES / "translation"))
    monkeypatch.setitem(sys.modules, "parallel_text", parallel_text)
    return load_script("translation/run.py")


@pytest.fixture
def text(parallel_text, tmp_path):
    folder = tmp_path / "text"
    folder.mkdir()
    for path in parallel_text.text_files(folder):
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
    parallel_text, text, tmp_path, monkeypatch
):
    calls, work = [], tmp_path / "work"
    monkeypatch.setattr(parallel_text, "fairseq", fake_preprocess(calls, fails=True))
    with pytest.raises(KeyboardInterrupt):
        parallel_text.preprocess(text, work)
    monkeypatch.setattr(parallel_text, "fairseq", fake_preprocess(calls))
    for _ in range(2):
        assert parallel_text.preprocess(text, work) == work / "data"
    assert calls == ["preprocess"] * 2
    assert (work / "pieces" / "test.de").read_text().startswith("\u2581")


def test_lines_are_those_of_the_file(parallel_text, tmp_path):
    # str.splitlines would find five.
    path = tmp_path / "text"
    path.write_text("a\u2028b\nc\x85d\ne\n", encoding="utf-8")
    assert parallel_text.read_lines(path) == ["a\u2028b", "c\x85d", "e"]


@pytest.mark.parametrize("what", ["text", "pieces", "no stamp"])
def test_work_of_another_text_is_refused(parallel_text, text, tmp_path, monkeypatch, what):
    work = tmp_path / "work"
    monkeypatch.setattr(parallel_text, "fairseq", fake_preprocess([]))
    parallel_text.preprocess(text, work)
    if what == "text":
        (text / "test2016.de").write_text("another\n")
    elif what == "pieces":
        parallel_text.PIECES += 1
    else:
        (work / "made_from.json").unlink()
    wrong = "text and pieces" if what == "no stamp" else what
    message = f"expected the {wrong} that .*work was made from, got others; name a new --work"
    with pytest.raises(SystemExit, match=message):
        parallel_text.preprocess(text, work)


def test_a_missing_text_is_one_line(recipe, text, tmp_path, monkeypatch, capsys):
    (text / "valid.de").unlink()
    (text / "test2016.en").unlink()
    fail(recipe, monkeypatch, "dense", "--text", text, "--work", tmp_path / "work")
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"--text: expected the file {text / 'valid.de'}, got none" in message
    assert not (tmp_path / "work").exists()


def test_pieces_alone_are_those_that_a_run_has(parallel_text, text, tmp_path, monkeypatch):
    work = tmp_path / "by-hand"
    arguments = ["parallel_text.py", "--text", str(text), "--work", str(work)]
    monkeypatch.setattr(sys, "argv", arguments)
    parallel_text.main()
    assert (work / "spm.model").is_file()
    monkeypatch.setattr(parallel_text, "fairseq", fake_preprocess([]))
    parallel_text.preprocess(text, tmp_path / "work")
    names = sorted(path.name for path in (work / "pieces").iterdir())
    assert names == sorted(
        f"{split}.{language}" for split in parallel_text.SPLITS for language in ("de", "en")
    )
    for name in names:
        found = (work / "pieces" / name).read_text(encoding="utf-8")
        assert found == (tmp_path / "work" / "pieces" / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("run", ["ramp-90", "cubic-90-distilled"])
def test_what_needs_the_dense_run_says_so(recipe, text, tmp_path, monkeypatch, capsys, run):
    work = tmp_path / "work"
    fail(recipe, monkeypatch, run, "--text", text, "--work", work, "--seed", "7")
    message = capsys.readouterr().err.splitlines()[-1]
    assert f"{run}: expected the dense model" in message
    assert message.endswith("got none; run dense with --seed 7 first")


def test_a_run_from_a_dense_one_needs_that(recipe, text, tmp_path, monkeypatch, capsys):
    run = "cubic-90-embedding-from-dense-batch-32"
    fail(recipe, monkeypatch, run, "--text", text, "--work", tmp_path / "work")
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("got none; run dense-batch-32 with --seed 1 first")


@pytest.mark.parametrize(
    "lines, lengths",
    [
        (
            29_000,
            "--max-epoch 15 --max-update 6810 --warmup-updates 400 --prune-freq 50",
        ),
        (64, "--max-epoch 15 --max-update 15 --warmup-updates 1 --prune-freq 1"),
        (65, "--max-epoch 15 --max-update 30 --warmup-updates 3 --prune-freq 1"),
    ],
)
def test_lengths_follow_the_number_of_sentences(recipe, lines, lengths):
    wanted = shlex.split(f"--batch-size 64 {lengths}")
    assert recipe.lengths("cubic-90", lines) == wanted
    assert recipe.lengths("dense", lines) == wanted[:8]


def test_a_long_run_has_twice_the_epochs(recipe):
    wanted = "--batch-size 64 --max-epoch 30 --max-update 60 --warmup-updates 6"
    assert recipe.lengths("dense-long", 65) == shlex.split(wanted)


def test_half_the_batch_has_twice_the_updates(recipe):
    wanted = "--batch-size 32 --max-epoch 15 --max-update 45 --warmup-updates 4"
    assert recipe.lengths("dense-batch-32", 65) == shlex.split(wanted)


def test_distilled_text_is_the_teachers_in_the_order_of_the_lines(
    parallel_text, tmp_path, monkeypatch
):
    work, calls = tmp_path / "work", []
    teacher = work / "dense-s1" / "checkpoint_last.pt"
    teacher.parent.mkdir(parents=True)
    teacher.write_bytes(b"a model")
    (work / "pieces").mkdir()
    (work / "pieces" / "train.en").write_text("a b\nc\nd\n")

    def fairseq(command, *arguments):
        calls.append([command, *map(str, arguments)])
        if command == "preprocess":
            return fake_preprocess([])(command, *arguments)
        return "D-2\t-1\tz\nD-0\t-1\tx y\nD-1\t-1\t\n"

    monkeypatch.setattr(parallel_text, "fairseq", fairseq)
    data = parallel_text.distil(work, teacher)
    made = work / "distilled-by-dense-s1"
    assert data == made / "data"
    assert (made / "pieces" / "train.de").read_text() == "x y\n\nz\n"
    assert (made / "pieces" / "train.en").read_text() == "a b\nc\nd\n"
    generate, preprocess = calls
    assert "--gen-subset train" in " ".join(generate) and "sentencepiece" not in generate
    # The other splits and the dictionary are those of the original.
    found = dict(zip(preprocess, preprocess[1:], strict=False))
    assert found["--trainpref"] == str(made / "pieces" / "train")
    assert found["--testpref"] == str(work / "pieces" / "test")
    assert found["--srcdict"] == str(work / "data" / "dict.en.txt")
    assert parallel_text.distil(work, teacher) == data and len(calls) == 2
    teacher.write_bytes(b"trained on")
    with pytest.raises(SystemExit, match="expected the teacher that .* was made from, got others"):
        parallel_text.distil(work, teacher)


def test_a_distilled_run_is_trained_on_the_teachers_text(recipe, text, tmp_path, monkeypatch):
    work = tmp_path / "work"
    teacher = work / "dense-s3" / "checkpoint_last.pt"
    teacher.parent.mkdir(parents=True)
    teacher.touch()
    monkeypatch.setattr(recipe, "preprocess", lambda text, work: work / "data")
    monkeypatch.setattr(recipe, "distil", lambda work, teacher: (work, teacher))

    def train(command, data, *options, log):
        assert (command, data) == ("train", (work, teacher))
        raise KeyboardInterrupt

    monkeypatch.setattr(fairseq_rnnprune.recipe, "fairseq", train)
    arguments = ["cubic-90-distilled", "--text", text, "--work", work, "--seed", "3"]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, arguments)])
    with pytest.raises(KeyboardInterrupt):
        recipe.main()


def test_a_run_records_sparsity_and_the_bleu_of_every_packing(
    recipe, parallel_text, text, tmp_path, monkeypatch
):
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

    for module in (parallel_text, fairseq_rnnprune.recipe):
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
