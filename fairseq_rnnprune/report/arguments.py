"""Options that several subcommands share."""

from __future__ import annotations

import argparse
import re


def add_block_shape(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds --block-shape; `default` completes its help."""
    parser.add_argument(
        "--block-shape",
        metavar="R,C",
        help="rows,columns of a block, for all types or by type (recurrent=4,4,input=8,1) "
        f"(default: {default})",
    )


def add_types(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds --types; `default` completes its help."""
    parser.add_argument(
        "--types",
        metavar="TYPE,...",
        help=f"among recurrent, input, linear, embedding (default: {default})",
    )


def parse_types(text: str | None) -> list[str]:
    """Reads --types; an empty list if it was not given."""
    from fairseq_rnnprune.pruning import TYPES

    if text is None:
        return []
    types = [t.strip() for t in text.split(",")]
    if not set(types) <= set(TYPES):
        raise ValueError(f"--types: expected some of {','.join(TYPES)}, got {text!r}")
    return list(dict.fromkeys(types))


def parse_block_shapes(text: str | None, types: list[str]) -> dict[str, tuple[int, int]]:
    """Reads --block-shape into shapes by type; empty if it was not given."""
    if text is None:
        return {}
    parts = re.split(r",(?=[a-z]+=)", text) if "=" in text else [f"{t}={text}" for t in types]
    shapes = {}
    for part in parts:
        match = re.fullmatch(r"([a-z]+)=(\d+)[,x](\d+)", part)
        if not match or match[1] not in types or 0 in (int(match[2]), int(match[3])):
            raise ValueError(
                "--block-shape: expected rows,columns such as 4,4, or TYPE=4,4,TYPE=8,1 with "
                f"types among {','.join(types)}, got {text!r}"
            )
        shapes[match[1]] = (int(match[2]), int(match[3]))
    return shapes
