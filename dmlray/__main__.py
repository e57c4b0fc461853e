"""`python -m dmlray`."""

from dmlray.cli import main

main()
