"""What can go wrong with a guest."""

from __future__ import annotations

from nahanni_compute.errors import NahanniError


class GuestError(NahanniError):
    """A guest could not be prepared, did not boot, or did not do what it was told."""
