"""The files of a server: two sockets and a key. Made in order, refused where somebody else lives, gone at the end.

The key file is the lock too: its server holds `flock` on it for life. So what a killed server left is told from what a living
one uses without a guess.
"""

from __future__ import annotations

import contextlib
import fcntl
import grp
import os
import socket
import stat
from pathlib import Path
from typing import Final

from nahanni_compute.errors import AccessRefused, UsageError
from nahanni_compute.region.greeting import host_socket
from nahanni_compute.region.keys import key_path, write_key
from nahanni_compute.server.descriptors import Descriptor

_BACKLOG: Final = 128
_PATH_BYTES_MAX: Final = 107  # of sun_path, less its end
_OR_ANOTHER: Final = ", or choose another --socket"


class Sockets:
    """Listening once made: on `hosts` and `qemu`."""

    def __init__(self, path: Path, group: str | None, private_dir: bool) -> None:
        """`group` may connect and read the key, besides the owner. `private_dir`: the directory goes with us."""
        path = path.absolute()
        hosts, self._key = host_socket(path), key_path(path)
        self._private = path.parent if private_dir else None
        self._gid = _gid_of(group) if group else None
        self._made: dict[Path, tuple[int, int]] = {}
        if len(os.fsencode(hosts)) > _PATH_BYTES_MAX:
            raise UsageError(f"expected a socket path of at most {_PATH_BYTES_MAX - len('-host')} bytes, saw {path}: choose a shorter one")
        if not path.parent.is_dir():
            raise UsageError(f"expected a directory for the socket, saw no {path.parent}: make it{_OR_ANOTHER}")
        try:
            self._lock = self._take_lock()
            for place in (hosts, path):
                _make_way(place)
            self.hosts, self.qemu = self._listen(hosts), self._listen(path)
        except PermissionError as e:
            self.unlink()
            made = e.filename or path
            raise AccessRefused(f"expected to make {made}, saw {e.strerror}: run as the owner of {path.parent}{_OR_ANOTHER}") from e
        except BaseException:
            self.unlink()
            raise

    def _take_lock(self) -> Descriptor:
        """A new key, locked by us. One that is locked has a living server; one that is not is a dead one's."""
        while True:
            made = False
            with contextlib.suppress(FileExistsError):
                write_key(self._key)
                made = True
            try:
                lock = Descriptor(os.open(self._key, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC))
                fcntl.flock(lock.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                current = os.path.samestat(os.fstat(lock.fd), os.lstat(self._key))
            except BlockingIOError:
                raise UsageError(f"expected {self._key} to be free, saw a living server use it: stop that one{_OR_ANOTHER}") from None
            except FileNotFoundError:
                continue  # its server has just ended
            if current and made:
                self._keep(self._key, 0o640 if self._gid is not None else 0o600)
                return lock
            if current:
                self._key.unlink()

    def _listen(self, path: Path) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)  # nobody may connect before the group is right
        try:
            sock.bind(os.fspath(path))
        finally:
            os.umask(before)
        self._keep(path, 0o660 if self._gid is not None else 0o600)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
        return sock

    def _keep(self, path: Path, mode: int) -> None:
        found = os.lstat(path)
        self._made[path] = (found.st_dev, found.st_ino)
        if self._gid is not None:
            os.chown(path, -1, self._gid)
        path.chmod(mode)

    def unlink(self) -> None:
        """Leave nothing, and touch nothing that others put in our place. Idempotent."""
        for path, made in self._made.items():
            with contextlib.suppress(OSError):
                found = os.lstat(path)
                if (found.st_dev, found.st_ino) == made:
                    path.unlink()
        self._made.clear()
        if self._private is not None:
            with contextlib.suppress(OSError):
                self._private.rmdir()


def _make_way(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises UsageError if somebody does, or if it is no socket."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise UsageError(f"expected a socket or nothing at {path}, saw another kind of file: remove it{_OR_ANOTHER}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # somebody listens and is busy
    raise UsageError(f"expected {path} to be free, saw a living server listen there: stop that one{_OR_ANOTHER}")


def _gid_of(group: str) -> int:
    try:
        return int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError:
        raise UsageError(f"expected the name of a group in --group, saw {group!r}: see `getent group`") from None
