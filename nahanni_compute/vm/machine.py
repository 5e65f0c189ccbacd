"""A guest's machine, in QEMU's words.

What must never be in them: `reconnect=` on the region's socket (QEMU spins), `device_del` of its device later on (QEMU dies
later), another number of vectors than the server gives (the rest is dead).
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nahanni_compute.config import settings

QEMU: Final = "qemu-system-x86_64"
KEY_NAME: Final = "opt/nahanni/key"  # of fw_cfg; init.sh reads it
# From `audit` on: seconds of work that an emulated machine can do without.
KERNEL_ARGUMENTS: Final = "console=ttyS0 panic=-1 quiet audit=0 mitigations=off no_timer_check nowatchdog"
# What the guest's own mounts hide of the host's root (init.sh).
HIDDEN: Final = tuple(map(Path, ("/dev", "/run", "/tmp")))


@dataclass(frozen=True)
class Boot:
    """What every guest starts from: an ELF kernel (kernel.py) and its initramfs (initramfs.py)."""

    kernel: Path
    initramfs: Path


@dataclass(frozen=True)
class Machine:
    """One guest's. Its root is the host's, read-only: every path of the host is the same path in it."""

    name: str
    boot: Boot
    region: Path | None = None  # the server's socket for QEMU
    key_file: Path | None = None  # the cluster's key, which QEMU hands over
    vectors: int | None = None  # None: as many as the server gives if told nothing
    memory_mib: int = 768
    processors: str = "1"
    accelerator: str = "tcg,thread=multi"
    keep: Sequence[Path] = ()  # folders to be seen even below HIDDEN; this Python's and this package's always are
    more: Sequence[str] = ()  # arguments for QEMU, as they are

    def command(self, agent_fd: int, qmp_fd: int) -> list[str]:
        """QEMU's command line. The two are connected sockets that it inherits; the console goes to its standard output."""
        return [
            *(QEMU, "-name", self.name, "-machine", "q35", "-accel", self.accelerator, "-cpu", "max"),
            *("-smp", self.processors, "-m", f"{self.memory_mib}M"),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(self.boot.kernel), "-initrd", str(self.boot.initramfs), "-append", self._kernel_arguments()),
            *("-chardev", "file,id=console,path=/proc/self/fd/1", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=agent,fd={agent_fd}", "-serial", "chardev:agent"),
            *("-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control"),
            *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
            *self._region_arguments(),
            *self.more,
        ]

    def _region_arguments(self) -> list[str]:
        arguments = []
        if self.region is not None:
            vectors = settings().vectors if self.vectors is None else self.vectors
            arguments += ["-chardev", f"socket,id=region,path={_value(self.region)}"]
            arguments += ["-device", f"ivshmem-doorbell,vectors={vectors},chardev=region"]
        if self.key_file is not None:
            arguments += ["-fw_cfg", f"name={KEY_NAME},file={_value(self.key_file)}"]
        return arguments

    def _kernel_arguments(self) -> str:
        seen = [*self.keep, Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parents[2]]
        hidden = dict.fromkeys(str(path) for path in seen if any(path.is_relative_to(h) for h in HIDDEN))
        keep = base64.b64encode("\n".join(hidden).encode()).decode()  # a path may have blanks
        return f"{KERNEL_ARGUMENTS} nahanni.name={self.name} nahanni.keep={keep}"


def _value(path: Path) -> str:
    """A path within one of QEMU's options, where a comma ends a value."""
    return str(path.absolute()).replace(",", ",,")
