"""The driver's device with nothing of ours between: for programs in guests, which get this file's text in front of theirs."""

from __future__ import annotations

import ctypes
import mmap
import os
import select
import struct
from pathlib import Path
from typing import Any, Protocol

PAGE = 4096
POSITION, DOORBELL = 2, 3  # 32-bit registers of BAR0 (QEMU: docs/specs/ivshmem-spec)
ANSWER_S = 20.0
LISTENS_S = 0.25


class RawUio:
    """One vector: /dev/uioN."""

    def __init__(self, vector: int = 0) -> None:
        self.fd = os.open(f"/dev/uio{vector}", os.O_RDWR)
        self.size = int(Path(f"/sys/class/uio/uio{vector}/maps/map1/size").read_text(), 16)
        # The offset says which map it is: a page a map.
        self.registers = (ctypes.c_uint32 * 4).from_buffer(mmap.mmap(self.fd, PAGE))
        self.region = mmap.mmap(self.fd, self.size, offset=PAGE)
        self.position = self.registers[POSITION]
        # The last page of the heap: nobody's, as long as there is no scheduler.
        self.words = (ctypes.c_uint64 * 16).from_buffer(self.region, self.size - PAGE)

    def ring(self, peer: int, vector: int = 0) -> None:
        """One 32-bit store."""
        self.registers[DOORBELL] = peer << 16 | vector

    def wait(self, timeout_s: float) -> int:
        """Interrupts so far, 0 if none came in time."""
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return 0
        (count,) = struct.unpack("I", os.read(self.fd, 4))
        return int(count)


class Doors(Protocol):
    """A device, or the host's peer."""

    words: Any

    def ring(self, peer: int, vector: int = 0) -> None: ...

    def wait(self, timeout_s: float) -> int: ...


def ping(device: Doors, other: int, mine: int, theirs: int, rounds: int) -> None:
    """Say a number, ring, be rung with the number in answer. In turns, so that each answer takes a doorbell."""
    device.words[mine] = 1
    device.ring(other)
    while device.words[theirs] < 1:
        if not device.wait(LISTENS_S):
            device.ring(other)  # a device counts from its opening on: perhaps nobody had opened it yet
    for number in range(2, rounds + 1):
        device.words[mine] = number
        device.ring(other)
        _hear(device, theirs, number)


def pong(device: Doors, other: int, mine: int, theirs: int, rounds: int) -> None:
    """The other end."""
    for number in range(1, rounds + 1):
        _hear(device, theirs, number)
        device.words[mine] = number
        device.ring(other)


def _hear(device: Doors, theirs: int, number: int) -> None:
    """Wait for a doorbell and that number. A doorbell without it is no error: the server rings all when somebody joins."""
    while True:
        if not device.wait(ANSWER_S):
            raise TimeoutError(f"expected a doorbell in round {number}, saw none")
        if device.words[theirs] >= number:
            return


def mmap_errno(fd: int, length: int, protection: int, flags: int, offset: int) -> int:
    """What the kernel itself says to a mapping: 0, or an errno. Python's own mmap checks too much before it asks."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    address = libc.mmap(None, length, protection, flags, fd, offset)
    if address == ctypes.c_void_p(-1).value:
        return ctypes.get_errno()
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
    return 0
