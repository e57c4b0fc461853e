"""Words -> one api call -> words. Click only; what is heavy is imported inside the commands."""

from dmlray.cli.commands import main

__all__ = ["main"]
