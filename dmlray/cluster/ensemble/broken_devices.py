"""GPUs and nodes on which several members in a row failed, and which are not used any more."""

from collections.abc import Callable

from dmlray.cluster.resources import Location

_MEMBERS = 3  # failed at one location in a row


class BrokenDevices:
    """Counts the members that crashed an actor at each location since the last success there.

    Counts different members: one that fails everywhere is not the fault of a location.
    """

    def __init__(self) -> None:
        self._members: dict[Location, set[int]] = {}
        self.unused: set[Location] = set()

    def record_failure(
        self, where: Location, index: int, capacity: Callable[[set[Location]], int]
    ) -> bool:
        """Record that member `index` crashed its actor; return whether to drop the location now.

        Args:
            where: Location of the actor.
            index: Number of the member.
            capacity: Returns the number of actors that fit without some locations. The last usable
                location is never dropped.
        """
        self._members.setdefault(where, set()).add(index)
        if where in self.unused or len(self._members[where]) < _MEMBERS:
            return False
        if not capacity(self.unused | {where}):
            return False
        self.unused.add(where)
        return True

    def record_success(self, where: Location) -> None:
        """Record that a member succeeded at a location."""
        self._members.pop(where, None)
        self.unused.discard(where)

    def forget(self) -> None:
        """Use all locations again, when none is left."""
        self._members.clear()
        self.unused.clear()
