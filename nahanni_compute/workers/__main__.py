"""One worker process: `python -m nahanni_compute.workers --shm ADDRESS`. People use `nahanni worker`."""

from __future__ import annotations

import logging
import os
import sys

from nahanni_compute import joining
from nahanni_compute.errors import NahanniError
from nahanni_compute.region import layout
from nahanni_compute.workers.service import URGENT, Worker

log = logging.getLogger("nahanni.worker")


def main() -> int:
    """Join, work until told to leave, leave. COULD_NOT_JOIN: the region or its scheduler is not there."""
    parser = joining.arguments("nahanni worker")
    parser.add_argument("--name", default=f"worker-{os.getpid()}")
    options = parser.parse_args()
    worker: Worker | None = None

    def end(*_: object) -> None:
        if worker is None:
            sys.exit(0)
        worker.stopping = True

    def turn() -> None:
        if worker is not None:
            worker.turn()

    joining.prepare(options.name, end)
    try:
        with joining.joined(options, layout.ROLE_WORKER, options.name, threads=1, callback=turn, urgent=URGENT) as member:
            member.find_keeper(options.timeout)
            worker = Worker(member)
            worker.run()
    except NahanniError as error:
        log.error("%s", error)
        return joining.COULD_NOT_JOIN if worker is None else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
