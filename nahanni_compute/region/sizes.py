"""How large a region may be."""

from __future__ import annotations

from nahanni_compute.config import REGION_BYTES_MAX, format_size
from nahanni_compute.errors import UsageError
from nahanni_compute.region.layout import REGION_SIZE_MIN


def checked_region_size(nbytes: int) -> int:
    """`nbytes`, if a region may have that size. Raises UsageError that names the nearest ones.

    QEMU aborts, on the user's VM, for a region that is no power of two.
    """
    if nbytes < REGION_SIZE_MIN or nbytes > REGION_BYTES_MAX:
        limits = f"{format_size(REGION_SIZE_MIN)} to {format_size(REGION_BYTES_MAX)}"
        raise UsageError(f"expected a region of {limits}, saw {format_size(nbytes)}: choose a size between them")
    if nbytes & (nbytes - 1):
        below = 1 << (nbytes.bit_length() - 1)
        raise UsageError(
            f"expected a region whose size is a power of two, since QEMU maps no other, saw {format_size(nbytes)}: "
            f"the nearest are {format_size(below)} and {format_size(2 * below)}"
        )
    return nbytes
