"""What `nahanni scheduler`, `worker` and `status` share: where the region is."""

from __future__ import annotations

import argparse

from nahanni_compute.errors import UsageError


def address_of(options: argparse.Namespace) -> str:
    """The region's address. Raises UsageError that says how to give one."""
    if not options.shm:
        raise UsageError(
            f"expected the region's address, saw none: `nahanni --shm /run/nahanni/region.sock {options.command}` "
            f"(or set NAHANNI_SHM); `nahanni server` makes a region"
        )
    return str(options.shm)


def join_arguments(options: argparse.Namespace) -> list[object]:
    """For the process that joins."""
    key = ["--key-file", options.key_file] if options.key_file else []
    return ["--shm", address_of(options), *key, "--timeout", options.timeout]


def add_timeout(command: argparse.ArgumentParser) -> None:
    """How long to wait for the server's socket and for the scheduler."""
    meaning = "wait this long for the server and the scheduler; default: %(default)s"
    command.add_argument("--timeout", metavar="SECONDS", type=float, default=60.0, help=meaning)
