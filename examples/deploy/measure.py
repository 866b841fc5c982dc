"""A language model in C++ alone and in Python: size, memory, time and perplexity, into results/.

    python examples/deploy/measure.py CHECKPOINT --name NAME --data DATA --text LINES

CHECKPOINT is an rnnprune_gru_lm with one output layer, DATA what fairseq-preprocess made, LINES its
test split as text. Both read the lines symbol by symbol, as they would be typed, on one thread.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import tempfile
import time
from pathlib import Path

# Set before torch is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

from fairseq_rnnprune.experiment import count_parameters, rnnprune, run, save_result  # noqa: E402

HERE = Path(__file__).resolve().parent
CSRC = HERE.parent.parent / "fairseq_rnnprune" / "sparse" / "csrc"
VALUES = ("fp32", "bf16", "int16", "int8")
FIGURES = {
    "perplexity": r"perplexity ([\d.]+)",
    "us_per_symbol": r"([\d.]+) us a symbol",
    "load_ms": r"loaded in ([\d.]+) ms",
    "peak_mb": r"peak memory ([\d.]+) MB",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--text", type=Path, required=True)
    parser.add_argument("--name", default="model", help="of the results (default: %(default)s)")
    parser.add_argument("--values", choices=VALUES, help="run in this process, and print only")
    args = parser.parse_args()
    if args.values:
        print(in_python(args.checkpoint, args.data, args.text, args.values))
        return
    kept = count_parameters(args.checkpoint)["kept_parameters"]
    with tempfile.TemporaryDirectory() as folder:
        program = build(Path(folder))
        for values in VALUES:
            model = Path(folder, f"{values}.safetensors")
            rnnprune("export", args.checkpoint, model, "--values", values)
            inputs = ("--data", args.data, "--text", args.text, "--values", values)
            command = [sys.executable, str(Path(__file__).resolve()), str(model), *map(str, inputs)]
            # The shell feeds the lines; what the program tells of itself goes to stderr.
            native = f'"{program}" "{model}" "{args.data}/dict.txt" < "{args.text}" 2>&1 >/dev/null'
            outputs = {"cpp": run(["sh", "-c", native]), "python": run(command)}
            for language, output in outputs.items():
                figures = {name: float(re.search(p, output)[1]) for name, p in FIGURES.items()}
                figures |= {"kept_parameters": kept, "file_bytes": model.stat().st_size}
                if language == "cpp":
                    figures["program_bytes"] = program.stat().st_size
                path = save_result(
                    *(HERE / "results", f"{args.name}-{language}-{values}", 1),
                    "python examples/deploy/measure.py CHECKPOINT "
                    f"--name {args.name} --data DATA --text LINES",
                    figures,
                )
                print(f"{path.name}: {output.strip().splitlines()[-1]}")


def build(folder: Path) -> Path:
    """Compiles suggest.cpp and the kernels."""
    program = folder / "suggest"
    sources = (HERE / "suggest.cpp", CSRC / "kernels.cpp")
    run(["g++", "-std=c++17", "-O3", "-Wno-psabi", f"-I{CSRC}", *map(str, sources), "-o", program])
    return program


def in_python(model: Path, data: Path, text: Path, values: str) -> str:
    """The same as suggest.cpp, through fairseq's incremental decoding."""
    started = time.perf_counter()
    import torch

    from fairseq_rnnprune.plugin import gru_lm

    hub = gru_lm.GRULanguageModel.from_pretrained(
        str(model.parent), model.name, str(data), packed=values
    )
    decoder, dictionary = hub.models[0].decoder, hub.task.source_dictionary
    load = time.perf_counter() - started
    loss, seconds, symbols = 0.0, 0.0, 0
    with torch.no_grad():
        for line in text.read_text(encoding="utf-8").splitlines():
            state, last = {}, dictionary.eos()
            for symbol in [*map(dictionary.index, line.split()), dictionary.eos()]:
                tokens = torch.tensor([[last]])
                before = time.perf_counter()
                logits = decoder(tokens, incremental_state=state)[0]
                seconds += time.perf_counter() - before
                loss -= float(torch.log_softmax(logits[0, -1], dim=0)[symbol])
                last, symbols = symbol, symbols + 1
    peak = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    return (
        f"perplexity {math.exp(loss / symbols):.2f}, {1e6 * seconds / symbols:.1f} us a symbol, "
        f"loaded in {1e3 * load:.1f} ms, peak memory {1024e-6 * int(peak):.1f} MB"
    )


if __name__ == "__main__":
    main()
