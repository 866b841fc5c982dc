"""Where packed products begin to beat dense ones, by sparsity, and where they cease to, by batch.

    OMP_NUM_THREADS=1 python benchmarks/break_even.py

Two rivals: torch's fp32 product, against which the option `auto` decides, and the fastest of fp32,
bf16 and dynamic int8. A format wins where its median time over interleaved rounds is the lower one.
The sparsity is sought by bisection in SPARSITIES, at batch 1; the batch in BATCHES, in order, at
90 %, until no format wins. Unstructured masks for CSR, masks in its blocks for every other format.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from harness import RESULTS, block_mask, parser, timed
from subjects import DENSE, DISTINCT, PACKED, Format, Subject, dense_products, packed_product
from torch import Tensor

from fairseq_rnnprune.experiment import save_result
from fairseq_rnnprune.layers.packing import reason_to_stay_dense

NAMES = ("csr-int32", "fp32-16x1", "fp32-4x4", "bf16-16x1", "int8-16x4")
FORMATS = [form for form in PACKED if form.name in NAMES]
SPARSITIES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
# With the key that a summary has its ratio under.
RIVALS = {"fp32": "speedup", "best": "over_best"}
# Of one format at one size, sparsity and batch.
Ratios = Mapping[str, float]


def main() -> None:
    options = parser(__doc__, out=RESULTS / "break_even", rounds=9, seconds=1.5, turn=0.02)
    options.add_argument("--hidden", type=int, nargs="+", default=[512, 1504, 2560])
    options.add_argument("--batch", type=int, nargs="+", default=list(BATCHES))
    options.add_argument("--sparsity", type=float, nargs="+", default=list(SPARSITIES))
    options.add_argument("--at-sparsity", type=float, default=0.9, help="while batches change")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    for hidden in arguments.hidden:
        torch.manual_seed(arguments.seed)
        with torch.no_grad(), warnings.catch_warnings():
            # torch's quantised layers are deprecated.
            warnings.simplefilter("ignore")
            figures = break_even(arguments, hidden)
        for name, row in figures.items():
            print(f"h{hidden} {name:12}", "  ".join(f"{k} {v}" for k, v in row.items() if "_" in k))
        path = save_result(
            arguments.out,
            f"break-even-h{hidden}",
            arguments.seed,
            f"python benchmarks/break_even.py --hidden {hidden} --seed {arguments.seed}",
            figures,
            hidden=hidden,
        )
        print(f"written to {path}", flush=True)


def break_even(arguments: argparse.Namespace, hidden: int) -> dict[str, dict[str, Any]]:
    """The limits of every format, and every ratio measured on the way."""
    x = torch.randn(DISTINCT, hidden)
    weight = torch.randn(3 * hidden, hidden) / hidden**0.5
    dense = list(dense_products(weight, x))
    packed = [packed_product(weight, form, arguments.at_sparsity, x) for form in FORMATS]
    by_batch = over_batches(arguments, dense, packed, x)
    figures = {}
    for form in FORMATS:
        row = sparsity_limits(arguments, dense, weight, form, x)
        for rival, ratio in RIVALS.items():
            losing = [b for b, of in by_batch.items() if of[form.name][ratio] <= 1]
            row[f"batch_{rival}"] = str(losing[0]) if losing else f"> {max(by_batch)}"
        row["batches"] = {str(batch): of[form.name] for batch, of in by_batch.items()}
        figures[form.name] = row
    return figures


def sparsity_limits(
    arguments: argparse.Namespace, dense: list[Subject], weight: Tensor, form: Format, x: Tensor
) -> dict[str, Any]:
    """The sparsity from which a format wins, and that from which `auto` packs such a mask."""
    known: dict[float, Ratios] = {}

    def wins(sparsity: float, ratio: str) -> bool:
        if sparsity not in known:
            subject = packed_product(weight, form, sparsity, x)
            known[sparsity] = ratios(arguments, [*dense, subject], x, 1)[form.name]
        return known[sparsity][ratio] > 1

    def auto_packs(sparsity: float) -> bool:
        masked = weight * block_mask(weight.shape, form.block_shape, sparsity)
        return reason_to_stay_dense([masked], 3, True) is None

    row: dict[str, Any] = {}
    for rival, ratio in RIVALS.items():
        found = first_winner(arguments.sparsity, lambda s, r=ratio: wins(s, r))
        row[f"sparsity_{rival}"] = percent(found)
    # What auto packs is fp32.
    if form.dtype == torch.float32:
        row["sparsity_auto"] = percent(first_winner(arguments.sparsity, auto_packs))
    row["sparsities"] = {f"{sparsity:g}": known[sparsity] for sparsity in sorted(known)}
    return row


def percent(sparsity: float | None) -> str:
    return "none" if sparsity is None else f"{100 * sparsity:.0f} %"


def first_winner(candidates: Sequence[float], wins: Callable[[float], bool]) -> float | None:
    """The first that wins, if all after it do, too: found by bisection. None if none does."""
    low, high = 0, len(candidates)
    while low < high:
        middle = (low + high) // 2
        if wins(candidates[middle]):
            high = middle
        else:
            low = middle + 1
    return candidates[low] if low < len(candidates) else None


def over_batches(
    arguments: argparse.Namespace, dense: list[Subject], packed: list[Subject], x: Tensor
) -> dict[int, dict[str, Ratios]]:
    """The ratios of every format by batch, up to the first batch at which none wins any more."""
    found: dict[int, dict[str, Ratios]] = {}
    for batch in arguments.batch:
        found[batch] = ratios(arguments, [*dense, *packed], x, batch)
        if all(found[batch][p.name]["speedup"] <= 1 for p in packed):
            break
    return found


def ratios(
    arguments: argparse.Namespace, subjects: list[Subject], x: Tensor, batch: int
) -> dict[str, Ratios]:
    """Speed-ups over both rivals of every subject that is not one itself."""
    candidates = [subject.at(x, batch) for subject in subjects]
    rows = timed(candidates, arguments, baselines=DENSE)
    packed = [name for name in rows if name not in DENSE]
    return {name: {ratio: rows[name][ratio] for ratio in RIVALS.values()} for name in packed}


if __name__ == "__main__":
    main()
