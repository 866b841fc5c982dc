"""fairseq-generate on a pruned translation model: dense and packed, by part and as a process.

    OMP_NUM_THREADS=1 python benchmarks/translate.py --work FOLDER
    OMP_NUM_THREADS=1 python benchmarks/translate.py --checkpoint MODEL.pt --data DATA --name NAME

A checkpoint and its binarised data are those of examples/translation/run.py. Without one, the model
is random, its weights pruned in blocks, and so are the sentences, which are as long as Multi30k's:
the speed does not depend on what they say. fairseq_generate.py says what is timed.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

# One thread per process (set before torch is loaded).
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fairseq_generate import LEAST_SAME, USER_DIR, compare, random_checkpoint  # noqa: E402
from harness import RESULTS  # noqa: E402

from fairseq_rnnprune.experiment import fairseq, save_result  # noqa: E402

# Pieces of a sentence of Multi30k's test2016 in English: mean, deviation, least and most.
LENGTHS = (15, 5, 5, 40)
# Figures by part of timed_generate.py.
NAMES = {part: part for part in ("encoder", "decoder", "attention", "output")}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--checkpoint", type=Path, help="of a trained rnnprune_gru_seq2seq")
    options.add_argument("--data", type=Path, help="its binarised data, whose test split is used")
    options.add_argument("--name", default="checkpoint", help="of the checkpoint's result")
    options.add_argument("--hidden", type=int, default=1024, help="of a random model, like")
    options.add_argument("--embedding", type=int, default=512)
    options.add_argument("--layers", type=int, default=2)
    options.add_argument("--vocabulary", type=int, default=6000)
    options.add_argument("--sparsity", type=float, default=0.9)
    options.add_argument("--block", type=int, nargs=2, default=[16, 4], metavar=("ROWS", "COLUMNS"))
    options.add_argument("--sentences", type=int, default=96)
    options.add_argument("--beam", type=int, default=5)
    options.add_argument("--batch", type=int, nargs="+", default=[1, 32])
    options.add_argument("--rounds", type=int, default=2, help="of whole processes")
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--work", type=Path, help="folder of data and model (default: temporary)")
    options.add_argument("--out", type=Path, help="folder of the JSON files")
    arguments = options.parse_args()
    if (arguments.checkpoint is None) != (arguments.data is None):
        options.error("expected --checkpoint and --data, or neither of them")
    with tempfile.TemporaryDirectory() as temporary:
        if arguments.checkpoint:
            subject = trained_subject(arguments)
        else:
            subject = random_subject(arguments, arguments.work or Path(temporary))
        for batch in arguments.batch:
            command = partial(translation, subject, arguments.beam, batch)
            figures = compare(command, command, arguments.rounds, "sentence", NAMES, LEAST_SAME)
            path = save_result(
                arguments.out or RESULTS / subject.folder,
                f"translate-{subject.name}-batch{batch}",
                arguments.seed,
                f"python benchmarks/translate.py {subject.options} --beam {arguments.beam} "
                f"--batch {batch} --rounds {arguments.rounds} --seed {arguments.seed}",
                figures,
                model=subject.name,
                batch=batch,
                beam=arguments.beam,
            )
            print(f"written to {path}", flush=True)


class Subject(NamedTuple):
    """A model and its data, the options that name them, and the limit of a translation's length."""

    name: str
    folder: str
    options: str
    data: Path
    checkpoint: Path
    limit: tuple[str, ...]


def trained_subject(arguments: argparse.Namespace) -> Subject:
    """The checkpoint and its data."""
    return Subject(
        arguments.name,
        "translate_trained",
        f"--checkpoint MODEL.pt --data DATA --name {arguments.name}",
        arguments.data,
        arguments.checkpoint,
        # As in examples/translation/run.py.
        ("--max-len-a", "2", "--max-len-b", "10"),
    )


def random_subject(arguments: argparse.Namespace, work: Path) -> Subject:
    """A random model and random sentences, which are written into a folder."""
    rows, columns = arguments.block
    data = prepare_data(arguments, work)
    return Subject(
        f"h{arguments.hidden}-{rows}x{columns}",
        "translate",
        f"--hidden {arguments.hidden} --embedding {arguments.embedding} "
        f"--layers {arguments.layers} --vocabulary {arguments.vocabulary} "
        f"--sparsity {arguments.sparsity:g} --block {rows} {columns} "
        f"--sentences {arguments.sentences}",
        data,
        prepare_model(arguments, data, work),
        # It hardly ever ends a sentence itself: the longest source of a batch is the limit.
        ("--max-len-a", "1", "--max-len-b", "1"),
    )


def prepare_data(arguments: argparse.Namespace, work: Path) -> Path:
    """Binarises random sentences over a vocabulary of w0, w1, ...; returns the data folder."""
    work.mkdir(parents=True, exist_ok=True)
    rng = random.Random(arguments.seed)
    # fairseq adds four words of its own.
    words = [f"w{i}" for i in range(arguments.vocabulary - 4)]
    (work / "dict.txt").write_text("".join(f"{word} 1\n" for word in words))
    mean, deviation, least, most = LENGTHS
    lengths = (round(rng.gauss(mean, deviation)) for _ in range(arguments.sentences))
    lines = [" ".join(rng.choices(words, k=min(max(k, least), most))) for k in lengths]
    # Training on it takes one update, which only makes a checkpoint to put other weights into.
    for split, text in {"test": lines, "train": lines[:1]}.items():
        for language in ("src", "tgt"):
            (work / f"{split}.{language}").write_text("\n".join(text) + "\n")
    data = work / "data"
    fairseq(
        *("preprocess", "--source-lang", "src", "--target-lang", "tgt", "--destdir", data),
        *("--srcdict", work / "dict.txt", "--tgtdict", work / "dict.txt"),
        *("--trainpref", work / "train", "--testpref", work / "test"),
    )
    return data


def prepare_model(arguments: argparse.Namespace, data: Path, work: Path) -> Path:
    """Writes a checkpoint of fairseq's with random weights, pruned; returns its path."""
    sizes = [
        f"--{side}-{name}={size}"
        for side in ("encoder", "decoder")
        for name, size in (
            ("embed-dim", arguments.embedding),
            ("hidden-size", arguments.hidden),
            ("layers", arguments.layers),
        )
    ]
    options = ("--task", "translation", "--arch", "rnnprune_gru_seq2seq", *sizes)
    return random_checkpoint(arguments, data, work, *options)


def translation(subject: Subject, beam: int, batch: int, variant: str) -> list[str]:
    """The arguments of fairseq-generate."""
    return [
        *(str(subject.data), "--user-dir", str(USER_DIR), "--task", "translation", "--cpu"),
        *("--path", str(subject.checkpoint), "--gen-subset", "test", "--num-workers", "0"),
        *("--batch-size", str(batch), "--beam", str(beam), *subject.limit),
        *("--model-overrides", f"{{'packed': '{variant}'}}"),
    ]


if __name__ == "__main__":
    main()
