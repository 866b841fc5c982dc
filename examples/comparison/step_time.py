"""Measures a time step of the models that a sweep has left, beside their accuracy.

    python examples/comparison/step_time.py results/an4.jsonl --work WORK

Writes results/an4-steps.jsonl: every row of the sweep whose checkpoint is in WORK, its figures
joined by those of `rnnprune bench` for all recurrent layers, and by the updates between which its
training went from 30 to 89 % sparsity, as far as it did. Run it on an idle machine: all models
with a checkpoint are measured in one go. Others keep what the file that is there has of them.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from fairseq_rnnprune.experiment import rnnprune
from fairseq_rnnprune.provenance import environment
from fairseq_rnnprune.report.trainlog import read_train_log
from fairseq_rnnprune.sweep.rows import read_rows

FIGURES = ("us", "stored_bytes", "read_bytes", "multiply_adds", "over_best")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, metavar="RESULTS.jsonl")
    parser.add_argument("--work", type=Path, required=True, help="that of the sweep")
    parser.add_argument("--seconds", type=float, default=1.0, help="for each layer (default: 1)")
    args = parser.parse_args()
    # One thread, as a deployed model has it.
    os.environ["OMP_NUM_THREADS"] = "1"
    path = args.results.with_name(f"{args.results.stem}-steps.jsonl")
    before = {row["name"]: row for row in read_rows([path])} if path.exists() else {}
    rows = list(read_rows([args.results]))
    measured = {row["name"]: measure(row, args.work, args.seconds) for row in rows}
    if not any(measured.values()):
        sys.exit(f"step_time: expected checkpoints of {args.results} in {args.work}, got none")
    kept = [measured[row["name"]] or before.get(row["name"]) for row in rows]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in kept if row), encoding="utf-8")
    temporary.replace(path)
    count = sum(row is not None for row in measured.values())
    print(f"{count} of {len(rows)} rows measured; written to {path}")


def measure(row: dict[str, Any], work: Path, seconds: float) -> dict[str, Any] | None:
    """The row with figures of its model's recurrent layers, by values; None without checkpoint."""
    checkpoint = work / row["name"] / "checkpoint_last.pt"
    if not checkpoint.is_file():
        return None
    output = rnnprune("bench", checkpoint, "--json", "--seconds", seconds)
    # A warning may stand before it.
    bench = json.loads(output[output.index("{") :])
    if bench["warning"]:
        sys.exit(f"step_time: expected an idle machine, got one where {bench['warning']}")
    recurrent = next(t for t in bench["checkpoints"][0]["totals"] if t["name"] == "all recurrent")
    figures = {
        f"{values.replace('-', '_')}_{figure}": variant[figure]
        for values, variant in recurrent["variants"].items()
        for figure in FIGURES
    }
    print(f"{row['name']}: {figures['dense_us']:.1f} us dense, {figures['auto_us']:.1f} auto")
    figures |= {"nonzeros": recurrent["nonzeros"], **pace(checkpoint.with_name("train.log"))}
    command = "python examples/comparison/step_time.py RESULTS.jsonl --work WORK"
    return {
        **{name: row[name] for name in ("name", "axes")},
        "command": command,
        "trained_at": row["commit"],
        **environment(),
        "figures": row["figures"] | figures,
    }


def pace(log: Path) -> dict[str, int]:
    """The first logged updates with 30 and with 89 % sparsity; none if the last was not reached."""
    try:
        curve = read_train_log(log).curves["sparsity"]
    except ValueError:
        # A dense training.
        return {}
    found = {
        f"update_at_{percent}": next((n for n, s in curve.items() if s >= percent / 100), None)
        for percent in (30, 89)
    }
    return found if found["update_at_89"] is not None else {}


if __name__ == "__main__":
    main()
