"""The scripts of the AN4 recipe: fetching, on an archive in the form of the real one; options."""

import argparse
import ast
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import soundfile
from example_scripts import load_script
from speech_corpus import RATE, make_corpus, tone

from fairseq_rnnprune.experiment import CommandFailed
from fairseq_rnnprune.speech.manifest import read_manifest

RECIPE = Path(__file__).parent.parent / "examples" / "speech"
SCRIPT = RECIPE / "an4.py"
RESULTS = sorted((RECIPE / "results").rglob("*-s*.json"))
AN4_UTTERANCES = 847


def make_archive(folder):
    root = folder / "an4-b567d13"
    (root / "etc").mkdir(parents=True)
    for split, speakers in (("train", 10), ("test", 2)):
        files, lines = [], []
        for number in range(speakers):
            name = f"an{number}-{split}{number}-b"
            file = f"an4_clstk/{split}{number}/{name}"
            path = root / "wav" / f"{file}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, tone(4000 + number), RATE)
            files.append(file)
            # The two forms of the real lists.
            lines.append(f"<s> GO ON </s> ({name})" if split == "train" else f"GO ON ({name})")
        (root / "etc" / f"an4_{split}.fileids").write_text("\n".join(files) + "\n")
        (root / "etc" / f"an4_{split}.transcription").write_text("\n".join(lines) + "\n")
    archive = folder / "an4.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root, arcname=root.name)
    return archive


def test_manifests_of_three_splits_without_common_speakers(tmp_path):
    archive = make_archive(tmp_path)
    command = [sys.executable, SCRIPT, tmp_path / "an4", "--url", archive.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    splits = {s: read_manifest(tmp_path / "an4" / f"{s}.tsv") for s in ("train", "valid", "test")}
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 2,
        "valid": 8,
        "test": 2,
    }
    speakers = [{u.speaker for u in rows} for rows in splits.values()]
    assert len(set.union(*speakers)) == 12 and all(speakers)
    for rows in splits.values():
        for u in rows:
            assert u.text == "GO ON" and soundfile.info(u.path).frames == u.samples


def test_an_archive_with_files_elsewhere_is_refused(tmp_path):
    (tmp_path / "file").write_text("text")
    with tarfile.open(tmp_path / "an4.tar", "w") as tar:
        tar.add(tmp_path / "file", arcname="an4/../../outside")
    command = [sys.executable, SCRIPT, tmp_path / "an4", "--url", (tmp_path / "an4.tar").as_uri()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("an4: expected files below one folder, got an4/../../outside at")
    assert not (tmp_path.parent / "outside").exists() and not (tmp_path / "outside").exists()


def test_an_archive_that_is_not_there(tmp_path):
    url = (tmp_path / "none.tar.gz").as_uri()
    command = [sys.executable, SCRIPT, tmp_path / "an4", "--url", url]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"an4: expected an archive at {url}, got: ")


@pytest.fixture(scope="module")
def recipe():
    return load_script("speech/run.py")


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_come_from_these_options(recipe, path, tmp_path):
    result = json.loads(path.read_text())
    options = recipe.train_options(result["name"], result["seed"], AN4_UTTERANCES)
    # The models that some begin with.
    for dense in ("dense", "relu-dense-long"):
        (tmp_path / f"{dense}-s{result['seed']}").mkdir()
        (tmp_path / f"{dense}-s{result['seed']}" / "checkpoint_last.pt").touch()
    args = argparse.Namespace(run=result["name"], seed=result["seed"], work=tmp_path)
    options = recipe.begin_from(argparse.ArgumentParser(), args, options)
    command = shlex.join(["fairseq-train", "DATA", "--user-dir", "user_dir", *options])
    assert result["fairseq_train"] == command.replace(f"{tmp_path}/", "W/")


def test_a_run_from_a_dense_one_needs_that(recipe, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(recipe, "prepare", lambda *_: tmp_path)
    monkeypatch.setattr(recipe, "count_usable", lambda _: AN4_UTTERANCES)
    run = {"run": "blocks-90-fisher-from-dense", "seed": 7, "bad_utterances": "refuse"}
    args = argparse.Namespace(**run, data=tmp_path, work=tmp_path)
    with pytest.raises(SystemExit):
        recipe.run(argparse.ArgumentParser(), args)
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.endswith("got none; run dense with --seed 7 first")


def test_the_schedules_end_with_the_last_epoch(recipe):
    for utterances, updates in ((AN4_UTTERANCES, 30 * 106), (8, 30), (9, 60)):
        options = recipe.train_options("dense", 1, utterances)
        assert options[options.index("--max-update") + 1] == str(updates)


def test_a_work_folder_is_for_one_corpus(recipe, tmp_path, monkeypatch):
    corpus, work = make_corpus(tmp_path / "a"), tmp_path / "work"
    data = work / "data"
    monkeypatch.setattr(recipe, "rnnprune", lambda *a: (data / "speech.json").write_text("{}"))
    assert recipe.prepare(corpus, work) == data
    assert read_manifest(data / "test.tsv") == read_manifest(corpus / "test.tsv")
    recipe.prepare(corpus, work)
    other = shutil.copytree(corpus, tmp_path / "b")
    with pytest.raises(SystemExit, match="expected the data that .*work was made from, got others"):
        recipe.prepare(other, work)
    # The same folder with another text.
    test = corpus / "test.tsv"
    test.write_text(test.read_text().rstrip() + "X\n")
    with pytest.raises(SystemExit, match="expected the manifests that .*work was made from, got"):
        recipe.prepare(corpus, work)
    # Of what a folder without a note was made, nobody knows.
    (work / "made_from.json").unlink()
    with pytest.raises(SystemExit, match="name a new --work"):
        recipe.prepare(corpus, work)


def test_utterances_that_are_skipped_are_not_counted(recipe, tmp_path):
    corpus, skip = make_corpus(tmp_path / "a"), ["--bad-utterances", "skip"]
    with (corpus / "train.tsv").open("a") as file:
        file.write("none.wav\t16000\tann\tGO\nflac/train0.flac\t4000\tann\t\n")
    data = recipe.prepare(corpus, tmp_path / "work", skip)
    assert len(read_manifest(data / "train.tsv")) == 10
    assert recipe.count_usable(data) == 8
    with pytest.raises(SystemExit, match="expected the policy that .*work was made from, got oth"):
        recipe.prepare(corpus, tmp_path / "work", [*skip, ""])
    with pytest.raises(CommandFailed, match="expected usable utterances in .*, got 2 of"):
        recipe.prepare(corpus, tmp_path / "other")


def spoken(cer, wer, texts):
    """What fairseq-generate prints of a test set, in the order of its batches."""
    lines = [f"D-{number}\t-0.5\t{text}\n" for number, text in reversed([*enumerate(texts)])]
    return "".join(
        [*lines, f"Generate: CER: {cer} WER: {wer} (2 utterances; CER without blanks: 9.50)\n"]
    )


@pytest.mark.parametrize("other_text", [False, True])
def test_a_pruned_run_is_tested_packed_as_well(recipe, tmp_path, monkeypatch, other_text):
    figures, asked = {}, []
    printed = {
        "auto": spoken(5.0, 11.0, ["GO", ""]),
        "dense": spoken(5.0, 11.0, ["GO", ""]),
        "fp32": spoken(5.0, 11.0, ["GO", "ON" if other_text else ""]),
        "bf16": spoken(5.5, 11.0, ["GO", "NO"]),
        "int8": spoken(6.25, 12.5, ["GO", "NO"]),
        **{8: spoken(4.75, 10.5, ["GO", ""]), 32: spoken(4.5, 10.25, ["GO", ""])},
    }

    def fairseq(command, *arguments):
        overrides = ast.literal_eval(arguments[arguments.index("--model-overrides") + 1])
        subset, beam = (arguments[arguments.index(o) + 1] for o in ("--gen-subset", "--beam"))
        asked.append((subset, overrides["packed"], beam))
        return printed[overrides["packed"] if beam == 1 else beam]

    def export(command, checkpoint, file, *arguments):
        assert (command, checkpoint) == ("export", tmp_path / "last.pt")
        file.write_bytes(bytes({"fp32": 9, "bf16": 6, "int8": 4}[arguments[-1]]))

    corpus = make_corpus(tmp_path / "corpus")
    monkeypatch.setattr(recipe, "fairseq", fairseq)
    monkeypatch.setattr(recipe, "prepare", lambda *_: corpus)
    monkeypatch.setattr(recipe, "count_usable", lambda _: 8)
    monkeypatch.setattr(recipe, "count_parameters", lambda _: {"parameters": 7})
    monkeypatch.setattr(recipe, "training_seconds", lambda _: 1.5)
    monkeypatch.setattr(recipe, "rnnprune", export)
    trained = tmp_path / "last.pt", tmp_path / "train.log"
    monkeypatch.setattr(type(recipe.RECIPE), "train", lambda *_: trained)
    save = lambda _, args, options, found: figures.update({args.run: found})  # noqa: E731
    monkeypatch.setattr(type(recipe.RECIPE), "save", save)
    for run in ("dense", "blocks-90"):
        arguments = [run, "--data", str(corpus), "--work", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        recipe.main()
    all_runs = [(split, "auto", 1) for split in ("test", "valid")]
    all_runs += [("test", "auto", beam) for beam in (8, 32)]
    assert asked[:8] == 2 * all_runs
    assert asked[8:] == [("test", choice, 1) for choice in ("dense", "fp32", "bf16", "int8")]
    assert figures["dense"] == {
        "parameters": 7,
        **{"test_cer": 5.0, "test_wer": 11.0, "test_cer_without_blanks": 9.5},
        **{"valid_cer": 5.0, "valid_wer": 11.0, "valid_cer_without_blanks": 9.5},
        "cer_by_beam": {"8": 4.75, "32": 4.5},
        "wer_by_beam": {"8": 10.5, "32": 10.25},
        "training_seconds": 1.5,
    }
    assert figures["blocks-90"] == {
        **figures["dense"],
        "cer_by_packed": {"dense": 5.0, "fp32": 5.0, "bf16": 5.5, "int8": 6.25},
        "wer_by_packed": {"dense": 11.0, "fp32": 11.0, "bf16": 11.0, "int8": 12.5},
        "same_text_packed": not other_text,
        "exported_bytes": {"fp32": 9, "bf16": 6, "int8": 4},
    }


def test_the_plot_is_drawn_from_the_results(tmp_path):
    out = tmp_path / "cer.png"
    command = [sys.executable, RECIPE / "plot.py", "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_bytes().startswith(b"\x89PNG")
    done = subprocess.run([*command, "--results", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and "expected results in" in done.stderr


def test_rates_by_what_blanks_count():
    output = "T-1\tNO\nH-1\t-1\tN O\nD-1\t-1\tNO\nT-0\tR E Y\nD-0\t-1\tR  Y\n"
    rates = load_script("speech/blanks.py").rates(output)
    # "R E Y" and "R  Y": one edit of five characters; with one blank two; without three to two.
    assert rates == pytest.approx({"each": 100 / 7, "one_in_a_row": 200 / 7, "none": 100 / 5})
