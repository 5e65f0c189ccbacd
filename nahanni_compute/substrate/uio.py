"""Guests: `/dev/uioN` of our driver (vm/driver). map0 is the registers, map1 the region, a device for each doorbell vector.

The device knows our peer id (IVPosition) and rings everybody (Doorbell): no descriptors of other peers, no notices, and no
word when the server is gone. The server's peer table says which slots this VM has.
"""

from __future__ import annotations

import mmap
import os
import re
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nahanni_compute._native import Endpoint, Region
from nahanni_compute.errors import AccessRefused, NoDevice, RegionCorrupt, UsageError
from nahanni_compute.region.keys import find_key
from nahanni_compute.region.layout import PEER_VM, PEERS, SLOTS, peer_word
from nahanni_compute.region.sizes import checked_region_size
from nahanni_compute.substrate.base import Attachment, Mapped, Substrate, map_region
from nahanni_compute.substrate.slots_guest import GuestSlots

SYSFS: Final = Path("/sys/class/uio")
_IV_POSITION: Final = 2  # of 32-bit registers
_BELL_BYTES: Final = 4  # what a read of a uio device takes


@dataclass(frozen=True)
class Device:
    """What sysfs says of a device, checked."""

    path: str
    registers_bytes: int
    region_bytes: int
    vectors: tuple[str, ...]  # a device for each vector, in order


def find_device(path: str, sysfs: Path = SYSFS) -> Device:
    """Raises NoDevice for what is not ours, with the reason."""
    match = re.fullmatch(r"/dev/(uio\d+)", path)
    if match is None:
        raise UsageError(f"expected '/dev/uioN', saw {path!r}")
    entry = sysfs / match[1]
    try:
        name = (entry / "name").read_text().strip()
        _refuse_others(path, name)
        registers, region = (int((entry / f"maps/map{i}/size").read_text(), 16) for i in (0, 1))
        vectors = _vectors(entry)
    except OSError as e:
        raise NoDevice(
            f"expected a device at {path}, saw {e.strerror} ({e.filename}): start the VM with -device ivshmem-doorbell on the socket "
            "of `nahanni server`, and load the module uio_ivshmem in it"
        ) from e
    try:
        checked_region_size(region)
    except UsageError as e:
        raise NoDevice(f"{path} is no region: {e}") from e
    return Device(path, registers, region, vectors)


def _refuse_others(path: str, name: str) -> None:
    if name == "uio_pci_generic":
        raise NoDevice(
            f"expected {path} to be driven by uio_ivshmem, saw uio_pci_generic, which has neither the region nor the doorbell's interrupt "
            "(a read fails, a poll never waits): unbind it from the device, and load uio_ivshmem"
        )
    if not name.startswith("ivshmem"):
        raise NoDevice(f"expected {path} to be driven by uio_ivshmem, saw {name!r}: name the /dev/uioN of an ivshmem device")


def _vectors(entry: Path) -> tuple[str, ...]:
    """All uio devices of the same PCI device; the driver names the vector at the end of each."""
    names = {e.name: (e / "name").read_text().strip() for e in (entry / "device/uio").iterdir()}
    return tuple(f"/dev/{uio}" for uio, name in sorted(names.items(), key=lambda item: int(re.sub(r".*\D|^$", "", item[1]) or 0)))


class UioSubstrate(Substrate):
    """An ivshmem device under our driver."""

    def _attach(self, role: int) -> UioAttachment:  # noqa: ARG002 (a guest's slot says it)
        device = find_device(self.name)
        resources: ExitStack[None] = ExitStack()
        with resources:
            fd = _open(device.path, resources)
            key = find_key(self.name, self._key_file)
            registers = mmap.mmap(fd, device.registers_bytes)
            resources.callback(registers.close)
            registers.madvise(mmap.MADV_DONTFORK)
            region = map_region(self.name, fd, device.region_bytes, key, resources, offset=mmap.PAGESIZE, is_device=True)
            peer = _iv_position(registers, device.path)
            slots = _slots_of(region.region, peer, device.path)
            taken = GuestSlots(region.region, peer, slots)
            index, incarnation = taken.take()
            resources.callback(taken.release)
            served = region.region.load(peer_word(peer, "vectors"))
            vector = index % max(min(len(device.vectors), served), 1)
            endpoint = Endpoint(region.region, slots[index], incarnation)
            resources.callback(endpoint.close)
            bell = _open(device.vectors[vector], resources)
            endpoint.set_bell(bell, _BELL_BYTES)
            endpoint.set_door_register(registers)
            return UioAttachment(region, endpoint, peer << 16 | vector, (taken, [fd, bell]), resources.pop_all())


class UioAttachment(Attachment):
    """A guest's process's."""

    def __init__(
        self, region: Mapped, endpoint: Endpoint, bell: int, ours: tuple[GuestSlots, list[int]], resources: ExitStack[None]
    ) -> None:
        super().__init__(region, endpoint, bell, resources)
        self._slots, self._opened = ours

    def prove_deaths(self) -> list[int]:
        """Of this kernel: the server sees VMs only."""
        return self._slots.prove_deaths()

    def leave(self) -> None:
        """Nobody to tell: e_state says it, and our record does when the mapping is gone."""

    def _descriptors(self) -> list[int]:
        return self._opened


def _open(path: str, resources: ExitStack[None]) -> int:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError as e:
        raise AccessRefused(
            f"expected to open {path}, saw {e.strerror}: join its group, or as root `chgrp nahanni {path} && chmod 0660 {path}`"
        ) from e
    except OSError as e:
        raise NoDevice(f"expected a device at {path}, saw {e.strerror}: is the VM's ivshmem device there, and uio_ivshmem loaded?") from e
    resources.callback(os.close, fd)
    return fd


def _iv_position(registers: mmap.mmap, path: str) -> int:
    with memoryview(registers) as view, view.cast("I") as words:
        peer = int(words[_IV_POSITION])  # one access of 4 bytes
    if not 0 < peer < PEERS:
        raise NoDevice(f"expected the peer id of this VM in the registers of {path}, saw {peer:#x}: its device must be ivshmem-doorbell")
    return peer


def _slots_of(region: Region, peer: int, path: str) -> range:
    state, word = (region.load(peer_word(peer, field)) for field in ("state", "slots"))
    slots = range(word >> 32, (word >> 32) + (word & 0xFFFF_FFFF))
    if state != PEER_VM or not 0 < slots.start < slots.stop <= SLOTS:
        raise RegionCorrupt(
            f"expected the server's table to have peer {peer} of {path} as a VM with slots, saw state {state}, {slots}: restart both"
        )
    return slots
