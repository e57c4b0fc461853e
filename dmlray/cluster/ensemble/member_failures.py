"""Failures of an ensemble's members, and which of them are not retried."""

from dataclasses import dataclass

from dmlray.cluster.resources import Location

_TRIES = 3  # of one member without a new epoch, before it is given up


@dataclass
class _Failure:
    tries: int
    epochs: int
    reason: str
    where: Location | None = None  # of the last failure


class MemberFailures:
    """Counts each member's failures since its last new epoch."""

    def __init__(self) -> None:
        self._failures: dict[int, _Failure] = {}

    def add(self, index: int, reason: str, epochs: int, where: Location) -> bool:
        """Record a failure of member `index` after `epochs` epochs; return whether to retry it."""
        before = self._failures.get(index, _Failure(0, 0, ""))
        tries = before.tries + 1 if epochs <= before.epochs else 1
        self._failures[index] = _Failure(tries, epochs, reason, where)
        return tries < _TRIES

    def give_up(self, index: int, reason: str) -> None:
        """Record a failure of member `index` that a retry cannot fix."""
        self._failures[index] = _Failure(_TRIES, 0, reason)

    def last_at(self, index: int, where: Location) -> bool:
        """Return whether the last failure of member `index` was there."""
        return index in self._failures and self._failures[index].where == where

    def final(self) -> str:
        """Return a clause for each member that is given up."""
        return "; ".join(
            f"member {index} failed: {failure.reason}"
            for index, failure in self._failures.items()
            if failure.tries >= _TRIES
        )
