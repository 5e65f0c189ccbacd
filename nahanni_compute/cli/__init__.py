"""The `nahanni` command: one module a command, each with `add(subparsers)` and `run(options) -> exit status`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from nahanni_compute.cli import demo, scheduler, server, status, version, worker
from nahanni_compute.errors import NahanniError

COMMANDS = (server, scheduler, worker, status, demo, version)

DESCRIPTION = """\
Run Python tasks in co-located VMs and on their host as if they were one computer.

The shortest way in needs no command: in Python, `Client()` starts everything on this machine.
By hand, on a host:

  nahanni server --socket /run/nahanni/region.sock     the region, and a scheduler beside it
  nahanni --shm /run/nahanni/region.sock worker        as many as you like, here
  nahanni --shm /dev/uio0 worker                       and in each guest that has the device
  nahanni --shm /run/nahanni/region.sock status        who is there

then `Client(shm="/run/nahanni/region.sock")`, or `Client(shm="/dev/uio0")` in a guest.
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="nahanni", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument(
        "--shm",
        metavar="ADDRESS",
        default=os.environ.get("NAHANNI_SHM"),
        help="the region: a server's socket (a path, or unix:PATH), or /dev/uio0 in a guest; NAHANNI_SHM stands in for it",
    )
    where = "the cluster's key; found by itself beside the socket, or in /run/nahanni/key"
    top.add_argument("--key-file", metavar="FILE", type=Path, help=where)
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add(commands)
    return top


def main(arguments: list[str] | None = None) -> int:
    """Run one command. Errors of ours are one line on standard error, and exit status 1."""
    try:
        options = parser().parse_args(arguments)  # its defaults are settings: NAHANNI_* may be wrong
        status_code: int = options.run(options)
    except NahanniError as error:
        print(f"nahanni: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return status_code
