"""fairseq-generate in this process, with the time its model's layers take.

    python benchmarks/timed_generate.py DATA --path CHECKPOINT ... (as fairseq-generate)

Its last line is JSON: seconds in the GRU layers, in the output layer and in all of generation, as
fairseq itself counts it: without start, loading and packing. benchmarks/generate.py calls this.
"""

from __future__ import annotations

import json
import time
from typing import Any

# The plugin repairs fairseq, so it comes first.
import fairseq_rnnprune.plugin  # noqa: F401  # isort: skip
from fairseq.logging.meters import StopwatchMeter
from fairseq_cli import generate

from fairseq_rnnprune.layers import GRU, Linear

seconds: dict[str, float] = {}


def main() -> None:
    time_method(GRU, "forward", "recurrent")
    # rnnprune_gru_lm has one Linear layer, its output layer, unless that is tied.
    time_method(Linear, "forward", "output")
    stopped = StopwatchMeter.stop

    def stop(meter: StopwatchMeter, *arguments: Any, **keywords: Any) -> None:
        stopped(meter, *arguments, **keywords)
        seconds["generation"], seconds["tokens"] = meter.sum, meter.n

    StopwatchMeter.stop = stop
    generate.cli_main()
    print(json.dumps(seconds))


def time_method(owner: type, name: str, part: str) -> None:
    """Adds the seconds of every call of the method to those of the part."""
    method = getattr(owner, name)
    seconds[part] = 0.0

    def timed(*arguments: Any, **keywords: Any) -> Any:
        started = time.perf_counter()
        result = method(*arguments, **keywords)
        seconds[part] += time.perf_counter() - started
        return result

    setattr(owner, name, timed)


if __name__ == "__main__":
    main()
