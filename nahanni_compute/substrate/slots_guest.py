"""Slots of a VM, shared out among the processes of its kernel without the server (decision 14), and proofs of death there (D2).

The server gives a VM a row of slots. Who has which is in a file of the run directory, one record a slot, in which a process
holds a record lock (F_SETLK) on the record of its own. Forks do not inherit such a lock, and it ends with its process however
that ends, so a lock that can be taken has no living holder that we know of. It proves no death by itself: closing any
descriptor of the file frees it. So the record names its process, and whoever takes a free record first makes sure that this
process is gone, then stores its death in n_state.

Such locks belong to processes, so several clients of one process share one descriptor and a set of the slots they have.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import struct
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from nahanni_compute._native import Region
from nahanni_compute.config import settings
from nahanni_compute.errors import AccessRefused, RegionFull
from nahanni_compute.region.boot import boot_id
from nahanni_compute.region.layout import STATE_DEAD, STATE_MEMBER, slot_word
from nahanni_compute.substrate.processes import Process, make_sure_it_is_gone, this_process

log = logging.getLogger(__name__)

_RECORD: Final = struct.Struct("<QQQQ16s16x")


class Record(NamedTuple):
    """Who has a slot. pid 0: nobody, and the last incarnation that was given out is gone."""

    process: Process
    incarnation: int
    boot: bytes


@dataclass
class _File:
    """One file of this process: its only descriptor, and the slots that clients of this process have."""

    fd: int
    held: set[int] = field(default_factory=set)


_files: dict[Path, _File] = {}
_mutex = threading.Lock()


def _after_fork_in_child() -> None:
    """A fork has no slot (D3). Closing here frees no lock of the parent."""
    global _mutex  # noqa: PLW0603 (its holder, if any, is not in the child)
    _mutex = threading.Lock()
    for file in _files.values():
        os.close(file.fd)
    _files.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)


class GuestSlots:
    """The slots of one VM, seen from one process. `region` is mapped; `slots` is what the server's table says."""

    def __init__(self, region: Region, peer: int, slots: range) -> None:
        conf = settings()
        self._region, self._slots, self._kill_s = region, slots, conf.kill_s
        self._path = Path(conf.run_dir) / f"slots-{peer}"
        self._index: int | None = None
        self._incarnation = 0

    def take(self) -> tuple[int, int]:
        """(local index, incarnation) of a slot that nobody has. Raises RegionFull, AccessRefused."""
        with _mutex:
            file = self._open()
            try:
                self._prove(file)
                for index in range(len(self._slots)):
                    if index not in file.held and self._take(file, index):
                        return index, self._incarnation
            finally:
                self._close_if_idle(file)
        raise RegionFull(
            f"expected a free slot among the {len(self._slots)} of this VM, saw all taken: close other clients or workers in it "
            f"(their processes are named in {self._path}); a process that cannot be proved dead keeps its slot"
        )

    def prove_deaths(self) -> list[int]:
        """Slots whose processes are certainly gone since the last time; their death is stored."""
        with _mutex:
            file = self._open()
            try:
                return self._prove(file)
            finally:
                self._close_if_idle(file)

    def release(self) -> None:
        """Ours is free again: the mapping is gone by now. Idempotent."""
        with _mutex:
            file = _files.get(self._path)
            if self._index is None or file is None:
                return
            _write(file, self._index, Record(Process(0, 0, 0), self._incarnation, boot_id()))
            _unlock(file, self._index)
            file.held.discard(self._index)
            self._index = None
            self._close_if_idle(file)

    def _open(self) -> _File:
        if self._path not in _files:
            _files[self._path] = _File(_open(self._path))
        return _files[self._path]

    def _close_if_idle(self, file: _File) -> None:
        """With none of ours locked, closing frees nothing."""
        if not file.held:
            del _files[self._path]
            os.close(file.fd)

    def _take(self, file: _File, index: int) -> bool:
        if not _lock(file, index):
            return False
        record = _read(file, index)
        if record.process.pid or not self._is_free(index, record):
            _unlock(file, index)
            return False
        words = (self._load(index, "e_state"), self._load(index, "n_state"))
        known = record.incarnation if record.boot == boot_id() else 0
        self._index, self._incarnation = index, max(known, *(word >> 8 for word in words)) + 1
        _write(file, index, Record(this_process(), self._incarnation, boot_id()))
        file.held.add(index)
        return True

    def _prove(self, file: _File) -> list[int]:
        return [self._slots[index] for index in range(len(self._slots)) if index not in file.held and self._prove_one(file, index)]

    def _prove_one(self, file: _File, index: int) -> bool:
        """Under the record's lock, so that n_state has one writer. Whether a death was stored."""
        if not _lock(file, index):
            return False
        try:
            record = _read(file, index)
            if record.process.pid:
                if record.boot == boot_id() and not make_sure_it_is_gone(record.process, self._kill_s):
                    log.warning("slot %d: process %d holds no lock and cannot be proved dead", self._slots[index], record.process.pid)
                    return False
                record = record._replace(process=Process(0, 0, 0))
                _write(file, index, record)
            if self._is_free(index, record):
                return self._bury(index)
            return False
        finally:
            _unlock(file, index)

    def _is_free(self, index: int, record: Record) -> bool:
        """Whether the member in this slot, if it has one, is covered by a proof: of its record, or of the kernel's reboot.

        One that is not uses another run directory, or its record was deleted: it may live.
        """
        state = self._load(index, "e_state")
        if state & 0xFF != STATE_MEMBER or self._load(index, "n_state") >> 8 >= state >> 8:
            return True
        if self._region.read(slot_word(self._slots[index], "boot"), 16) != boot_id():
            return True
        return record.boot == boot_id() and record.incarnation >= state >> 8

    def _bury(self, index: int) -> bool:
        state = self._load(index, "e_state")
        if state & 0xFF != STATE_MEMBER or self._load(index, "n_state") >> 8 >= state >> 8:
            return False
        self._region.store(slot_word(self._slots[index], "n_state"), (state & ~0xFF) | STATE_DEAD)
        return True

    def _load(self, index: int, word: str) -> int:
        return self._region.load(slot_word(self._slots[index], word))


def _open(path: Path) -> int:
    """The file, for all who may write in its directory."""
    try:
        path.parent.mkdir(mode=0o770, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o660)
    except OSError as e:
        raise AccessRefused(
            f"expected to write {path}, where the processes of this VM share out its slots, saw {e.strerror}: as root, "
            f"`install -d -m 2770 -g nahanni {path.parent}` and join that group; or set NAHANNI_RUN_DIR, the same for all of them"
        ) from e
    with contextlib.suppress(PermissionError):  # made by another, who did this
        os.fchown(fd, -1, path.parent.stat().st_gid)
        os.fchmod(fd, 0o660)
    return fd


def _lock(file: _File, index: int) -> bool:
    try:
        fcntl.lockf(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB, _RECORD.size, index * _RECORD.size)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _unlock(file: _File, index: int) -> None:
    fcntl.lockf(file.fd, fcntl.LOCK_UN, _RECORD.size, index * _RECORD.size)


def _read(file: _File, index: int) -> Record:
    data = os.pread(file.fd, _RECORD.size, index * _RECORD.size).ljust(_RECORD.size, b"\0")
    pid, start, space, incarnation, boot = _RECORD.unpack(data)
    return Record(Process(pid, start, space), incarnation, boot)


def _write(file: _File, index: int, record: Record) -> None:
    os.pwrite(file.fd, _RECORD.pack(*record.process, record.incarnation, record.boot), index * _RECORD.size)
