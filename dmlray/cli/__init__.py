"""Words -> one api call -> words. Click only; what is heavy is imported inside the commands."""

import signal
import sys

try:
    from dmlray.cli.commands import main
except KeyboardInterrupt:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C would break the exit
    print("interrupted", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
