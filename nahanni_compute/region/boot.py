"""Which boot of a kernel this is: what a pid or a lock says counts within one (D2)."""

from __future__ import annotations

from functools import cache
from pathlib import Path


@cache
def boot_id() -> bytes:
    """16 bytes that tell one boot of a kernel from another."""
    return bytes.fromhex(Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", ""))
