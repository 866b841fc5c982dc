"""Character error rates of trained models by what a blank counts.

    python examples/speech/blanks.py CHECKPOINT... --data DATA

DATA is the prepared folder of the recipe, `data` in its work folder. Writes one file into blanks/
for each checkpoint, named after its folder; `make tables` makes the README's table of them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import editdistance
from run import generate

from fairseq_rnnprune.experiment import generated, save_result

HERE = Path(__file__).resolve().parent
BLANKS: dict[str, Callable[[str], str]] = {
    "each": str.strip,
    "one_in_a_row": lambda text: " ".join(text.split()),
    "none": lambda text: "".join(text.split()),
}
BEAMS = (1, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoints", type=Path, nargs="+", metavar="CHECKPOINT")
    parser.add_argument("--data", type=Path, required=True)
    args = parser.parse_args()
    for checkpoint in args.checkpoints:
        name, _, seed = checkpoint.resolve().parent.name.rpartition("-s")
        figures = {
            f"beam_{beam}": rates(generate(args.data, checkpoint, "test", beam=beam))
            for beam in BEAMS
        }
        command = "python examples/speech/blanks.py CHECKPOINT --data DATA"
        print(save_result(HERE / "blanks", name, int(seed), command, figures))


def rates(output: str) -> dict[str, float]:
    """Character error rates in percent, of what fairseq-generate printed, by what blanks count."""
    said = {int(n): text for n, text in re.findall(r"^T-(\d+)\t(.*)$", output, re.M)}
    understood = generated(output)
    return {
        name: 100
        * sum(editdistance.eval(count(text), count(understood[n])) for n, text in said.items())
        / sum(len(count(text)) for text in said.values())
        for name, count in BLANKS.items()
    }


if __name__ == "__main__":
    main()
