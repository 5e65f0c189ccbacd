"""What the last line of a test run says of guests."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

MARKER = "guest"


@dataclass
class Counts:
    """Of one run of pytest."""

    booted: int = 0
    tests: int = 0
    skipped: int = 0

    def note(self, report: pytest.TestReport) -> None:
        """A test that ran in guests, or one that could not."""
        if MARKER not in report.keywords:
            return
        if report.skipped:
            self.skipped += 1
        elif report.when == "call":
            self.tests += 1


counts = Counts()


def guest_counts() -> tuple[int, int, int]:
    """Guests booted, tests run in them, tests skipped for want of them."""
    return counts.booted, counts.tests, counts.skipped
