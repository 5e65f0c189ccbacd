"""The scheduler process: `python -m nahanni_compute.scheduler --shm ADDRESS`. People use `nahanni scheduler` or `nahanni server`."""

from __future__ import annotations

import gc
import logging
import os
import sys

from nahanni_compute import joining
from nahanni_compute.errors import NahanniError
from nahanni_compute.region import layout
from nahanni_compute.scheduler.office import take_office
from nahanni_compute.scheduler.service import Scheduler

log = logging.getLogger("nahanni.scheduler")


def main() -> int:
    """Join as the keeper, serve until told to end. COULD_NOT_JOIN: the region is not there, or has a scheduler."""
    options = joining.arguments("nahanni scheduler").parse_args()
    scheduler: Scheduler | None = None

    def end(*_: object) -> None:
        if scheduler is None:
            sys.exit(0)
        scheduler.stopping = True

    joining.prepare("scheduler", end)
    try:
        with joining.joined(options, layout.ROLE_KEEPER, f"scheduler-{os.getpid()}") as member:
            scheduler = Scheduler(member, take_office(member, options.timeout))
            gc.freeze()  # nothing here is garbage; cycles do not arise in ranges and tuples
            gc.disable()
            scheduler.run()
    except NahanniError as error:
        log.error("%s", error)
        return joining.COULD_NOT_JOIN if scheduler is None else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
