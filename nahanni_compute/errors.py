"""Every error that this package raises by itself. Who is to blame is in the tree:

    NahanniError
    +-- UsageError         the caller
    |   +-- ForkedEndpoint     a fork used an endpoint of its parent
    |   +-- ClosedError        what was used had been closed
    |   +-- NoSuchWorker       a name that no worker has
    +-- TaskError          the task
    |   +-- TaskCancelled      it was cancelled; also a concurrent.futures.CancelledError
    |   +-- WorkerDied         its worker died, too often or with rerun=False
    |   +-- UnpicklableError   it, an argument or its result cannot travel
    +-- RegionError        the region, or the way to it
    |   +-- RegionFull         no memory, slot or descriptor is left
    |   +-- RegionCorrupt      words in the region contradict each other
    |   +-- VersionMismatch    another format, protocol or Python than ours
    |   +-- AccessRefused      a key or a permission is missing
    |   +-- NoDevice           no socket or device there, or not one of ours
    +-- PeerError          another process
        +-- SchedulerDied      the scheduler ended, or none came in time
        +-- ServerDied         the region's server ended

An exception that a task raised keeps its own type and is not in this tree. Each message says what was expected, what was
seen, and what to do.
"""

from __future__ import annotations

import concurrent.futures


class NahanniError(Exception):
    """The root."""


class UsageError(NahanniError):
    """The caller asked for something that cannot be."""


class ForkedEndpoint(UsageError):
    """A fork is not a member of the region (PROTOCOL.md, D3)."""


class ClosedError(UsageError):
    """What was used had been closed."""


class NoSuchWorker(UsageError):
    """No worker has this name, and none that went away had it."""


class TaskError(NahanniError):
    """A task has no result, and not because of an exception of its own."""


class TaskCancelled(TaskError, concurrent.futures.CancelledError):
    """The task was cancelled before it had a result."""


class WorkerDied(TaskError):
    """The worker died while it ran the task, as often as the task allows."""


class UnpicklableError(TaskError):
    """A function, an argument or a result cannot be pickled, or not unpickled at the other end."""


class RegionError(NahanniError):
    """The region cannot be reached, used or believed."""


class RegionFull(RegionError):
    """The host has no memory for the region, or the region no room."""


class RegionCorrupt(RegionError):
    """Bytes in the region contradict the protocol."""


class VersionMismatch(RegionError):
    """The other side speaks another version."""


class AccessRefused(RegionError):
    """A key or a permission is missing."""


class NoDevice(RegionError):
    """There is no region at this address."""


class PeerError(NahanniError):
    """Another process of the cluster ended."""


class SchedulerDied(PeerError):
    """The scheduler ended, or none joined in time."""


class ServerDied(PeerError):
    """The server ended, and the region's membership with it."""
