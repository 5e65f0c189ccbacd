"""A fork of a member is none (D3): no store of it reaches the region, and it holds nothing that tells the server we live.

The mapping is MADV_DONTFORK, so the child has a hole where it was. The hole must not stay: the child's allocator would fill it,
and the inherited mmap object unmaps those addresses when it is collected. So the child maps them again: private and
copy-on-write from a memfd, or shared and read-only from a device, which knows no private mapping.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import Final, NamedTuple

_PROT_READ: Final = 1
_PROT_WRITE: Final = 2
_MAP_SHARED: Final = 1
_MAP_PRIVATE: Final = 2
_MAP_FIXED: Final = 0x10
_MAP_NORESERVE: Final = 0x4000


class Span(NamedTuple):
    """A mapping, and what it is of."""

    mapping: mmap.mmap
    fd: int
    offset: int
    is_device: bool


def map_again(span: Span) -> None:
    """In the child, at the same addresses."""
    address = ctypes.addressof(ctypes.c_char.from_buffer(span.mapping))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    protection = _PROT_READ if span.is_device else _PROT_READ | _PROT_WRITE
    kind = _MAP_SHARED if span.is_device else _MAP_PRIVATE | _MAP_NORESERVE
    libc.mmap(address, len(span.mapping), protection, kind | _MAP_FIXED, span.fd, span.offset)


def close_all(descriptors: list[int]) -> None:
    """Those that are open, that is."""
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)
