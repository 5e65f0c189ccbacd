"""Two guests for all tests of this folder: booted once, side by side, on one server, and kept until the last of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from nahanni_compute.vm.guest import Guest
from nahanni_compute.vm.machine import Boot, Machine

from . import kit
from .counts import counts
from .region_server import RegionServer

CHECKOUT = Path(__file__).parents[2]

Pair = tuple[Guest, Guest]
BootGuest = Callable[[Machine], Guest]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts what the last line tells."""
    counts.note(report)


@pytest.fixture(scope="package")
def boot() -> Boot:
    """Kernel and initramfs. Without what they need: skipped, or an error in CI."""
    missing = kit.missing_commands()
    if missing:
        refuse = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        refuse(f"guests need {', '.join(missing)}: run tools/guest-packages")
    return kit.prepare()


@pytest.fixture(scope="package")
def region_server(boot: Boot) -> Iterator[RegionServer]:
    """The server of the two guests, without a scheduler."""
    with RegionServer() as server:
        yield server


@pytest.fixture(scope="package")
def kept_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the host below /tmp, which the two guests were told to keep. What they see of it is what it held at their start."""
    folder = tmp_path_factory.mktemp("a folder")
    (folder / "file").write_text("seen")
    return folder


@pytest.fixture(scope="package")
def guests(boot: Boot, region_server: RegionServer, kept_folder: Path) -> Iterator[Pair]:
    """Two guests that are up. A test leaves them as it found them; what it wants to break it boots itself (`boot_guest`)."""
    with ExitStack() as stack:
        one, two = (
            _start(stack, Machine(name, boot, region_server.socket, region_server.key_file, keep=[CHECKOUT, kept_folder]))
            for name in ("one", "two")
        )
        yield one.wait_up(), two.wait_up()


@pytest.fixture
def boot_guest() -> Iterator[BootGuest]:
    """Starts a guest of the test's own, as `Guest` does; it ends with the test."""
    with ExitStack() as stack:
        yield lambda machine: _start(stack, machine)


def _start(stack: ExitStack, machine: Machine) -> Guest:
    guest = Guest(machine)
    stack.callback(guest.kill)
    counts.booted += 1
    return guest
