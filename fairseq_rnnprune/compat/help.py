"""`--help` with the options of the model, optimizer, ... that the same command line chooses."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import Any

from .wrap import wrap_once


def _names_model(given: Sequence[str]) -> bool:
    """Whether a command line chooses an architecture."""
    return any(word.partition("=")[0] in ("-a", "--arch") for word in given)


def complete_help() -> None:
    """Let `fairseq-train --optimizer NAME --help` list the options of that optimizer.

    fairseq 0.12 adds them after a first look at the command line, in which argparse answers
    --help already.
    """
    from fairseq import options

    def parse_args_and_arch(
        original: Callable,
        parser: argparse.ArgumentParser,
        input_args: Sequence[str] | None = None,
        parse_known: bool = False,
        suppress_defaults: bool = False,
        modify_parser: Callable | None = None,
    ) -> Any:
        given = sys.argv[1:] if input_args is None else input_args
        actions = parser._option_string_actions
        asked = {"-h", "--help"} & set(given)
        # Without a model fairseq has no complete help: its own short one is the answer.
        if suppress_defaults or not asked or not _names_model(given):
            return original(parser, input_args, parse_known, suppress_defaults, modify_parser)
        answers = {name: actions.pop(name) for name in ("-h", "--help")}
        looks = 0

        def modify(parser: argparse.ArgumentParser) -> None:
            # fairseq calls this before its first look and before the second, complete one.
            nonlocal looks
            looks += 1
            if modify_parser is not None:
                modify_parser(parser)
            if looks == 2:
                actions.update(answers)

        return original(parser, input_args, parse_known, suppress_defaults, modify)

    wrap_once(options, "parse_args_and_arch", parse_args_and_arch)
