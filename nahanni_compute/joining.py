"""What the scheduler's and the workers' processes do before they are members, and after."""

from __future__ import annotations

import argparse
import logging
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from nahanni_compute import core
from nahanni_compute.config import settings
from nahanni_compute.region.membership import Member
from nahanni_compute.substrate import open_substrate

COULD_NOT_JOIN: Final = os.EX_UNAVAILABLE  # exit status: another try at once would end the same way


def arguments(prog: str) -> argparse.ArgumentParser:
    """The command line of such a process."""
    parser = argparse.ArgumentParser(prog=prog)
    parser.add_argument("--shm", required=True)
    parser.add_argument("--key-file", type=Path)
    parser.add_argument("--lifeline", type=int, default=-1)
    parser.add_argument("--timeout", type=float, default=30.0)
    return parser


def prepare(name: str, end: Callable[..., object]) -> None:
    """Logs carry the name. Ctrl-C is the parent's business (decision 15); SIGTERM calls `end`, which asks to leave in order."""
    logging.basicConfig(level=settings().log_level, format=f"%(levelname)s {name}: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    core.configure()


@contextmanager
def joined(
    options: argparse.Namespace,
    role: int,
    name: str,
    *,
    threads: int = 0,
    callback: Callable[[], object] | None = None,
    urgent: Iterable[int] = (),
) -> Iterator[Member]:
    """A member with a running pump and a lifeline, until the block ends; then it leaves in order."""
    attachment = open_substrate(options.shm, options.key_file).attach(role, options.timeout)
    member = Member(attachment, role, name, threads)
    try:
        if options.lifeline >= 0:
            member.endpoint.set_lifeline(options.lifeline)
        member.endpoint.start_pump(callback, urgent)
        yield member
    finally:
        member.leave()
