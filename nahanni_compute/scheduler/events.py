"""What the scheduler's state machines are told, and what they tell the service to do. Values only: a log of events replays a run.

`worker`, `client` and `endpoint` are keys, (slot, incarnation); `bundle` is (offset of its block, generation). NamedTuples, since
they are the cheapest records that Python makes, and a scheduler makes 10^5 a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from nahanni_compute.messages import BundleKey

if TYPE_CHECKING:
    from nahanni_compute.region.slots import Key

# -- events


class WorkerJoined(NamedTuple):
    """A worker was welcomed; it runs `threads` ranges at a time."""

    worker: Key
    name: str
    threads: int


class WorkerGone(NamedTuple):
    """A worker left or is dead, and all it ever said was handed in before (A1). `unset`: by range id, the runs of its range that
    have no status, no entry: all of it. `current`: the items it died in; none when it left in order, which blames nobody."""

    worker: Key
    unset: dict[int, list[tuple[int, int]]]
    current: list[tuple[BundleKey, int]]


class Opened(NamedTuple):
    """OPEN: a bundle is there, without items yet. `target`: the worker that a CONTROL bundle is for; None: there is no such worker."""

    bundle: BundleKey
    client: Key
    capacity: int
    flags: int
    target: Key | None = None


class Counted(NamedTuple):
    """The count of a bundle was loaded: there are `n` items (S5)."""

    bundle: BundleKey
    n: int


class Closed(NamedTuple):
    """CLOSE: no more items than the `n` of a last load of the count (S5)."""

    bundle: BundleKey
    client: Key
    n: int


class Released(NamedTuple):
    """RELEASE: the client has no future and no view of it any more."""

    bundle: BundleKey
    client: Key


class Done(NamedTuple):
    """DONE: the right to a range is given back; what lies before `next` was run, in `ns`, and `exceptions` of it raised."""

    worker: Key
    range_id: int
    next: int
    ns: int
    exceptions: int


class Back(NamedTuple):
    """BACK: what lies from `begin` on was not begun and is given back; the item before may run on."""

    worker: Key
    range_id: int
    begin: int


class ChunkTold(NamedTuple):
    """CHUNK: statuses of the bundle will refer into this block of the worker's (B4)."""

    worker: Key
    bundle: BundleKey
    offset: int
    nbytes: int


class NoGrants(NamedTuple):
    """Grant it nothing more: it was expelled, and what it holds stays out until its death (D5), or its end is just being read (A1)."""

    worker: Key


class ClientGone(NamedTuple):
    """A client left or is dead, and all it ever said was handed in before (A4)."""

    client: Key


Event = WorkerJoined | WorkerGone | Opened | Counted | Closed | Released | Done | Back | ChunkTold | NoGrants | ClientGone

# -- instructions


class Grant(NamedTuple):
    """GRANT: the right to run lo..hi, until the DONE of `range_id`."""

    worker: Key
    bundle: BundleKey
    range_id: int
    lo: int
    hi: int


class Control(NamedTuple):
    """CONTROL: as Grant, beside what the worker runs."""

    worker: Key
    bundle: BundleKey
    range_id: int
    lo: int
    hi: int


class Lose(NamedTuple):
    """Store LOST as the status of an item, which nobody holds, and wake who waits for it (B11)."""

    bundle: BundleKey
    item: int


class Drop(NamedTuple):
    """DROP: the worker's chunks of the bundle are its own again (B13)."""

    worker: Key
    bundle: BundleKey


class Forget(NamedTuple):
    """FORGOT: the bundle's block is its client's again; nothing refers to the bundle, and the keeper knows it no more (B13)."""

    client: Key
    bundle: BundleKey


class BundleGone(NamedTuple):
    """As Forget, where the client is gone: nobody is told, the keeper's memory of blocks and chunks ends (A4)."""

    bundle: BundleKey


class Violation(NamedTuple):
    """An endpoint said what it may not say. Nothing was changed by it; expel the endpoint (decision 10)."""

    endpoint: Key
    reason: str


class Commit(NamedTuple):
    """COMMIT: ask the server to back these arena units with memory (M6)."""

    offset: int
    nbytes: int


class Give(NamedTuple):
    """ARENA: these units are the endpoint's from here on; store its key in their words of the arena table first (K2)."""

    endpoint: Key
    offset: int
    nbytes: int


class Refuse(NamedTuple):
    """REFUSED: the endpoint gets no arena of `nbytes`; `reason` is one of layout's REASON_*."""

    endpoint: Key
    nbytes: int
    reason: int


class Punch(NamedTuple):
    """PUNCH: nobody's any more; clear their words of the arena table, then let the server take the pages back (M6)."""

    offset: int
    nbytes: int


Instruction = Grant | Control | Lose | Drop | Forget | BundleGone | Violation | Commit | Give | Refuse | Punch
