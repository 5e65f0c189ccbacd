"""How a host process greets the server, byte by byte; both ends use this file.

    process -> server   GREETING
    server -> process   ANSWER, then a text if it refuses; if not, its descriptors: the region, then the process's own doorbells
    server -> process   notices for life: NOTICE with one doorbell (peer << 16 | vector), or NOTICE_GONE | peer << 16
    process -> server   LEAVE, after its last store; then it unmaps and closes (D3)

The first words of both records never change, so that every format can say no to every other. Little-endian throughout. QEMU's
own protocol is spoken on another socket: it has no room for any of this.
"""

from __future__ import annotations

import array
import socket
import struct
from pathlib import Path
from typing import Final, NamedTuple

from nahanni_compute.errors import AccessRefused, NahanniError, RegionFull, VersionMismatch
from nahanni_compute.region.layout import FORMAT

GREETING_MAGIC: Final = b"\x02NAHANNI"
GREETING: Final = struct.Struct("<8sIIQ")  # magic, format, role, 0
ANSWER: Final = struct.Struct("<8sIIIIIIQQ")  # magic, answer, bytes of text, peer, slot, vectors, 0, incarnation, bytes of region
NOTICE: Final = struct.Struct("<Q")
NOTICE_GONE: Final = 1 << 63
LEAVE: Final = b"L"
TEXT_BYTES_MAX: Final = 1024
DESCRIPTORS_MAX: Final = 64

OK, REFUSED, WRONG_FORMAT, FULL = range(4)
_ERRORS: Final[dict[int, type[NahanniError]]] = {REFUSED: AccessRefused, WRONG_FORMAT: VersionMismatch, FULL: RegionFull}


class Place(NamedTuple):
    """What the server gives a process: where it belongs in the region."""

    peer: int
    slot: int
    vectors: int
    incarnation: int
    region_bytes: int


class Refused(Exception):
    """The server says no, with a code that the other end turns into an error, and the reason."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def host_socket(path: Path) -> Path:
    """Where host processes greet: `path`, which speaks QEMU's protocol, with -host before its suffix."""
    return path.with_name(f"{path.stem}-host{path.suffix}")


def pack_greeting(role: int) -> bytes:
    """What a process says first."""
    return GREETING.pack(GREETING_MAGIC, FORMAT, role, 0)


def could_be_greeting(data: bytes) -> bool:
    """Whether these first bytes, perhaps not all, may become a greeting."""
    return GREETING_MAGIC.startswith(data[: len(GREETING_MAGIC)])


def read_greeting(data: bytes) -> int:
    """The role that a whole greeting names. Raises Refused for one that is not ours."""
    magic, version, role, _ = GREETING.unpack(data)
    if magic != GREETING_MAGIC:
        raise Refused(REFUSED, "expected the greeting of a Nahanni process, saw other bytes: QEMU belongs on the socket without -host")
    if version != FORMAT:
        advice = "install the same nahanni-compute on both sides"
        raise Refused(WRONG_FORMAT, f"expected region format {FORMAT}, which this server speaks, saw {version}: {advice}")
    return int(role)


def pack_place(place: Place) -> bytes:
    """The answer yes."""
    peer, slot, vectors, incarnation, region_bytes = place
    return ANSWER.pack(GREETING_MAGIC, OK, 0, peer, slot, vectors, 0, incarnation, region_bytes)


def pack_refusal(refusal: Refused) -> bytes:
    """The answer no."""
    text = str(refusal).encode()[:TEXT_BYTES_MAX]
    return ANSWER.pack(GREETING_MAGIC, refusal.code, len(text), 0, 0, 0, 0, 0, 0) + text


def text_bytes(answer: bytes) -> int:
    """Bytes of text that follow this answer."""
    magic, _, length, *_ = ANSWER.unpack(answer)
    if magic != GREETING_MAGIC or length > TEXT_BYTES_MAX:
        raise VersionMismatch("expected the answer of a Nahanni server, saw other bytes: is this the socket of `nahanni server`?")
    return int(length)


def read_answer(answer: bytes, text: bytes) -> Place:
    """Where we belong. Raises what the server's refusal says."""
    _, code, _, peer, slot, vectors, _, incarnation, region_bytes = ANSWER.unpack(answer)
    if code != OK:
        raise _ERRORS.get(code, AccessRefused)(text.decode(errors="replace"))
    return Place(peer, slot, vectors, incarnation, region_bytes)


def send_with(sock: socket.socket, data: bytes, descriptors: list[int]) -> int:
    """One sendmsg; the descriptors travel with the first byte. Bytes sent."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    return sock.sendmsg([data], rights)


def receive_with(sock: socket.socket, nbytes: int) -> tuple[bytes, list[int]]:
    """Exactly `nbytes`, or fewer at the end of the stream, and the descriptors that came with them. The caller owns those."""
    data, descriptors = b"", array.array("i")
    room = socket.CMSG_SPACE(DESCRIPTORS_MAX * descriptors.itemsize)
    while len(data) < nbytes:
        part, rights, _, _ = sock.recvmsg(nbytes - len(data), room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in rights:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
        if not part:
            break
        data += part
    return data, list(descriptors)
