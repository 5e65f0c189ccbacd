"""`nahanni status`: who is there."""

from __future__ import annotations

import argparse
import json
import os

from nahanni_compute import core
from nahanni_compute.cli.joining import address_of
from nahanni_compute.region import layout
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import Identity, members
from nahanni_compute.substrate import open_substrate

HELP = "say who is there"
DESCRIPTION = "List the endpoints of a region: scheduler, workers, clients, with their host, process and way to the region."
COLUMNS = ("role", "name", "host", "pid", "substrate", "threads")


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    command = commands.add_parser("status", help=HELP, description=DESCRIPTION)
    command.add_argument("--json", action="store_true", help="for programs")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """One look. Exit status 1 when there is no scheduler."""
    core.configure()
    attachment = open_substrate(address_of(options), key_file=options.key_file).attach(layout.ROLE_OBSERVER)
    member = Member(attachment, layout.ROLE_OBSERVER, f"status-{os.getpid()}")
    try:
        found = [m for m in members(member.region) if m.key != member.key]
        size = member.region.size
    finally:
        member.leave()
    if options.json:
        print(json.dumps({"region_bytes": size, "members": [_row(m) for m in found]}, indent=2))
    else:
        print(_table(size, found))
    return 0 if any(m.role == "scheduler" for m in found) else 1


def _row(member: Identity) -> dict[str, object]:
    return {column: getattr(member, column) for column in COLUMNS}


def _table(size: int, found: list[Identity]) -> str:
    rows = [COLUMNS, *(tuple(str(value) for value in _row(m).values()) for m in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    verdict = "" if any(m.role == "scheduler" for m in found) else "\nno scheduler: start one with `nahanni scheduler`"
    return f"region: {size >> 20} MiB\n" + "\n".join(lines) + verdict
