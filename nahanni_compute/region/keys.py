"""The cluster's key (decision 10): 16 random bytes in a file, never in the region.

What leads to unpickling carries a MAC under this key, so whoever cannot read the file can be in the region and still run
nothing in others. The server makes it beside its socket; a guest gets it through fw_cfg, and root puts it into the run
directory.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from nahanni_compute.config import settings
from nahanni_compute.errors import AccessRefused, UsageError

KEY_BYTES: Final = 16


def socket_of(address: str) -> Path | None:
    """The socket that an address names: "unix:PATH" or a bare path; None for a device. Raises UsageError for neither."""
    if address.startswith("unix:"):
        address = address.removeprefix("unix:")
        if address:
            return Path(address)
    elif address.startswith(("/dev/", "vfio:", "pci:")):
        return None
    elif address and not re.match(r"[A-Za-z][\w+.-]*:", address):
        return Path(address)
    raise UsageError(f"expected the address of a region, 'unix:PATH', a path to a socket, or '/dev/uio0', saw {address!r}")


def key_path(socket: Path) -> Path:
    """Where the server of this socket keeps its key."""
    return socket.with_name(socket.name + ".key")


def write_key(path: Path) -> None:
    """Make a new key there, readable by its owner alone. Raises FileExistsError, also for a link."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, secrets.token_bytes(KEY_BYTES))
    finally:
        os.close(fd)


def find_key(address: str, key_file: str | os.PathLike[str] | None = None) -> bytes:
    """The key of the region at `address`. Looked for in `key_file`, NAHANNI_KEY_FILE, beside the socket, the run directory.

    The first two, where given, are the only place. Beside the socket comes before the run directory: in a guest, an embedded
    cluster's own key must not be hidden by that of the region the guest is in. Raises AccessRefused.
    """
    conf = settings()
    if key_file or conf.key_file:
        path = Path(key_file or conf.key_file)
        key = _read(path)
        if key is None:
            origin = "key_file" if key_file else "NAHANNI_KEY_FILE"
            raise AccessRefused(f"expected the cluster's key in {path}, which {origin} names, saw no such file: correct or unset it")
        return key
    socket = socket_of(address)
    places = ([key_path(socket)] if socket else []) + [Path(conf.run_dir) / "key"]
    for path in places:
        key = _read(path)
        if key is not None:
            return key
    looked = ", ".join(str(path) for path in places)
    advice = _HOST_ADVICE if socket else _GUEST_ADVICE.format(run_dir=conf.run_dir)
    seen = f"saw none: key_file and NAHANNI_KEY_FILE are not given, and there is no {looked}"
    raise AccessRefused(f"expected the cluster's key for {address}, {seen}. {advice}")


_HOST_ADVICE: Final = "Start `nahanni server` on that socket, or name the key that it made with key_file=."
_GUEST_ADVICE: Final = (
    "Start the VM with `-fw_cfg name=opt/nahanni/key,file=SOCKET.key` and, as root in the guest, copy "
    "/sys/firmware/qemu_fw_cfg/by_name/opt/nahanni/key/raw to {run_dir}/key (mode 0640, group nahanni); or name a copy with key_file=."
)


def _read(path: Path) -> bytes | None:
    try:
        key = path.read_bytes()
    except FileNotFoundError:
        return None
    except PermissionError:
        saw = f"permission denied{_owner(path)}"
        raise AccessRefused(f"expected to read the cluster's key in {path}, saw {saw}: run as its owner, or join its group") from None
    except OSError as e:
        raise AccessRefused(f"expected to read the cluster's key in {path}, saw {e.strerror}: name the file that holds it") from None
    if len(key) != KEY_BYTES:
        raise AccessRefused(f"expected a key of {KEY_BYTES} bytes in {path}, saw {len(key)}: copy the file that the server made, as it is")
    return key


def _owner(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return f" (a directory above it, for uid {os.geteuid()})"
    return f" (mode {stat.S_IMODE(found.st_mode):04o}, uid {found.st_uid}, gid {found.st_gid}; we are uid {os.geteuid()})"
