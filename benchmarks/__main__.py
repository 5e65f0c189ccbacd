"""The command: which benchmark, and where the numbers go."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from nahanni_compute.machine import this_machine

from . import tasks
from .measure import WrongAnswerError
from .report import goals_table, table, write_json

BENCHMARKS = {"tasks": tasks.run}


def main() -> int:
    """Run the named benchmarks one after the other. Exit status 1 for a wrong answer; a goal that is missed is only said."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="+", choices=sorted(BENCHMARKS), metavar="NAME", help=f"any of: {', '.join(sorted(BENCHMARKS))}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there too")
    parser.add_argument("--quick", action="store_true", help="fewer and smaller rounds: whether it works, not how fast it is")
    options = parser.parse_args()

    machine = this_machine()
    print(f"machine: {machine}", flush=True)
    rows, goals = [], []
    try:
        for name in options.names:
            more_rows, more_goals = BENCHMARKS[name](quick=options.quick)
            rows += more_rows
            goals += more_goals
    except WrongAnswerError as error:
        print(f"WRONG: {error}", file=sys.stderr)
        return 1
    print(table(rows))
    if not options.quick:
        print(f"\n{goals_table(goals)}")
    if options.json:
        write_json(options.json, machine, rows, goals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
