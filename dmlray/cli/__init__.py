"""Words -> one api call -> words. Click only; what is heavy is imported inside the commands."""

import sys

try:
    from dmlray.cli.commands import main
except KeyboardInterrupt:
    print("interrupted", file=sys.stderr)
    sys.exit(130)

__all__ = ["main"]
