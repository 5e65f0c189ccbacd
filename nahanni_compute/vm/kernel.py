"""The ELF kernel inside a bzImage: QEMU boots it by PVH, without the seconds that unpacking takes under emulation."""

from __future__ import annotations

import lzma
import struct
import subprocess

from nahanni_compute.vm.errors import GuestError

# The image's own header: Documentation/arch/x86/boot.rst of Linux.
BOOT_MAGIC_AT, BOOT_MAGIC = 0x202, b"HdrS"
VERSION_AT, VERSION_MIN = 0x206, 0x0208  # the first version that says where the payload lies
SETUP_SECTORS_AT, SECTOR = 0x1F1, 512
PAYLOAD_AT = 0x248  # offset from the end of the setup sectors, length
PAYLOAD_TRAILER = 4  # the length unpacked, after the compressed stream
XZ, ZSTD, ELF = b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"\x7fELF"


def extract_vmlinux(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage packed with XZ (Debian's 6.1) or zstd (6.12; needs the command zstd)."""
    if image[BOOT_MAGIC_AT : BOOT_MAGIC_AT + 4] != BOOT_MAGIC:
        raise GuestError("expected a bzImage (HdrS at byte 0x202), saw something else: give the kernel's vmlinuz")
    (version,) = struct.unpack_from("<H", image, VERSION_AT)
    if version < VERSION_MIN:
        raise GuestError(f"expected boot protocol {VERSION_MIN:#x} or newer, saw {version:#x}: the kernel is too old")
    payload = _unpack(_payload(image))
    if payload[:4] != ELF:
        raise GuestError(f"expected an ELF kernel in the bzImage, saw {payload[:4]!r}: boot the bzImage itself")
    return payload


def _payload(image: bytes) -> bytes:
    setup_end = (1 + (image[SETUP_SECTORS_AT] or 4)) * SECTOR
    offset, length = struct.unpack_from("<II", image, PAYLOAD_AT)
    return image[setup_end + offset : setup_end + offset + length - PAYLOAD_TRAILER]


def _unpack(payload: bytes) -> bytes:
    if payload.startswith(XZ):
        return lzma.decompress(payload, format=lzma.FORMAT_XZ)
    if payload.startswith(ZSTD):
        return unpack_zstd(payload)
    raise GuestError(f"expected a kernel packed with XZ or zstd, saw {payload[:6]!r}: boot the bzImage itself")


def unpack_zstd(data: bytes) -> bytes:
    """What a zstd stream holds. By the command: Python has the format from 3.14 on only."""
    try:
        return subprocess.run(["zstd", "-dcq"], input=data, stdout=subprocess.PIPE, check=True).stdout
    except FileNotFoundError:
        raise GuestError("expected the command zstd, which this kernel is packed with: install zstd") from None
