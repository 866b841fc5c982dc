"""One step of a GRU called from Python, batch 1, against the kernel's own time per step.

    OMP_NUM_THREADS=1 python benchmarks/step.py

The kernel's own time is that of a long sequence, which is one call, divided by its steps. What a
step takes beyond that is `overhead_us`: Python, torch's checks and tensors, the call itself.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch
from harness import LIMITS, RESULTS, Candidate, block_mask, parser, timed
from subjects import PACKED, quantize, run_exactly, sparse_gru
from torch import Tensor, nn

from fairseq_rnnprune.experiment import save_result

FORMATS = [form for form in PACKED if form.name in ("fp32-16x1", "bf16-16x1", "int8-16x4")]


def main() -> None:
    options = parser(__doc__, out=RESULTS / "step")
    options.add_argument("--hidden", type=int, default=512)
    options.add_argument("--input", type=int, default=1)
    options.add_argument("--sparsity", type=float, default=0.9)
    options.add_argument("--steps", type=int, default=256, help="of the sequence")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    with torch.no_grad(), warnings.catch_warnings():
        # torch's quantised GRU is deprecated.
        warnings.simplefilter("ignore")
        x = torch.randn(arguments.steps, 1, arguments.input)
        candidates = pairs(arguments.hidden, arguments.sparsity, x)
        rows = timed(candidates, arguments)
    figures = {}
    for name in [name for name in rows if f"{name} sequence" in rows]:
        kernel_us = rows[f"{name} sequence"]["us"] / arguments.steps
        overhead_us = rows[name]["us"] - kernel_us
        figures[name] = {**rows[name], "kernel_us": kernel_us, "overhead_us": overhead_us}
        print(f"{name:12} step {rows[name]['us']:6.1f} us, kernel {kernel_us:6.1f} us")
    hidden, width = arguments.hidden, arguments.input
    path = save_result(
        arguments.out,
        f"step-h{hidden}-i{width}-p{100 * arguments.sparsity:.0f}",
        arguments.seed,
        f"python benchmarks/step.py --hidden {hidden} --input {width} "
        f"--sparsity {arguments.sparsity:g} --steps {arguments.steps} --seed {arguments.seed}",
        figures,
        hidden=hidden,
        input=width,
    )
    print(f"written to {path}")


def pairs(hidden: int, sparsity: float, x: Tensor) -> list[Candidate]:
    """For each kind of GRU, one step from a state that is not zero, and the sequence x [T, 1, I].

    nn.GRUCell cannot run a sequence, so nn.GRU's stands for it: both run the same products.
    """
    dense = nn.GRU(x.shape[2], hidden)
    nn.init.normal_(dense.weight_hh_l0, std=hidden**-0.5)
    cell = nn.GRUCell(x.shape[2], hidden)
    for name, parameter in cell.named_parameters():
        parameter.copy_(getattr(dense, f"{name}_l0"))
    quantised = quantize(nn.Sequential(dense), {nn.GRU})[0]
    int8_limit = 2 * LIMITS[torch.int8]

    found = pair("dense", dense, dense, x, LIMITS[torch.float32])
    step = lambda x, h: cell(x[0], h[0])[None]  # noqa: E731
    found += pair("dense-cell", dense, dense, x, LIMITS[torch.float32], step)
    found += pair("dense-int8", quantised, dense, x, int8_limit)
    for form in FORMATS:
        pruned = copy.deepcopy(dense)
        pruned.weight_hh_l0 *= block_mask((3 * hidden, hidden), form.block_shape, sparsity)
        found += pair(form.name, sparse_gru(pruned, form), pruned, x, form.limit(sparsity))
    return found


def pair(
    name: str,
    module: nn.Module,
    gru: nn.GRU,
    x: Tensor,
    limit: float,
    step: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> list[Candidate]:
    """A step and the sequence x of a module that computes what `gru` does.

    `step` takes x [1, B, I] and h [1, B, H] to the new state [1, B, H]; by default the module does.
    """
    step = step or (lambda x, h: module(x, h)[0])
    exact = run_exactly(gru, x)
    middle = len(x) // 2
    # [1, B, H] and [1, B, I]: a state and the input that meets it.
    state, first = exact[middle - 1 : middle].float(), x[middle : middle + 1]
    return [
        Candidate(name, lambda: step(first, state), exact[middle : middle + 1], limit),
        Candidate(f"{name} sequence", lambda: module(x)[0], exact, limit),
    ]


if __name__ == "__main__":
    main()
