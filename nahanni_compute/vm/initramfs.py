"""The guest's first root: busybox, the modules it needs to reach the host's root, our driver, and its init.

Built without tools: an archive (cpio.py) of the kernel's own modules, in the order in which they must be loaded.
"""

from __future__ import annotations

import lzma
import re
from collections.abc import Iterable
from pathlib import Path

from nahanni_compute.vm import cpio
from nahanni_compute.vm.errors import GuestError
from nahanni_compute.vm.kernel import unpack_zstd

# The host's root over 9p; the key from QEMU; our driver's base. A kernel may have some of them built in.
MODULES = ("virtio_pci", "9pnet_virtio", "9p", "qemu_fw_cfg", "uio")
INIT = Path(__file__).with_name("init.sh")
AGENT = Path(__file__).with_name("agent.sh")
CONSOLE = (5, 1)
NEEDS = re.compile(rb"\0depends=([\w,-]+)\0")  # in a module's own description (.modinfo)


def build_initramfs(modules: Path, driver: Path, busybox: Path) -> bytes:
    """The archive for the kernel whose modules lie in `modules` (its /lib/modules/RELEASE)."""
    loaded = [*load_order(modules, MODULES).items(), (_name(driver), driver.read_bytes())]
    return cpio.archive(
        [
            *(cpio.folder(name) for name in ("bin", "dev", "proc", "sys", "root", "keep", "modules")),
            cpio.character_device("dev/console", *CONSOLE),
            cpio.file("bin/busybox", busybox.read_bytes(), 0o755),
            cpio.file("init", INIT.read_bytes(), 0o755),
            cpio.file("agent", AGENT.read_bytes(), 0o755),
            *(cpio.file(f"modules/{name}.ko", data) for name, data in loaded),
            cpio.file("modules/order", "\n".join(f"{name}.ko" for name, _ in loaded).encode()),
        ]
    )


def load_order(modules: Path, names: Iterable[str]) -> dict[str, bytes]:
    """These modules and all that they need, each after what it needs, without those built in.

    From the modules themselves: a kernel that was unpacked and not installed has no list of dependencies (depmod).
    """
    files = {_name(path): path for path in modules.rglob("*.ko*")}
    built_in = {_name(Path(line)) for line in (modules / "modules.builtin").read_text().split()}
    order: dict[str, bytes] = {}

    def load(name: str) -> None:
        if name in built_in or name in order:
            return
        if name not in files:
            raise GuestError(f"expected the module {name} below {modules}, saw none: Debian's cloud kernels lack 9p, the others have it")
        data = _plain(files[name])
        needed = NEEDS.search(data)
        for other in needed[1].decode().split(",") if needed else ():
            load(other)
        order[name] = data

    for name in names:
        load(name)
    return order


def _name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _plain(path: Path) -> bytes:
    """The module unpacked: busybox loads no packed ones (Debian's 6.12 packs them with XZ)."""
    data = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            return unpack_zstd(data)
        case _:
            return data
