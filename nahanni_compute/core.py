"""What the C core borrows from Python: the pickler and the exception classes. Called once a process, before the region is opened."""

from __future__ import annotations

from nahanni_compute import _native, errors, pickling


def configure() -> None:
    """Idempotent."""
    _native.configure(
        dumps=pickling.dumps,
        loads=pickling.loads,
        dump_exception=pickling.dump_exception,
        load_exception=pickling.load_exception,
        cancelled=errors.TaskCancelled,
        lost=errors.WorkerDied,
        corrupt=errors.RegionCorrupt,
        refused=errors.AccessRefused,
        forked=errors.ForkedEndpoint,
        closed=errors.ClosedError,
    )
