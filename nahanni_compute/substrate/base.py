"""The one interface of all substrates, and what they share.

attachment = open_substrate(address, key_file).attach(role)     # a place in the region; not yet a member
member = Member(attachment, role, name)                         # region/membership.py
...
attachment.leave()                                              # after the last store
attachment.close()
"""

from __future__ import annotations

import mmap
import os
import time
import weakref
from abc import ABC, abstractmethod
from contextlib import ExitStack
from typing import Final, NamedTuple

from nahanni_compute._native import Endpoint, Region
from nahanni_compute.errors import NoDevice, RegionCorrupt, VersionMismatch
from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEADER
from nahanni_compute.substrate.forks import Span, close_all, map_again

_LOOK_S: Final = 0.05


class Substrate(ABC):
    """A kind of address."""

    def __init__(self, name: str, key_file: str | os.PathLike[str] | None) -> None:
        self.name = name  # the address, in full
        self._key_file = key_file

    def attach(self, role: int, wait_s: float = 0.0) -> Attachment:
        """Map the region and take a slot. Waits for the server or device to appear, up to `wait_s`.

        Raises NoDevice, AccessRefused, VersionMismatch, RegionFull (no slot is free); nothing stays open then.
        """
        end = time.monotonic() + wait_s
        while True:
            try:
                return self._attach(role)
            except NoDevice:
                if time.monotonic() >= end:
                    raise
            time.sleep(_LOOK_S)

    @abstractmethod
    def _attach(self, role: int) -> Attachment:
        """Once."""


class Attachment(ABC):
    """A place in the region: mapping, slot, doorbell. Owns its descriptors; the endpoint only borrows them."""

    def __init__(self, place: Mapped, endpoint: Endpoint, bell: int, resources: ExitStack[None]) -> None:
        """`bell`: peer << 16 | vector, where to ring us. `resources`: all else there is to give up, after the mapping."""
        self.name, self.region = place.name, place.region
        self.endpoint, self.bell = endpoint, bell
        self._span, self._resources = place.span, resources
        self._forked = False
        _all.add(self)

    @abstractmethod
    def prove_deaths(self) -> list[int]:
        """Endpoints of the same kernel that are certainly gone, and whom only we can call dead (D2): stored now, their slots.

        Cheap; for every second or so. Whoever asked rings the keeper if there are any.
        """

    @abstractmethod
    def leave(self) -> None:
        """Say that no store of ours follows (D3): the endpoint is closed by now. Idempotent."""

    def close(self) -> None:
        """Leave, and give up mapping and descriptors. Idempotent.

        A mapping that somebody still looks into stays, and we a silent member, until they let go: call again then.
        """
        if self._forked:
            return
        self.endpoint.close()
        self.region.close()
        try:
            self._span.mapping.close()
        except BufferError:
            return
        self.leave()
        self._resources.close()
        _all.discard(self)

    @abstractmethod
    def _descriptors(self) -> list[int]:
        """Those that a fork must not keep."""

    def after_fork_in_child(self) -> None:
        """D3. Nothing of this is ours any more, and `close` does nothing."""
        self._forked = True
        self._resources.pop_all()
        map_again(self._span)
        close_all(self._descriptors())


_all: weakref.WeakSet[Attachment] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for attachment in list(_all):
        attachment.after_fork_in_child()
    _all.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class Mapped(NamedTuple):
    """The region as mapped from `name`."""

    name: str
    span: Span
    region: Region


def map_region(
    name: str, fd: int, nbytes: int, key: bytes, resources: ExitStack[None], *, offset: int = 0, is_device: bool = False
) -> Mapped:
    """Raises VersionMismatch, RegionCorrupt. Forks do not get the mapping (D3)."""
    mapping = mmap.mmap(fd, nbytes, offset=offset)
    resources.callback(mapping.close)
    mapping.madvise(mmap.MADV_DONTFORK)
    region = Region(mapping, key)
    resources.callback(region.close)
    _check_header(region, name)
    return Mapped(name, Span(mapping, fd, offset, is_device), region)


def _check_header(region: Region, name: str) -> None:
    """Whether this is a region, and of our format. Raises VersionMismatch, RegionCorrupt."""
    magic, version, nbytes = (region.load(HEADER[field]) for field in ("magic", "format", "size"))
    if magic != layout.MAGIC:
        raise VersionMismatch(
            f"expected a Nahanni region at {name}, saw magic {magic:#x}: its server must be `nahanni server`, not another ivshmem server"
        )
    if version != layout.FORMAT:
        advice = "install the same nahanni-compute here and where its server runs"
        raise VersionMismatch(f"expected region format {layout.FORMAT} at {name}, saw {version}: {advice}")
    if nbytes != region.size or region.load(HEADER["arena_unit"]) != layout.arena_unit(nbytes):
        advice = "start its server again"
        raise RegionCorrupt(f"expected a header for the {region.size} bytes mapped from {name}, saw one for {nbytes}: {advice}")
