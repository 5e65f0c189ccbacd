"""Which slots are given out. Pure.

A slot whose endpoint ended is given again only when the keeper has handled the end and said RETIRE, or when there is no keeper
(A1: giving the slot back comes last). The keeper's own slot is pinned while the header names it.
"""

from __future__ import annotations

from nahanni_compute.region.layout import SLOTS

INCARNATION_MAX = 1 << 32  # a guest writes its own; a slot where one lies beyond reason is not given again


class Slots:
    """Slot 0 is the server's from the start."""

    def __init__(self, count: int = SLOTS) -> None:
        self._free = [False] + [True] * (count - 1)
        self._last = [0] * count  # the highest incarnation known
        self._retired = [0] * count
        self._owed: dict[int, int] = {}  # ended slot -> incarnation whose RETIRE is awaited
        self._pinned = 0
        self._lent_to_guests: set[int] = set()
        self.used = 1

    def give(self, n: int) -> range | None:
        """The first `n` free slots in a row, or None."""
        run = 0
        for slot, free in enumerate(self._free):
            run = run + 1 if free else 0
            if run == n:
                found = range(slot + 1 - n, slot + 1)
                self._free[found.start : found.stop] = [False] * n
                self.used = max(self.used, found.stop)
                return found
        return None

    def last(self, slot: int) -> int:
        """The highest incarnation that this slot had."""
        return self._last[slot]

    def begin(self, slot: int) -> int:
        """A new incarnation of a slot given to a host process."""
        self._last[slot] += 1
        return self._last[slot]

    def lend_to_guest(self, slot: int) -> int:
        """A VM has it now, whose endpoints count their own incarnations. The highest there was before."""
        self._lent_to_guests.add(slot)
        return self._last[slot]

    def was_a_guests(self, slot: int) -> bool:
        """Whether a VM has it or had it: then what others saw in its e_state need not be what stands there now."""
        return slot in self._lent_to_guests

    def seen(self, slot: int, incarnation: int) -> bool:
        """A guest's endpoint named its own incarnation. False: nobody can go on from there."""
        if incarnation >= INCARNATION_MAX:
            return False
        self._last[slot] = max(self._last[slot], incarnation)
        return True

    def end(self, slot: int, owed: int) -> None:
        """Its endpoint is gone. `owed`: the incarnation that the keeper must retire first; 0 for none."""
        if owed > self._retired[slot]:
            self._owed[slot] = owed
        else:
            self._release(slot)

    def retire(self, slot: int, incarnation: int) -> None:
        """The keeper has handled that end. May come before `end`."""
        self._retired[slot] = max(self._retired[slot], incarnation)
        if self._owed.get(slot, incarnation + 1) <= incarnation:
            self._release(slot)

    def forgive(self) -> None:
        """There is no keeper: nothing is owed."""
        for slot in list(self._owed):
            self._release(slot)

    def pin(self, slot: int) -> None:
        """The keeper's slot is not given again before the next call. 0: none."""
        before, self._pinned = self._pinned, slot
        if before and before != slot and before in self._owed:
            self._release(before)

    def _release(self, slot: int) -> None:
        if slot == self._pinned:
            self._owed[slot] = self._last[slot]
            return
        self._owed.pop(slot, None)
        self._retired[slot] = 0  # a guest may have named an incarnation that its slot never comes to
        self._free[slot] = True
