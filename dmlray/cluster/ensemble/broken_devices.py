"""Where slots broke: a GPU or node that breaks one member after another is not used any more."""

from collections.abc import Callable

from dmlray.cluster.resources import Location

_MEMBERS = 3  # that failed at one location in a row


class BrokenDevices:
    """Counts the members that broke a slot at each location since one succeeded there.

    Members and not slots, for a member that fails everywhere is no fault of a location.
    """

    def __init__(self) -> None:
        self._members: dict[Location, set[int]] = {}
        self.unused: set[Location] = set()

    def record_failure(
        self, where: Location, index: int, capacity: Callable[[set[Location]], int]
    ) -> bool:
        """Member `index` broke its slot: whether the location is not used from now on.

        Args:
            room: How many slots there can be without some locations. The last one with room is
                used whatever happens there.
        """
        self._members.setdefault(where, set()).add(index)
        if where in self.unused or len(self._members[where]) < _MEMBERS:
            return False
        if not capacity(self.unused | {where}):
            return False
        self.unused.add(where)
        return True

    def record_success(self, where: Location) -> None:
        """A member succeeded there."""
        self._members.pop(where, None)
        self.unused.discard(where)

    def forget(self) -> None:
        """Use all locations again, for there is nothing else left."""
        self._members.clear()
        self.unused.clear()
