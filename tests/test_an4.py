"""The script that fetches AN4, on an archive in the form of the real one."""

import subprocess
import sys
import tarfile
from pathlib import Path

import soundfile
from speech_corpus import RATE, tone

from fairseq_rnnprune.speech.manifest import read_manifest

SCRIPT = Path(__file__).parent.parent / "examples" / "speech" / "an4.py"


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
