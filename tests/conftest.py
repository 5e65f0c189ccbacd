"""What every test is held to: afterwards no process, memfd, socket, thread, descriptor or temporary file is left."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nahanni_compute import Client, LocalCluster

from .commands import Shell, open_shell
from .gates import Gate

# This run's own temporary folder, which its children inherit: what others on this machine make is none of its business.
OWN = tempfile.mkdtemp(prefix="nahanni-")
os.environ["TMPDIR"] = tempfile.tempdir = OWN
SETTLE_S = 10.0
REGION = "128MiB"


def _descriptors() -> dict[str, int]:
    """What this process has open, by what it is; counts, since numbers are used again."""
    found: dict[str, int] = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        kind = target.partition(":[")[0]  # socket:[123] and pipe:[123] have numbers of their own
        found[kind] = found.get(kind, 0) + 1
    return {kind: n for kind, n in found.items() if not kind.startswith(("/proc/", "/dev/null"))}


def _children() -> set[int]:
    """Every process below this one, also those that ended and were not reaped."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                parents[int(entry)] = int(Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    below: set[int] = set()
    grown = {os.getpid()}
    while grown:
        grown = {pid for pid, parent in parents.items() if parent in grown}
        below |= grown
    return below


def _strays() -> set[int]:
    """Processes of ours that lost their parent: children of init, or of whoever reaps here."""
    found = set()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            command = Path(f"/proc/{entry}/cmdline").read_bytes()
            environment = Path(f"/proc/{entry}/environ").read_bytes()
            state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        ours = f"TMPDIR={OWN}".encode() in environment.split(b"\0")
        if ours and b"nahanni_compute" in command and state != "Z" and int(parent) == 1:
            found.add(int(entry))
    return found


def _pumps() -> int:
    """Native threads of ours. Those of libraries (Arrow's pools start them as they need them) are theirs to keep."""
    names = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it ended meanwhile
            names.append((task / "comm").read_text().strip())
    return names.count("nahanni-pump")


def _mappings() -> int:
    return sum("memfd:" in line for line in Path("/proc/self/maps").read_text().splitlines())


def _temporary() -> set[str]:
    return {str(path) for path in Path(OWN).glob("nahanni-*")}


def _state() -> dict[str, object]:
    return {
        "descriptors": _descriptors(),
        "threads": threading.active_count() + _pumps(),
        "children": _children(),
        "strays": _strays(),
        "mappings of memfds": _mappings(),
        "temporary files": _temporary(),
    }


def _more(before: dict[str, object], after: dict[str, object]) -> dict[str, object]:
    """What is there now and was not before."""
    found: dict[str, object] = {}
    for name, now in after.items():
        then = before[name]
        if isinstance(now, set) and isinstance(then, set):
            extra: object = now - then
        elif isinstance(now, dict) and isinstance(then, dict):
            extra = {kind: n - then.get(kind, 0) for kind, n in now.items() if n > then.get(kind, 0)}
        else:
            extra = max(0, now - then)  # type: ignore[operator]
        if extra:
            found[name] = extra
    return found


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Leaving takes a moment (a process that was killed must be reaped): it is given SETTLE_S, and no more."""
    before = _state()
    yield
    end = time.monotonic() + SETTLE_S
    gc.collect()
    while (left := _more(before, _state())) and time.monotonic() < end:
        time.sleep(0.02)
        gc.collect()
    assert not left, f"left behind: {left}"


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[LocalCluster]:
    """Two workers, for tests that harm nobody."""
    with LocalCluster(n_workers=2, region_size=REGION) as cluster:
        yield cluster


@pytest.fixture
def client(shared_cluster: LocalCluster) -> Iterator[Client]:
    """A client of the shared cluster."""
    with Client(shared_cluster) as opened:
        yield opened


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    """Two workers of this test's own, to be harmed."""
    with LocalCluster(n_workers=2, region_size=REGION) as own:
        yield own


@pytest.fixture
def shell() -> Iterator[Shell]:
    """Where `nahanni` commands are started, on a region of their own."""
    with open_shell() as opened:
        yield opened


@pytest.fixture
def gate() -> Iterator[Gate]:
    """Where tasks stop until they are let on."""
    with Gate() as opened:
        yield opened


def pytest_unconfigure() -> None:
    """The run's temporary folder goes with it. The last line: how many guests, how many tests in them, which Python."""
    from tests.guests.counts import guest_counts

    shutil.rmtree(OWN, ignore_errors=True)
    booted, tests, skipped = guest_counts()
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"guests: {booted} booted, {tests} tests in them, {skipped} skipped; pythons: {version}")
