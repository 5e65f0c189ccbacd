"""How much is granted to whom (B7): groups of ranges that last about a millisecond, one group in advance of what runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nahanni_compute.scheduler.bundles import Bundle
from nahanni_compute.scheduler.events import Grant, Instruction
from nahanni_compute.scheduler.turns import Turns

if TYPE_CHECKING:
    from nahanni_compute.region.slots import Key

TARGET_NS: Final = 1_000_000  # what a group should last
ADVANCE_MEAN_MAX_NS: Final = 2 * TARGET_NS  # longer items are not granted in advance; from here on BACK would return them (B7)
FIRST_ITEMS: Final = 16  # in a group while nothing is known of their length
WORTH_NS: Final = 25_000  # a wake-up: items that last less together are not split among workers
GROUP_RANGES_MAX: Final = 64
CREDITS: Final = 256  # ranges granted to a worker and not answered: half of its ring's 512 descriptors (R5)
ANY_MEAN: Final = float("inf")


class Group:
    """Ranges that were granted together; over when the last is answered."""

    __slots__ = ("ranges_out",)

    def __init__(self) -> None:
        self.ranges_out = 0


class Range:
    """The keeper's entry of a range that is out. BACK lowers `hi`, at once (B7). No group: beside tasks, no load."""

    __slots__ = ("bundle", "group", "hi", "lo")

    def __init__(self, bundle: Bundle, lo: int, hi: int, group: Group | None) -> None:
        self.bundle, self.lo, self.hi, self.group = bundle, lo, hi, group


class Worker:
    """A worker and what it holds."""

    __slots__ = ("backs", "groups", "is_barred", "key", "ranges", "threads")

    def __init__(self, key: Key, threads: int) -> None:
        self.key, self.threads = key, threads
        self.ranges: dict[int, Range] = {}
        self.groups = 0
        self.backs: set[int] = set()  # ranges that it sent BACK of, and not yet DONE
        self.is_barred = False  # NoGrants

    def answer(self, range_id: int) -> None:
        """One of its ranges is out no more."""
        self.backs.discard(range_id)
        group = self.ranges.pop(range_id).group
        if group is not None:
            group.ranges_out -= 1
            if not group.ranges_out:
                self.groups -= 1


class Granting:
    """Turns what waits into grants. Range ids are its own and never used again."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.workers: dict[Key, Worker] = {}
        self.next_range_id = 1
        self._able: list[Worker] = []  # those that are not barred, and
        self._threads = self._threads_most = 0  # theirs in all, and of one

    def workers_changed(self) -> None:
        """One came, went or was barred."""
        self._able = [worker for worker in self.workers.values() if not worker.is_barred]
        self._threads = sum(worker.threads for worker in self._able)
        self._threads_most = max((worker.threads for worker in self._able), default=0)

    def grant(self, out: list[Instruction]) -> None:
        """One group for each thread that has none, then one in advance. None to who sent BACK: it would come back, again and again."""
        for groups in range(2 * self._threads_most):
            for worker in self._able:
                if worker.groups > groups or groups >= 2 * worker.threads or worker.backs or len(worker.ranges) >= CREDITS:
                    continue
                in_advance = groups >= worker.threads
                bundle = self.turns.next(ADVANCE_MEAN_MAX_NS if in_advance else ANY_MEAN)
                if bundle is not None:
                    self._grant_group(worker, bundle, out)
                elif not in_advance:
                    return  # nothing waits

    def _grant_group(self, worker: Worker, bundle: Bundle, out: list[Instruction]) -> None:
        items, group, unheld = quota(bundle, self._threads), Group(), bundle.unheld
        room = min(GROUP_RANGES_MAX, CREDITS - len(worker.ranges))
        worker.groups += 1
        while items > 0 and group.ranges_out < room and unheld.items:
            lo, hi = unheld.take(items)
            items -= hi - lo
            group.ranges_out += 1
            out.append(Grant(worker.key, bundle.key, self.hold(worker, bundle, lo, hi, group), lo, hi))

    def hold(self, worker: Worker, bundle: Bundle, lo: int, hi: int, group: Group | None) -> int:
        """Enter lo..hi as held by the worker; the id of the range."""
        range_id = self.next_range_id
        self.next_range_id = range_id + 1
        worker.ranges[range_id] = Range(bundle, lo, hi, group)
        bundle.ranges_out += 1
        bundle.client.ranges_out += 1
        return range_id


def quota(bundle: Bundle, threads: int) -> int:
    """Items of the next group: what lasts TARGET_NS by the running mean, and at most half of an even share of what is left,
    unless that is worth less than the wake-up of whom it is granted to."""
    share = -(-bundle.unheld.items // (2 * threads))
    if not bundle.mean_ns:
        return max(1, min(share, FIRST_ITEMS))
    return max(1, min(max(share, int(WORTH_NS / bundle.mean_ns)), int(TARGET_NS / bundle.mean_ns)))
