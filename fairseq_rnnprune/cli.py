"""The `rnnprune` command: finds the subcommand, turns errors into a message and an exit status."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from typing import Any, NoReturn

from fairseq_rnnprune import __version__

from .bench.commands import add_bench
from .export import add_export
from .report.calibrate_command import add_calibrate
from .report.report_command import add_report
from .speech.prepare import add_prepare
from .speech.transcribe import add_transcribe
from .sweep.commands import add_sweep
from .sweep.plot_command import add_plot

# Each adds the parser of a subcommand and sets `run`, which gets the parsed arguments.
COMMANDS = (
    add_report,
    add_calibrate,
    add_bench,
    add_export,
    add_prepare,
    add_transcribe,
    add_sweep,
    add_plot,
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """As in argparse, but what a command does not know is its error, not that of `rnnprune`."""
        found, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns the exit status.

    0, 2 after a message about a user's error, 130 after Ctrl-C.
    """
    _ready_output()
    parser = _Parser(
        prog="rnnprune",
        description="Prepares, inspects and runs pruned fairseq models.",
        epilog="rnnprune COMMAND --help explains a command.",
    )
    parser.add_argument("--version", action="version", version=f"rnnprune {__version__}")
    subcommands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(subcommands)
    try:
        args = parser.parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has seen enough; Python must not fail again when it flushes at exit.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError, ImportError) as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()]
        print("rnnprune: error:", "\n".join(lines), file=sys.stderr)
        return 2
    return 0


def _ready_output() -> None:
    """Lets a closed output swallow what it gets, and a name that its encoding lacks be escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


if __name__ == "__main__":
    sys.exit(main())
