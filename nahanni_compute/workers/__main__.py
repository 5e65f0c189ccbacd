"""One worker process: `python -m nahanni_compute.workers --shm ADDRESS`. People use `nahanni worker`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
from pathlib import Path

from nahanni_compute import core
from nahanni_compute.config import settings
from nahanni_compute.errors import NahanniError
from nahanni_compute.region import layout
from nahanni_compute.region.membership import Member
from nahanni_compute.substrate import open_substrate
from nahanni_compute.workers.service import URGENT, Worker

log = logging.getLogger("nahanni.worker")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="nahanni worker")
    parser.add_argument("--shm", required=True)
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--name", default=f"worker-{os.getpid()}")
    parser.add_argument("--lifeline", type=int, default=-1)
    parser.add_argument("--timeout", type=float, default=30.0)
    return parser.parse_args()


def main() -> int:
    """Join, work until told to leave, leave. The exit status is 1 when the region or its scheduler is not there."""
    options = _arguments()
    logging.basicConfig(level=settings().log_level, format=f"%(levelname)s {options.name}: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    worker: Worker | None = None
    ended = threading.Event()

    def end(*_: object) -> None:
        ended.set()
        if worker is not None:
            worker.stopping = True

    def turn() -> None:
        if worker is not None:
            worker.turn()

    signal.signal(signal.SIGTERM, end)
    try:
        core.configure()
        attachment = open_substrate(options.shm, options.key_file).attach(layout.ROLE_WORKER, options.timeout)
        member = Member(attachment, layout.ROLE_WORKER, options.name, threads=1)
        if options.lifeline >= 0:
            member.endpoint.set_lifeline(options.lifeline)
        member.endpoint.start_pump(turn, URGENT)
        try:
            member.find_keeper(options.timeout)
            worker = Worker(member)
            worker.stopping = ended.is_set()
            worker.run()
        finally:
            member.leave()
    except NahanniError as error:
        log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
