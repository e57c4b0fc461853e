"""What went wrong with the members of an ensemble, and which are not tried again."""

from dataclasses import dataclass

from dmlray.cluster.resources import Location

_TRIES = 3  # of one member without an epoch gained, before the ensemble gives up on it


@dataclass
class _Failure:
    tries: int
    epochs: int
    reason: str
    where: Location | None = None  # the last one


class MemberFailures:
    """Counts each member's failures since it last gained an epoch."""

    def __init__(self) -> None:
        self._failures: dict[int, _Failure] = {}

    def add(self, index: int, reason: str, epochs: int, where: Location) -> bool:
        """Member `index` failed there after so many epochs in all: whether to try it again."""
        before = self._failures.get(index, _Failure(0, 0, ""))
        tries = before.tries + 1 if epochs <= before.epochs else 1
        self._failures[index] = _Failure(tries, epochs, reason, where)
        return tries < _TRIES

    def give_up(self, index: int, reason: str) -> None:
        """Member `index` failed in a way that no retry would mend."""
        self._failures[index] = _Failure(_TRIES, 0, reason)

    def last_at(self, index: int, where: Location) -> bool:
        """Whether member `index` failed there and nowhere since."""
        return index in self._failures and self._failures[index].where == where

    def final(self) -> str:
        """A clause for each member that is not tried again."""
        return "; ".join(
            f"member {index} failed: {failure.reason}"
            for index, failure in self._failures.items()
            if failure.tries >= _TRIES
        )
