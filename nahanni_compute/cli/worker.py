"""`nahanni worker`: run tasks here."""

from __future__ import annotations

import argparse
import os
import platform

from nahanni_compute import processes
from nahanni_compute.cli.joining import add_timeout, join_arguments
from nahanni_compute.cli.supervisor import keep

HELP = "join a region and run tasks"
DESCRIPTION = """\
Join a region and run tasks, on the host (--shm PATH of the server's socket) or in a guest (--shm /dev/uio0). Start as many as
there are cores to give; each runs one task at a time. Workers may come and go while a job runs. One that dies is started again.
May be started before the server and the scheduler: it waits for them.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    command = commands.add_parser("worker", help=HELP, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--name", metavar="N", help="what it is called; default: host name and process id")
    add_timeout(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Until told to end."""
    arguments = [*join_arguments(options), "--name", options.name or f"{platform.node()}-{os.getpid()}"]
    lifeline = processes.Lifeline()
    return keep(lambda: processes.start("nahanni_compute.workers", *arguments, lifeline=lifeline, threads=1), "worker", restart=True)
