"""The scripts of the AN4 recipe: fetching, on an archive in the form of the real one; options."""

import importlib.util
import json
import shlex
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import soundfile
from speech_corpus import RATE, make_corpus, tone

from fairseq_rnnprune.speech.manifest import read_manifest

RECIPE = Path(__file__).parent.parent / "examples" / "speech"
SCRIPT = RECIPE / "an4.py"
RESULTS = sorted((RECIPE / "results").glob("*-s*.json"))
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


@pytest.fixture(scope="module")
def recipe():
    spec = importlib.util.spec_from_file_location("an4_recipe", RECIPE / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_results_come_from_these_options(recipe, path):
    result = json.loads(path.read_text())
    options = recipe.train_options(result["name"], result["seed"], AN4_UTTERANCES)
    command = ["fairseq-train", "DATA", "--user-dir", "user_dir", *options]
    assert result["fairseq_train"] == shlex.join(command)


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
    # Of what a folder without a note was made, nobody knows.
    (work / "made_from.json").unlink()
    with pytest.raises(SystemExit, match="name a new --work"):
        recipe.prepare(corpus, work)


def test_the_plot_is_drawn_from_the_results(tmp_path):
    out = tmp_path / "cer.png"
    command = [sys.executable, RECIPE / "plot.py", "--out", out]
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_bytes().startswith(b"\x89PNG")
    done = subprocess.run([*command, "--results", tmp_path], capture_output=True, text=True)
    assert done.returncode == 1 and "expected results in" in done.stderr
