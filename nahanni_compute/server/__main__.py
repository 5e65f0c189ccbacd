"""`python -m nahanni_compute.server`: a region, until SIGTERM or until the parent ends. `nahanni server` starts this.

Says "listening on PATH" on standard output when QEMU and host processes may connect.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import replace
from pathlib import Path

from nahanni_compute.config import default_region_size, parse_size, settings
from nahanni_compute.errors import NahanniError
from nahanni_compute.region.sizes import checked_region_size
from nahanni_compute.server.service import Options, Server


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m nahanni_compute.server", description="The region's server.")
    parser.add_argument("--socket", required=True, type=Path, metavar="PATH", help="for QEMU; host processes connect to its -host twin")
    parser.add_argument("--size", metavar="SIZE", help="of the region, a power of two such as 4GiB; half of the free memory if not given")
    parser.add_argument("--vectors", type=int, metavar="N", help="doorbell vectors a peer")
    parser.add_argument("--group", metavar="NAME", help="a group that may connect too")
    parser.add_argument("--lifeline", type=int, metavar="FD", help="a pipe; the server ends when its other end is closed")
    parser.add_argument("--private-dir", action="store_true", help="remove the socket's directory at the end")
    return parser


def main() -> int:
    """Exit status: 0 after an orderly end, 1 when the server could not start."""
    arguments = _parser().parse_args()
    logging.raiseExceptions = False  # standard error may be a pipe that nobody reads any more
    try:
        conf = settings()
        logging.basicConfig(level=conf.log_level, format="nahanni server: %(message)s")
        nbytes = default_region_size() if arguments.size is None else checked_region_size(parse_size(arguments.size, "--size"))
        if arguments.vectors is not None:
            conf = replace(conf, vectors=arguments.vectors)
        server = Server(Options(arguments.socket, nbytes, arguments.lifeline, arguments.group, arguments.private_dir), conf)
    except (NahanniError, OSError) as e:
        print(f"nahanni server: {e}", file=sys.stderr)
        return 1
    print(f"listening on {arguments.socket}", flush=True)
    try:
        server.run()
    finally:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
