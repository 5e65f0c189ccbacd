"""`nahanni server`: the region, and a scheduler beside it."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from nahanni_compute import processes
from nahanni_compute.cli.supervisor import told_to_end, wait_for_end
from nahanni_compute.config import default_region_size, parse_size, settings
from nahanni_compute.errors import AccessRefused, UsageError

HELP = "the region, and a scheduler beside it"
DESCRIPTION = """\
Own a region of shared memory, and start a scheduler beside it. QEMU connects its ivshmem device to PATH; host processes find
their own socket (the same name with -host before its suffix) by themselves. The key that workers and clients need lies in PATH.key,
readable by you alone; give it to guests with -fw_cfg name=opt/nahanni/key,file=PATH.key.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    command = commands.add_parser("server", help=HELP, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    socket = "where QEMU connects; default: %(default)s"
    command.add_argument("--socket", metavar="PATH", type=Path, default=Path("/run/nahanni/region.sock"), help=socket)
    command.add_argument("--size", metavar="SIZE", help="of the region, a power of two, such as 4GiB; default: half of free memory")
    vectors = "doorbells of each peer; the same number as in QEMU's vectors=; default: %(default)s"
    command.add_argument("--vectors", metavar="N", type=int, default=settings().vectors, help=vectors)
    command.add_argument("--group", metavar="NAME", help="let this group connect, too (QEMU often runs as another user)")
    command.add_argument("--no-scheduler", action="store_true", help="only the region: a scheduler joins from elsewhere")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Until told to end."""
    size = parse_size(options.size) if options.size else default_region_size()
    _make_folder(options.socket.parent)
    lifeline = processes.Lifeline()
    children: list[subprocess.Popen[bytes]] = []
    try:
        with told_to_end() as told:
            server = _start_server(options, size, lifeline)
            children.append(server)
            if not processes.read_line(server.stdout).startswith("listening"):
                return 1
            if not options.no_scheduler:
                children.insert(0, processes.start("nahanni_compute.scheduler", "--shm", options.socket, lifeline=lifeline))
            print(f"region of {size >> 20} MiB at {options.socket}; stop with Ctrl-C", flush=True)
            print(f"  next: nahanni --shm {options.socket} worker", flush=True)
            return _watch(list(children), server, told)
    finally:
        for child in children:
            processes.end([child])
        lifeline.close()


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        refused = AccessRefused if isinstance(e, PermissionError) else UsageError
        raise refused(f"expected to make {folder}, saw {e.strerror}: run as a user who may, or choose another --socket") from e


def _watch(living: list[subprocess.Popen[bytes]], server: subprocess.Popen[bytes], told: int) -> int:
    """Until told to end, or until neither is left. The server goes on without its scheduler: it is who tells all others of that."""
    exit_status = 0
    while living:
        ended = wait_for_end(living, told)
        if ended is None:
            return exit_status
        living.remove(ended)
        status, exit_status = ended.wait(), 1
        if ended is server:  # the scheduler leaves when nobody else is left
            print("nahanni: the server died: what runs goes on, nobody can join; restart everything to go on", file=sys.stderr)
        elif server in living:
            print(f"nahanni: the scheduler ended with status {status}, and so did all jobs; restart everything to go on", file=sys.stderr)
    return exit_status


def _start_server(options: argparse.Namespace, size: int, lifeline: processes.Lifeline) -> subprocess.Popen[bytes]:
    group = ["--group", options.group] if options.group else []
    return processes.start(
        "nahanni_compute.server", "--socket", options.socket, "--size", size, "--vectors", options.vectors, *group,
        lifeline=lifeline, output=subprocess.PIPE,
    )  # fmt: skip
