"""The README's code blocks run, in order, on a small text."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fairseq_runs import make_data
from speech_corpus import make_corpus

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")

# A text of a few lines needs a smaller model and more changes of masks in fewer updates.
SMALLER = {
    "rnnprune_gru_lm_512": "rnnprune_gru_lm_256 --cpu --num-workers 0",
    "--max-epoch 10": "--max-update 20 --log-format none",
    "--prune-sparsity 0.9": "--prune-sparsity 0.9 --prune-freq 2",
    "calibrate dense/checkpoint_last.pt": "calibrate dense/checkpoint_last.pt --freq 2",
    "--batch-size 32": "--batch-size 8",
    "bench pruned/checkpoint_last.pt": "bench pruned/checkpoint_last.pt --rounds 3 --seconds 0.1",
}


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    make_data(folder)
    (folder / "user_dir").symlink_to(ROOT / "user_dir")
    return folder


def test_the_commands(folder):
    commands = "\n".join(blocks("bash"))
    for old, new in SMALLER.items():
        assert old in commands
        commands = commands.replace(old, new)
    done = run_commands(commands, folder, DATA="data")
    assert "weight_hh_l0" in done.stdout  # rnnprune report
    assert "Perplexity:" in done.stdout + done.stderr  # fairseq-eval-lm
    assert len(re.findall(r"^H-", done.stdout, re.M)) == 21  # fairseq-generate
    assert "--prune-q" in done.stdout  # rnnprune calibrate
    assert "all layers" in done.stdout  # rnnprune bench
    assert (folder / "report.html").exists()
    assert (folder / "pruned" / "checkpoint_last.pt").exists()


def test_the_speech_commands(folder, tmp_path):
    (commands,) = blocks("sh")
    for old, new in {
        "rnnprune_deepspeech2_2x320": "rnnprune_deepspeech2 --hidden-size 16 --cpu --num-workers 0",
        "--max-epoch 30": "--max-update 4 --log-format none --disable-validation",
        "--prune-sparsity 0.9": "--prune-sparsity 0.9 --prune-start 0 --prune-end 4 --prune-freq 2",
        "recording.wav": "$CORPUS/flac/test0.flac",
    }.items():
        assert old in commands
        commands = commands.replace(old, new)
    done = run_commands(commands, folder, CORPUS=str(make_corpus(tmp_path)))
    assert len(re.findall(r"^D-", done.stdout, re.M)) == 8
    assert re.search(r"CER: [\d.]+ WER: [\d.]+", done.stdout)


def run_commands(commands, folder, **variables):
    environment = {
        **os.environ,
        **variables,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    script = ["bash", "-euo", "pipefail", "-c", commands]
    done = subprocess.run(script, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done


@pytest.mark.parametrize("code", blocks("python"), ids=lambda c: c.split("\n")[0][:30])
def test_the_python(code, folder, monkeypatch):
    monkeypatch.chdir(folder)
    exec(compile(code, "README.md", "exec"), {"DATA": "data"})


def test_the_readme_says_what_make_does():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.M):
        assert re.search(rf"^{target}:", makefile, re.M), target
