"""Which machine this is, in a line: a measured number means nothing without it."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

GIB = 1 << 30


@dataclass(frozen=True)
class Machine:
    """What a figure depends on: the processor, how many cores this process may use, and how busy they were (runnable processes)."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    load: float

    def __str__(self) -> str:
        system = f"Linux {self.kernel}, Python {self.python}, load {self.load:.2f} at the start"
        return f"{self.cpu}, {self.cores} cores, {self.memory_gib:.0f} GiB, {system}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def this_machine() -> Machine:
    """As it is now."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return Machine(
        _cpu(), len(os.sched_getaffinity(0)), round(memory, 1), platform.release(), platform.python_version(), os.getloadavg()[0]
    )


def _cpu() -> str:
    """The processor's name on x86; elsewhere /proc/cpuinfo may have none, and the architecture has to do."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()
