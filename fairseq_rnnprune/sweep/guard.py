"""Runs a command that ends when the sweep ends, even if that is killed: guard.py COMMAND...

The sweep holds the other end of the standard input, and never writes to it. The sweep's locks,
which the command inherits, are held until the last process of the command is gone.
"""

import os
import signal
import subprocess
import sys
import threading


def main() -> int:
    stopped = threading.Event()
    # A handler, and not SIG_IGN, which the command would inherit.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stopped.set())
    try:
        command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, close_fds=False)
    except OSError as error:
        print(f"{sys.argv[1]}: {error.strerror}")
        return 127
    threading.Thread(target=end_with_the_sweep, daemon=True).start()
    status = command.wait()
    if stopped.is_set():
        # What the command has started and left behind.
        os.killpg(0, signal.SIGKILL)
    return status if status >= 0 else 128 - status


def end_with_the_sweep() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
