"""Options that several subcommands share."""

from __future__ import annotations

import argparse


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
    from fairseq_rnnprune.pruning.by_type import read_types

    return [] if text is None else read_types("--types", text)


def parse_block_shapes(text: str | None, types: list[str]) -> dict[str, tuple[int, int]]:
    """Reads --block-shape into shapes by type; empty if it was not given."""
    from fairseq_rnnprune.pruning.by_type import read_block_shape, read_by_type

    return {} if text is None else read_by_type("--block-shape", text, types, read_block_shape)
