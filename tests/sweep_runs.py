"""Sweeps of a fake training, which takes no time: what it did is in its folder."""

import json
import sys

from cli_runs import run

# Counts its calls, writes fairseq's JSON log, keeps a checkpoint that is there; fails if told to.
TRAINING = """
import os, sys, pathlib
folder, method, sparsity = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
with (folder / "calls").open("a") as calls:
    calls.write(f"{method} {os.environ.get('OMP_NUM_THREADS')}\\n")
for epoch in (1, 2):
    print(f'| train | {{"epoch": {epoch}, "train_train_wall": "{epoch}", "train_num_updates": "7", '
          f'"train_sparsity": "0.4", "train_sparsity_recurrent": "{sparsity}"}}', flush=True)
if method == "broken":
    raise SystemExit("cause of the failure")
"""

GRID = """
variables: {python: null, data: null, training: null, more: ""}
axes:
  method: {dense: dense, cubic: "cubic {sparsity}", broken: broken}
  sparsity: [0.8, 0.9]
  seed: [1]
runs:
  - {method: dense, sparsity: 0, seed: [1, 2]}
  - {method: cubic}
train: "{python} {training} {folder} {method} {sparsity} {data} {more} --seed {seed}"
evaluate:
  - "{python} -c \\"print('CER: 9.9'); print('CER:', 10 * {sparsity}, 'of {method}')\\""
figures: {test_cer: 'CER: ([\\d.]+)', said: 'of (\\w+)'}
"""


# The names of its runs, in order.
ALL = ["dense-0-s1", "dense-0-s2", "cubic-0.8-s1", "cubic-0.9-s1"]


def write_grid(folder, text=GRID):
    """Writes a grid, the training and its data; returns the grid's file."""
    (folder / "training.py").write_text(TRAINING)
    (folder / "some data").mkdir(exist_ok=True)
    path = folder / "grid.yaml"
    path.write_text(text)
    return path


def arguments(folder, *more):
    """The command line of a sweep of the grid in a folder."""
    places = {"python": sys.executable, "data": folder / "some data"}
    places["training"] = folder / "training.py"
    return [
        *("sweep", folder / "grid.yaml", "--results", folder / "r.jsonl", "--work", folder / "w"),
        *(part for name, path in places.items() for part in ("--set", f"{name}={path}")),
        *more,
    ]


def sweep(capsys, folder, *more):
    """Runs a sweep; returns exit status, standard output and standard error."""
    return run(capsys, *arguments(folder, *more))


def rows(folder):
    """The rows of the results."""
    return [json.loads(line) for line in (folder / "r.jsonl").read_text().splitlines()]


def calls(folder):
    """How often each run was trained, by the name of its folder."""
    files = (folder / "w").glob("*/calls")
    return {file.parent.name: len(file.read_text().splitlines()) for file in files}
