"""The region's memory: a sparse, sealed memfd, committed piece by piece (M6).

Sealed, or any peer could truncate it and end all others with SIGBUS. Committed before anybody stores into it, so that a full
host is a refusal and not SIGBUS; and refused while the host has still something free, since the kernel would rather end a
process than fail an allocation.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from nahanni_compute._native import Region
from nahanni_compute.config import Settings, format_size, host_free_bytes
from nahanni_compute.errors import RegionFull
from nahanni_compute.region.layout import SLOT_SIZE, SLOT_TABLE, arena_unit, arena_units, heap_start, slot_at
from nahanni_compute.region.sizes import checked_region_size
from nahanni_compute.server.descriptors import Descriptor


class Memory:
    """Owns the memfd and the server's mapping of it."""

    def __init__(self, nbytes: int, conf: Settings) -> None:
        self.nbytes = checked_region_size(nbytes)
        self._conf = conf
        self.descriptor = Descriptor(os.memfd_create("nahanni", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING))
        os.ftruncate(self.descriptor.fd, nbytes)
        fcntl.fcntl(self.descriptor.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        self._map = mmap.mmap(self.descriptor.fd, nbytes)
        self.region = Region(self._map, None)
        self.unit = arena_unit(nbytes)
        self.step_units = max(conf.commit_step_bytes // self.unit, 1)
        self._heap = heap_start(nbytes)
        self._committed = bytearray(arena_units(nbytes))
        self._slots: set[int] = set()
        self.commit(0, SLOT_TABLE)
        self.commit_slot(0)

    def commit(self, offset: int, nbytes: int) -> None:
        """Back a span with memory. Raises RegionFull, and the host is left with something free."""
        free, kept = host_free_bytes(), self._conf.host_free_bytes
        if free - nbytes < kept:
            raise _full(nbytes, f"{format_size(free)} free, of which {format_size(kept)} are kept (NAHANNI_HOST_FREE_BYTES)")
        try:
            os.posix_fallocate(self.descriptor.fd, offset, nbytes)
        except OSError as e:
            raise _full(nbytes, str(e.strerror)) from e

    def commit_slot(self, slot: int) -> None:
        """A slot, before it is given out for the first time. It stays committed. Raises RegionFull."""
        if slot not in self._slots:
            self.commit(slot_at(slot), SLOT_SIZE)
            self._slots.add(slot)

    def units(self, offset: int, nbytes: int) -> range | None:
        """The arena units that make up a span of the heap exactly, or None: the only spans that a keeper may name."""
        first, count = (offset - self._heap) // self.unit, nbytes // self.unit
        whole = offset == self._heap + first * self.unit and nbytes == count * self.unit
        if not whole or first < 0 or count < 1 or first + count > len(self._committed):
            return None
        return range(first, first + count)

    def check_quota(self, units: range) -> None:
        """Whether these may be committed besides what is. Raises RegionFull."""
        quota = self._conf.commit_max_bytes
        new = len(units) - sum(self._committed[units.start : units.stop])
        after = (sum(self._committed) + new) * self.unit
        if quota and after > quota:
            limit = f"{format_size(quota)} committed (NAHANNI_COMMIT_MAX_BYTES)"
            raise RegionFull(f"expected at most {limit}, saw a request for {format_size(after)} in all")

    def uncommitted(self, units: range) -> list[range]:
        """Those of them that have no memory yet, in runs of at most one step of the loop."""
        runs: list[range] = []
        for unit in units:
            if self._committed[unit]:
                continue
            if runs and runs[-1].stop == unit and len(runs[-1]) < self.step_units:
                runs[-1] = range(runs[-1].start, unit + 1)
            else:
                runs.append(range(unit, unit + 1))
        return runs

    def commit_units(self, units: range) -> None:
        """Back arena units with memory. Raises RegionFull."""
        self.commit(self._heap + units.start * self.unit, len(units) * self.unit)
        self._committed[units.start : units.stop] = b"\1" * len(units)

    def punch_units(self, units: range) -> None:
        """Give their memory back to the host; they read as zeros from then on."""
        self._map.madvise(mmap.MADV_REMOVE, self._heap + units.start * self.unit, len(units) * self.unit)
        self._committed[units.start : units.stop] = bytes(len(units))

    def close(self) -> None:
        """Let go of the mapping; the memory lives on while a VM or process has it."""
        self.region.close()
        self._map.close()


def _full(nbytes: int, saw: str) -> RegionFull:
    return RegionFull(f"expected {format_size(nbytes)} of memory on the host, saw {saw}: release values, or give the host more memory")
