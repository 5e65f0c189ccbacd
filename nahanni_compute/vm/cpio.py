"""Archives in the form that a kernel unpacks as its first root ("newc": Linux, early-userspace/buffer-format.rst)."""

from __future__ import annotations

import stat
from dataclasses import dataclass

TRAILER = "TRAILER!!!"


@dataclass(frozen=True)
class Entry:
    """One file, folder or device node; `mode` with the type bits of stat."""

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def folder(path: str) -> Entry:
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, mode: int = 0o644) -> Entry:
    return Entry(path, stat.S_IFREG | mode, data)


def character_device(path: str, major: int, minor: int) -> Entry:
    return Entry(path, stat.S_IFCHR | 0o600, device=(major, minor))


def archive(entries: list[Entry]) -> bytes:
    """The archive, folders in the order given: parents first. Owned by root, no times: equal entries, equal bytes."""
    numbered = enumerate([*entries, Entry(TRAILER, 0)], start=1)
    return b"".join(_record(inode, entry) for inode, entry in numbered)


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    links, owner, group, time = 1, 0, 0, 0
    fields = (inode, entry.mode, owner, group, links, time, len(entry.data), 0, 0, *entry.device, len(name), 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name
    return _to_4(head) + _to_4(entry.data)


def _to_4(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
