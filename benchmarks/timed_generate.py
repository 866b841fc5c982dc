"""fairseq-generate in this process, with the time its model's layers take.

    python benchmarks/timed_generate.py DATA --path CHECKPOINT ... (as fairseq-generate)

Its last line is JSON: seconds in each part of the model that was called, and in all of generation,
as fairseq itself counts it: without start, loading and packing. generate.py and translate.py call
this.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

# The plugin repairs fairseq, so it comes first.
import fairseq_rnnprune.plugin  # noqa: F401  # isort: skip
from fairseq.logging.meters import StopwatchMeter
from fairseq_cli import generate

from fairseq_rnnprune.layers import GRU
from fairseq_rnnprune.models.attention import Attention, Memory
from fairseq_rnnprune.models.gru_decoder import AttentionalGRUDecoder
from fairseq_rnnprune.models.gru_lm import GRUDecoder

# Methods, and the part of generation that each is. What one calls counts to its own part alone.
METHODS: tuple[tuple[type, str, Callable[[Any], str]], ...] = (
    (GRU, "forward", lambda gru: "encoder" if gru.bidirectional else "decoder"),
    # Beside the GRU's steps, which are in here if dense: the embeddings' part of its gates.
    (AttentionalGRUDecoder, "_run", lambda _: "decoder"),
    (AttentionalGRUDecoder, "_first_state", lambda _: "attention"),
    (Attention, "forward", lambda _: "attention"),
    (Memory, "forward", lambda _: "attention"),
    (AttentionalGRUDecoder, "output_layer", lambda _: "output"),
    (GRUDecoder, "output_layer", lambda _: "output"),
)

seconds: defaultdict[str, float] = defaultdict(float)
# Seconds within the timed methods that the running ones have called, outermost first.
inner: list[float] = []


def main() -> None:
    seconds.clear()
    for owner, name, part in METHODS:
        time_method(owner, name, part)
    stopped = StopwatchMeter.stop

    def stop(meter: StopwatchMeter, *arguments: Any, **keywords: Any) -> None:
        stopped(meter, *arguments, **keywords)
        seconds["generation"] = meter.sum

    StopwatchMeter.stop = stop
    generate.cli_main()
    print(json.dumps(seconds))


def time_method(owner: type, name: str, part: Callable[[Any], str]) -> None:
    """Adds the seconds of every call of the method to those of the part."""
    method = getattr(owner, name)

    def timed(self: Any, *arguments: Any, **keywords: Any) -> Any:
        inner.append(0.0)
        started = time.perf_counter()
        result = method(self, *arguments, **keywords)
        taken = time.perf_counter() - started
        seconds[part(self)] += taken - inner.pop()
        if inner:
            inner[-1] += taken
        return result

    setattr(owner, name, timed)


if __name__ == "__main__":
    main()
