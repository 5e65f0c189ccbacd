"""The scheduler process: `python -m nahanni_compute.scheduler --shm ADDRESS`. People use `nahanni scheduler` or `nahanni server`."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys
from pathlib import Path

from nahanni_compute import core
from nahanni_compute.config import settings
from nahanni_compute.errors import NahanniError
from nahanni_compute.region import layout
from nahanni_compute.region.membership import Member
from nahanni_compute.scheduler.office import take_office
from nahanni_compute.scheduler.service import Scheduler
from nahanni_compute.substrate import open_substrate

log = logging.getLogger("nahanni.scheduler")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nahanni scheduler")
    parser.add_argument("--shm", required=True)
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--lifeline", type=int, default=-1)
    parser.add_argument("--timeout", type=float, default=30.0)
    return parser.parse_args()


def main() -> int:
    """Join as the keeper, serve until told to end. The exit status is 1 when the region is not there or has a scheduler."""
    options = _arguments()
    logging.basicConfig(level=settings().log_level, format="%(levelname)s scheduler: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    scheduler: Scheduler | None = None

    def end(*_: object) -> None:
        if scheduler is None:
            sys.exit(0)
        scheduler.stopping = True

    signal.signal(signal.SIGTERM, end)
    try:
        core.configure()
        attachment = open_substrate(options.shm, options.key_file).attach(layout.ROLE_KEEPER, options.timeout)
        member = Member(attachment, layout.ROLE_KEEPER, f"scheduler-{os.getpid()}")
        try:
            if options.lifeline >= 0:
                member.endpoint.set_lifeline(options.lifeline)
            member.endpoint.start_pump()
            scheduler = Scheduler(member, take_office(member, options.timeout))
            gc.freeze()  # nothing here is garbage; cycles do not arise in ranges and tuples
            gc.disable()
            scheduler.run()
        finally:
            member.leave()
    except NahanniError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
