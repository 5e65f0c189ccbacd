"""`nahanni scheduler`: for a region whose server was started with --no-scheduler."""

from __future__ import annotations

import argparse

from nahanni_compute import processes
from nahanni_compute.cli.joining import add_timeout, join_arguments
from nahanni_compute.cli.supervisor import keep

HELP = "join a region as its scheduler"
DESCRIPTION = """\
Join a region as its scheduler. `nahanni server` starts one by itself, unless told --no-scheduler. May be started before the
server: it waits for the socket. A region has one scheduler; when it dies, so does the cluster.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    command = commands.add_parser("scheduler", help=HELP, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_timeout(command)
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Until told to end."""
    arguments = join_arguments(options)
    lifeline = processes.Lifeline()
    return keep(lambda: processes.start("nahanni_compute.scheduler", *arguments, lifeline=lifeline), "scheduler", restart=False)
