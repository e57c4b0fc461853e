"""What the functions of `dmlray.api` return."""

from pathlib import Path
from typing import NamedTuple

from dmlray.plans.run_folder import RunFolder
from dmlray.reporting.search_report import Findings
from dmlray.scores import Scores


class RunResult(NamedTuple):
    """The scores of a run, and the folder that holds all of it."""

    scores: Scores
    folder: RunFolder


class SearchResult(NamedTuple):
    """What a search has found, and the folder that holds all of it."""

    findings: Findings
    folder: RunFolder

    @property
    def best(self) -> Path:
        """The winner: a file of a legal experiment."""
        return self.folder.best
