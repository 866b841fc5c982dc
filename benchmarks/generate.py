"""fairseq-generate on a pruned GRU language model: dense and packed, by part and as a process.

    OMP_NUM_THREADS=1 python benchmarks/generate.py --work FOLDER

The model is random: its speed does not depend on what it says. Weights of the GRU and of the output
layer are pruned in blocks. fairseq_generate.py says what is timed.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from functools import partial
from pathlib import Path

# One thread per process (set before torch is loaded).
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fairseq_generate import USER_DIR, compare, random_checkpoint  # noqa: E402
from harness import RESULTS  # noqa: E402

from fairseq_rnnprune.experiment import fairseq, save_result  # noqa: E402

# Tokens of a prompt that are fed to the model.
PREFIX = 4
# Split of the data for whole processes, and of its first prompts, which are timed by part.
PROCESSES, PARTS = "test", "test1"
PARTS_PROMPTS = 5
# Figures by part of timed_generate.py: the model has no encoder and no attention.
NAMES = {"decoder": "recurrent", "output": "output"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--hidden", type=int, default=2560)
    options.add_argument("--embedding", type=int, default=1024)
    options.add_argument("--vocabulary", type=int, default=10_000)
    options.add_argument("--sparsity", type=float, default=0.9)
    options.add_argument("--block", type=int, nargs=2, default=[16, 1], metavar=("ROWS", "COLUMNS"))
    options.add_argument("--beam", type=int, nargs="+", default=[1, 5])
    options.add_argument("--prompts", type=int, default=60)
    options.add_argument("--length", type=int, default=100, help="tokens of a sentence")
    options.add_argument("--rounds", type=int, default=2, help="of whole processes")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--work", type=Path, help="folder of data and model (default: temporary)")
    options.add_argument("--out", type=Path, default=RESULTS / "generate")
    arguments = options.parse_args()
    rows, columns = arguments.block
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        data = prepare_data(arguments, work)
        checkpoint = prepare_model(arguments, data, work)
        for beam in arguments.beam:
            by_part, whole = (
                partial(generation, arguments, data, checkpoint, beam, split)
                for split in (PARTS, PROCESSES)
            )
            figures = compare(by_part, whole, arguments.rounds, "token", NAMES)
            path = save_result(
                arguments.out,
                f"generate-h{arguments.hidden}-{rows}x{columns}-beam{beam}",
                arguments.seed,
                f"python benchmarks/generate.py --hidden {arguments.hidden} "
                f"--embedding {arguments.embedding} --vocabulary {arguments.vocabulary} "
                f"--sparsity {arguments.sparsity:g} --block {rows} {columns} "
                f"--beam {beam} --prompts {arguments.prompts} --length {arguments.length} "
                f"--rounds {arguments.rounds} --seed {arguments.seed}",
                figures,
                beam=beam,
                block_shape=arguments.block,
            )
            print(f"written to {path}", flush=True)


def prepare_data(arguments: argparse.Namespace, work: Path) -> Path:
    """Binarises random prompts over a vocabulary of w0, w1, ...; returns the data folder."""
    work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)
    # fairseq adds four words of its own.
    words = [f"w{i}" for i in range(arguments.vocabulary - 4)]
    (work / "dict.txt").write_text("".join(f"{word} 1\n" for word in words))
    prompts = [" ".join(rng.choices(words, k=PREFIX + 1)) for _ in range(arguments.prompts)]
    # Training on it takes one update, which only makes a checkpoint to put other weights into.
    texts = {"test": prompts, "parts": prompts[:PARTS_PROMPTS], "train": prompts[:1]}
    for split, lines in texts.items():
        (work / f"{split}.txt").write_text("\n".join(lines) + "\n")
    data = work / "data"
    fairseq(
        *("preprocess", "--only-source", "--srcdict", work / "dict.txt", "--destdir", data),
        *("--trainpref", work / "train.txt"),
        *("--testpref", f"{work / 'test.txt'},{work / 'parts.txt'}"),
    )
    return data


def prepare_model(arguments: argparse.Namespace, data: Path, work: Path) -> Path:
    """Writes a checkpoint of fairseq's with random weights, pruned; returns its path."""
    return random_checkpoint(
        *(arguments, data, work, "--task", "language_modeling", "--tokens-per-sample", 16),
        *("--arch", "rnnprune_gru_lm", "--decoder-hidden-size", arguments.hidden),
        *("--decoder-embed-dim", arguments.embedding),
    )


def generation(
    arguments: argparse.Namespace,
    data: Path,
    checkpoint: Path,
    beam: int,
    split: str,
    variant: str,
) -> list[str]:
    """The arguments of fairseq-generate."""
    length = str(arguments.length)
    return [
        *(str(data), "--user-dir", str(USER_DIR), "--task", "language_modeling", "--cpu"),
        *("--path", str(checkpoint), "--gen-subset", split, "--sample-break-mode", "eos"),
        *("--prefix-size", str(PREFIX), "--min-len", length, "--max-len-b", length),
        *("--batch-size", "1", "--beam", str(beam), "--num-workers", "0"),
        *("--model-overrides", f"{{'packed': '{variant}'}}"),
    ]


if __name__ == "__main__":
    main()
