"""Disk and memory of a process that transcribes one utterance: imports only, dense, and packed.

    python benchmarks/memory.py --size 7x2560
    python benchmarks/memory.py --checkpoint MODEL.pt --name NAME

Every choice is a process of its own, which loads its file as `rnnprune transcribe` does and
transcribes some seconds of noise: dense from the checkpoint, packed from what `rnnprune export`
makes of it with such values. A size is one of `rnnprune_deepspeech2`, with random weights
pruned to 90 % in blocks of 16 x 4. The figures are the Linux kernel's
(/proc/self/status), after glibc has been asked to return what is free for the last of them.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

# One thread (set before torch is loaded).
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import soundfile  # noqa: E402
from fairseq_generate import random_checkpoint  # noqa: E402
from harness import RESULTS  # noqa: E402
from speech import BLOCK, SIZES, quantized  # noqa: E402

from fairseq_rnnprune.experiment import (  # noqa: E402
    count_parameters,
    rnnprune,
    run,
    save_result,
)
from fairseq_rnnprune.speech.generator import CTCGenerator  # noqa: E402
from fairseq_rnnprune.speech.loading import load_speech_model  # noqa: E402
from fairseq_rnnprune.speech.manifest import Utterance, write_manifest  # noqa: E402
from fairseq_rnnprune.speech.transcript import transcribe_files  # noqa: E402

RATE = 16_000
CHOICES = ("imports", "dense", "dense-int8", "fp32", "bf16", "int8")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", choices=SIZES)
    options.add_argument("--checkpoint", type=Path, help="of a trained rnnprune_deepspeech2")
    options.add_argument("--name", default="checkpoint", help="of the checkpoint's result")
    options.add_argument("--sparsity", type=float, default=0.9, help="of a size")
    options.add_argument("--audio-seconds", type=float, default=4.0)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--work", type=Path, help="folder of a size's model (default: temporary)")
    options.add_argument("--out", type=Path, default=RESULTS / "memory")
    options.add_argument("--choice", choices=CHOICES, help="print one choice's figures only")
    options.set_defaults(block=BLOCK)
    arguments = options.parse_args()
    if (arguments.size is None) == (arguments.checkpoint is None):
        options.error("expected either --size or --checkpoint")
    with tempfile.TemporaryDirectory() as temporary:
        audio = Path(temporary) / "noise.wav"
        write_noise(audio, arguments.audio_seconds, arguments.seed)
        if arguments.choice:
            print(json.dumps(measure(arguments.choice, arguments.checkpoint, audio)))
            return
        name, what = arguments.name, f"--checkpoint MODEL.pt --name {arguments.name}"
        checkpoint = arguments.checkpoint
        if arguments.size:
            name, what = (
                arguments.size,
                f"--size {arguments.size} --sparsity {arguments.sparsity:g}",
            )
            checkpoint = prepare_model(arguments, arguments.work or Path(temporary))
        files = export(checkpoint, Path(temporary))
        figures = compare(files, arguments.audio_seconds, arguments.seed)
    path = save_result(
        arguments.out,
        f"memory-{name}",
        arguments.seed,
        f"python benchmarks/memory.py {what} --audio-seconds {arguments.audio_seconds:g} "
        f"--seed {arguments.seed}",
        figures,
    )
    print(f"written to {path}")


def export(checkpoint: Path, folder: Path) -> dict[str, Path]:
    """The file that each choice loads."""
    files = dict.fromkeys(CHOICES, checkpoint)
    for choice in ("fp32", "bf16", "int8"):
        files[choice] = folder / f"{choice}.safetensors"
        rnnprune("export", checkpoint, files[choice], "--values", choice)
    return files


def compare(files: dict[str, Path], seconds: float, seed: int) -> dict[str, Any]:
    """The figures of every choice, in millions of bytes, memory less that of the imports."""
    parameters = count_parameters(files["dense"])["parameters"]
    command = [sys.executable, str(Path(__file__).resolve()), "--audio-seconds", str(seconds)]
    command += ["--seed", str(seed)]
    rows = {}
    for choice, file in files.items():
        output = run([*command, "--checkpoint", str(file), "--choice", choice])
        rows[choice] = json.loads(output.strip().splitlines()[-1])
    figures: dict[str, Any] = {"parameters": parameters, "weights_mb": 4e-6 * parameters}
    for choice, row in rows.items():
        if choice != "imports":
            row = {key: value - rows["imports"][key] for key, value in row.items()}
            row["disk_mb"] = 1e-6 * files[choice].stat().st_size
        figures[choice] = row
        print(f"{choice:10}", "  ".join(f"{key} {value:,.0f}" for key, value in row.items()))
    return figures


def measure(choice: str, checkpoint: Path, audio: Path) -> dict[str, float]:
    """The memory of this process, which transcribes."""
    if choice == "imports":
        return resident()
    dense = choice.startswith("dense")
    speech = load_speech_model(checkpoint, "dense" if dense else choice)
    if choice == "dense-int8":
        speech = speech._replace(model=quantized(speech.model))
        # The float weights are left in cycles.
        gc.collect()
    generator = CTCGenerator([speech.model], speech.dictionary)
    [transcript] = transcribe_files([audio], speech, generator, 1)
    if isinstance(transcript, ValueError):
        raise transcript
    return resident()


def resident() -> dict[str, float]:
    """Resident memory of this process in millions of bytes: the most so far, now, and in use.

    In use is what is left when the C library has returned to the system what it keeps of freed
    memory. Not getrusage's ru_maxrss: a process inherits that from the one which started it.
    """

    def kernel(key: str) -> float:
        status = Path("/proc/self/status").read_text()
        return 1024e-6 * int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M)[1])

    found = {"peak_mb": kernel("VmHWM"), "resident_mb": kernel("VmRSS")}
    ctypes.CDLL(None).malloc_trim(0)
    return {**found, "used_mb": kernel("VmRSS")}


def prepare_model(arguments: argparse.Namespace, work: Path) -> Path:
    """Writes a checkpoint of the task rnnprune_speech with random weights, pruned."""
    data = work / "data"
    data.mkdir(parents=True, exist_ok=True)
    write_noise(data / "noise.wav", 1.0, arguments.seed)
    for split in ("train", "valid", "test"):
        row = Utterance(data / "noise.wav", RATE, "nobody", "GO ON")
        write_manifest(data / f"{split}.tsv", [row])
    rnnprune("prepare", data)
    return random_checkpoint(
        *(arguments, data, work, "--task", "rnnprune_speech", "--criterion", "ctc"),
        *("--arch", f"rnnprune_deepspeech2_{arguments.size}", "--zero-infinity"),
        *("--post-process", "letter", "--required-batch-size-multiple", 1),
    )


def write_noise(path: Path, seconds: float, seed: int) -> None:
    noise = np.random.default_rng(seed).standard_normal(round(seconds * RATE))
    soundfile.write(path, 0.1 * noise.astype(np.float32), RATE)


if __name__ == "__main__":
    main()
