"""`nahanni version`."""

from __future__ import annotations

import argparse
import platform
from importlib.metadata import version as version_of

from nahanni_compute.region.layout import FORMAT
from nahanni_compute.version import __version__

HELP = "print versions"


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """It has none."""
    commands.add_parser("version", help=HELP, description="Print the versions that matter for who may join whom.").set_defaults(run=run)


def run(_options: argparse.Namespace) -> int:
    """One line each."""
    print(f"nahanni-compute {__version__}, region format {FORMAT}, Python {platform.python_version()}")
    print(", ".join(f"{name} {version_of(name)}" for name in ("numpy", "pyarrow", "cloudpickle")))
    return 0
