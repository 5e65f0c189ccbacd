"""Descriptors, held by objects, and how many may still be opened."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final, final

NO_DESCRIPTORS: Final = "the server has no descriptors left: raise its limit (ulimit -n, LimitNOFILE=), or leave with other processes"


@final
class Descriptor:
    """Closes when nobody holds it any more: a message in a queue keeps the doorbell that it carries open, whoever ended meanwhile.

    Closing by hand was refused: the number of a closed descriptor is soon somebody else's, and would be sent in its place.
    """

    __slots__ = ("fd",)
    held: ClassVar[int] = 0

    def __init__(self, fd: int) -> None:
        self.fd: Final = fd
        Descriptor.held += 1

    def __del__(self) -> None:
        os.close(self.fd)
        Descriptor.held -= 1

    def fileno(self) -> int:
        """The number, while this object is held."""
        return self.fd


def doorbell() -> Descriptor:
    """An eventfd: writing it rings, and never blocks."""
    return Descriptor(os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC))


def ring(door: Descriptor) -> None:
    """Ring, unless it has been rung 2**64 times already."""
    try:
        os.eventfd_write(door.fd, 1)
    except BlockingIOError:
        return


class Budget:
    """Says no before the kernel does: an accept that fails with EMFILE would leave the client waiting without a reason."""

    def __init__(self, spare: int, watched: Callable[[], int]) -> None:
        """`watched()`: sockets and pidfds in the loop, which are not Descriptors."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        self._watched = watched
        self._others = sum(1 for _ in Path("/proc/self/fd").iterdir()) - Descriptor.held - watched()
        self._limit = hard - spare

    def has(self, n: int) -> bool:
        """Whether `n` more may be opened."""
        return self._others + Descriptor.held + self._watched() + n <= self._limit
