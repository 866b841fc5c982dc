"""Two threads against one: a packed GRU's sequence at batch 1, in the same process and rounds.

python benchmarks/threads.py
"""

from __future__ import annotations

import dataclasses
import warnings

import torch
from harness import RESULTS, parser, timed
from subjects import DISTINCT, PACKED, grus

from fairseq_rnnprune.experiment import save_result

NAMES = ("dense", "fp32-16x1", "fp32-4x4", "bf16-16x1", "int8-16x4")


def main() -> None:
    options = parser(__doc__, out=RESULTS / "threads", seconds=6.0)
    options.add_argument("--hidden", type=int, nargs="+", default=[384, 512, 656, 1760, 2560])
    options.add_argument("--sparsity", type=float, default=0.9)
    options.add_argument("--steps", type=int, default=64)
    options.add_argument("--threads", type=int, default=2, help="against one")
    arguments = options.parse_args()
    formats = [form for form in PACKED if form.name in NAMES]
    for hidden in arguments.hidden:
        torch.manual_seed(arguments.seed)
        with torch.no_grad(), warnings.catch_warnings():
            # torch's quantised GRU is deprecated.
            warnings.simplefilter("ignore")
            x = torch.randn(arguments.steps, DISTINCT, 1)
            single = [
                dataclasses.replace(subject.at(x, 1), threads=1)
                for subject in grus(hidden, arguments.sparsity, x, formats)
                if subject.name in NAMES
            ]
            several = [
                dataclasses.replace(c, name=f"{c.name} threads", threads=arguments.threads)
                for c in single
            ]
            candidates = [c for pair in zip(single, several, strict=True) for c in pair]
            rows = timed(candidates, arguments, arguments.steps)
        figures = {}
        for name in (candidate.name for candidate in single):
            one, more = rows[name]["us"], rows[f"{name} threads"]["us"]
            figures[name] = {"us": one, "threads_us": more, "gain": one / more}
            print(f"h{hidden} {name:12} {one:8.1f} us, {arguments.threads} threads {more:8.1f} us")
        path = save_result(
            arguments.out,
            f"threads-h{hidden}",
            arguments.seed,
            f"python benchmarks/threads.py --hidden {hidden} --sparsity {arguments.sparsity:g} "
            f"--steps {arguments.steps} --threads {arguments.threads} --seed {arguments.seed}",
            figures,
            hidden=hidden,
        )
        print(f"written to {path}", flush=True)


if __name__ == "__main__":
    main()
