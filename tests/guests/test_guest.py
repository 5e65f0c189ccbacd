"""Guests as a test and a user see them: what they run, what they see of the host, and that they end."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nahanni_compute.vm.errors import GuestError
from nahanni_compute.vm.machine import Boot

from .conftest import Pair

pytestmark = pytest.mark.guest

ENDS_S = 20.0

BOOT_AND_SAY = """
import sys, threading, time
from pathlib import Path
from nahanni_compute.vm.guest import Guest
from nahanni_compute.vm.machine import Boot, Machine

def start():
    guests.append(Guest(Machine("orphan", Boot(Path(sys.argv[1]), Path(sys.argv[2])))))

guests = []
thread = threading.Thread(target=start)
thread.start()
thread.join()
guests[0].qmp("query-status")
print(guests[0].pid, flush=True)
time.sleep(600)
"""


def test_a_script_that_fails_says_so_with_its_output(guests: Pair) -> None:
    """An exit status other than 0 is an error at the host."""
    with pytest.raises(GuestError, match=r"saw 3:\nno luck"):
        guests[0].sh("echo no luck >&2; exit 3")


def test_scripts_run_side_by_side(guests: Pair) -> None:
    """One may wait for what a later one does, and answers come in any order."""
    guest = guests[0]
    guest.sh("mkfifo /tmp/between")
    waits = guest.send("cat /tmp/between")
    guest.sh("echo done > /tmp/between; rm /tmp/between")
    assert guest.recv(waits) == "done"


def test_long_scripts_and_long_answers_arrive_whole(guests: Pair) -> None:
    """The serial port between has a buffer of a few bytes, and both ways lead through it at once."""
    text = "".join(f"{n:07}" for n in range(3000))
    jobs = [guests[0].send(f"printf %s {text}") for _ in range(3)]
    assert [guests[0].recv(job) for job in jobs] == [text] * 3


def test_a_guest_runs_this_python_on_this_package(guests: Pair) -> None:
    """Every path of the host is the same path in the guest."""
    here = f"{sys.version} {Path(sys.modules['nahanni_compute'].__file__ or '')}"
    assert guests[0].python("import nahanni_compute, sys; print(sys.version, nahanni_compute.__file__)") == here


def test_the_hosts_root_is_read_only_and_the_guest_has_folders_of_its_own(guests: Pair) -> None:
    """/run, /tmp and /dev/shm are empty and writable, nothing else is."""
    guest = guests[0]
    guest.sh("for folder in /run /tmp /dev/shm; do echo x > $folder/probe && rm $folder/probe || exit 1; done")
    with pytest.raises(GuestError, match="Read-only file system"):
        guest.sh("echo x > /etc/probe")


def test_a_guest_ends_with_its_parent_and_not_with_a_thread_of_it(boot: Boot) -> None:
    """The parent is killed with SIGKILL, long after the thread that started the guest has ended."""
    command = [sys.executable, "-c", BOOT_AND_SAY, str(boot.kernel), str(boot.initramfs)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        qemu = os.pidfd_open(int(parent.stdout.readline()))
        parent.send_signal(signal.SIGKILL)
    try:
        assert select.select([qemu], [], [], ENDS_S)[0]
    finally:
        os.close(qemu)


def test_folders_that_the_guests_own_mounts_would_hide_are_kept(guests: Pair, kept_folder: Path) -> None:
    """A folder below /tmp, with a blank in its name, that the guests were told to keep; the guest's own /tmp is around it."""
    for guest in guests:
        assert guest.sh(f"cat '{kept_folder}/file'") == "seen"
