"""How a process reaches the region: one interface, a substrate for each kind of address."""

from __future__ import annotations

import os

from nahanni_compute.errors import UsageError
from nahanni_compute.region.keys import socket_of
from nahanni_compute.substrate.base import Attachment as Attachment
from nahanni_compute.substrate.base import Substrate as Substrate


def open_substrate(address: str | os.PathLike[str], key_file: str | os.PathLike[str] | None = None) -> Substrate:
    """The substrate of "unix:PATH", of a bare path to a socket, or of "/dev/uioN". Nothing is opened before `attach`.

    Raises UsageError for an address of another kind.
    """
    address = os.fspath(address)
    socket = socket_of(address)
    if socket is not None:
        from nahanni_compute.substrate.unix import UnixSubstrate

        return UnixSubstrate(socket, key_file)
    if address.startswith("/dev/uio"):
        from nahanni_compute.substrate.uio import UioSubstrate

        return UioSubstrate(address, key_file)
    raise UsageError(f"expected 'unix:PATH', a path to a socket, or '/dev/uioN', saw {address!r}: there is no substrate for that")
