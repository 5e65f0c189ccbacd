"""Slots of a VM, shared out by record locks, and proofs of death (decision 14, D2): real processes on a memfd and a folder."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from nahanni_compute._native import Region
from nahanni_compute.errors import AccessRefused, RegionFull
from nahanni_compute.region.boot import boot_id
from nahanni_compute.region.layout import REGION_SIZE_MIN, STATE_DEAD, STATE_LEFT, STATE_MEMBER, slot_word
from nahanni_compute.substrate.processes import start_of, this_process
from nahanni_compute.substrate.slots_guest import GuestSlots

from .serving import PATIENCE_S, environment

PEER = 7
SLOTS = range(40, 48)

_CHILD = """
import mmap, os, sys
from nahanni_compute._native import Region
from nahanni_compute.region.layout import STATE_LEFT, STATE_MEMBER, slot_word
from nahanni_compute.region.boot import boot_id
from nahanni_compute.substrate.slots_guest import GuestSlots
region = Region(mmap.mmap(int(sys.argv[1]), 0), None)
slots = GuestSlots(region, 7, range(40, 48))
index, incarnation = slots.take()
def state(kind):
    region.write(slot_word(40 + index, "boot"), boot_id())
    region.store(slot_word(40 + index, "e_state"), incarnation << 8 | kind)
state(STATE_MEMBER)
print(index, incarnation, flush=True)
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Holder:
    """A process that is a member in a slot, within `with`."""

    def __init__(self, memory: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, str(memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(memory,),
            env=environment({}),
            text=True,
        )
        answer = self._line().split()
        assert len(answer) == 2, "it took no slot; its reason stands on standard error"
        self.index, self.incarnation = map(int, answer)
        self.slot = SLOTS[self.index]
        self.pid = self._process.pid

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def begin(self, line: str) -> None:
        """Run one line there."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def do(self, line: str) -> None:
        """And wait for its end."""
        self.begin(line)
        self._line()

    def kill(self) -> None:
        """SIGKILL, and reaped: its pid may be anybody's."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """The exit status."""
        return self._process.wait(PATIENCE_S)

    def lives(self) -> bool:
        """Whether nobody ended it."""
        return self._process.poll() is None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._process:
            self._process.kill()


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Inherited by the processes of the test."""
    monkeypatch.setenv("NAHANNI_RUN_DIR", str(tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def memory(run_dir: Path) -> Iterator[int]:
    """The memfd in a BAR's place."""
    fd = os.memfd_create("region")
    os.ftruncate(fd, REGION_SIZE_MIN)
    yield fd
    os.close(fd)


@pytest.fixture
def region(memory: int) -> Iterator[Region]:
    """The region, as this process has it."""
    mapping = mmap.mmap(memory, 0)
    region = Region(mapping, None)
    yield region
    region.close()
    mapping.close()


@pytest.fixture
def own(region: Region) -> Iterator[GuestSlots]:
    """This process's view of the slots."""
    slots = GuestSlots(region, PEER, SLOTS)
    yield slots
    slots.release()


def word(region: Region, slot: int, name: str) -> tuple[int, int]:
    """(incarnation, state)."""
    value = region.load(slot_word(slot, name))
    return value >> 8, value & 0xFF


class TestTaking:
    """No two that live have the same slot."""

    def test_processes_get_slots_of_their_own(self, memory: int, own: GuestSlots) -> None:
        """In order, each in its first incarnation."""
        with Holder(memory) as a, Holder(memory) as b:
            assert [(a.index, a.incarnation), (b.index, b.incarnation)] == [(0, 1), (1, 1)]
            assert own.take() == (2, 1)

    def test_clients_of_one_process_get_slots_of_their_own(self, region: Region, own: GuestSlots, memory: int) -> None:
        """Record locks do not tell them apart. One that goes frees nothing of the others."""
        others = [GuestSlots(region, PEER, SLOTS) for _ in range(3)]
        assert [slots.take()[0] for slots in (own, *others)] == [0, 1, 2, 3]
        for slots in others:
            slots.release()
        with Holder(memory) as process:
            assert process.index == 1

    def test_a_slot_that_was_left_is_taken_again_in_a_new_incarnation(self, region: Region, own: GuestSlots) -> None:
        """Though its process lives on. Nobody calls it dead."""
        for incarnation in (1, 2, 3):
            assert own.take() == (0, incarnation)
            region.store(slot_word(40, "e_state"), incarnation << 8 | STATE_LEFT)
            own.release()
        assert word(region, 40, "n_state") == (0, 0)

    def test_an_incarnation_is_never_used_twice_even_if_it_never_joined(self, memory: int, own: GuestSlots) -> None:
        """The record remembers what was given out."""
        assert own.take() == (0, 1)
        own.release()
        assert own.take() == (0, 2)

    def test_it_goes_on_from_what_the_slot_saw_before_this_vm(self, region: Region, own: GuestSlots) -> None:
        """The server left the highest incarnation in e_state."""
        region.store(slot_word(40, "e_state"), 9 << 8 | STATE_LEFT)
        assert own.take() == (0, 10)

    def test_when_all_are_taken_it_is_said(self, memory: int, run_dir: Path, own: GuestSlots) -> None:
        """With what to do, and where to look."""
        small = [GuestSlots(own._region, PEER, range(40, 42)) for _ in range(3)]
        small[0].take()
        small[1].take()
        with pytest.raises(RegionFull, match=f"among the 2 of this VM.*{run_dir}/slots-7"):
            small[2].take()
        for slots in small:
            slots.release()

    def test_a_folder_that_cannot_be_written_is_said(self, region: Region, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """With the command that makes it."""
        (tmp_path / "file").touch()
        monkeypatch.setenv("NAHANNI_RUN_DIR", str(tmp_path / "file"))
        with pytest.raises(AccessRefused, match=r"install -d -m 2770 -g nahanni .*NAHANNI_RUN_DIR"):
            GuestSlots(region, PEER, SLOTS).take()

    def test_each_vm_has_a_file_of_its_own(self, run_dir: Path, own: GuestSlots) -> None:
        """Named after its peer, for the group that owns the folder."""
        own.take()
        assert [(path.name, path.stat().st_mode & 0o777) for path in run_dir.iterdir()] == [("slots-7", 0o660)]


class TestProofs:
    """Dead is said only of what can store nothing any more."""

    def test_a_killed_process_is_found_and_called_dead_once(self, region: Region, memory: int, own: GuestSlots) -> None:
        """By any neighbour."""
        with Holder(memory) as process, Holder(memory) as living:
            assert own.prove_deaths() == []
            process.kill()
            assert own.prove_deaths() == [process.slot]
            assert word(region, process.slot, "n_state") == (1, STATE_DEAD)
            assert own.prove_deaths() == []
            assert word(region, living.slot, "n_state") == (0, 0)

    def test_its_slot_is_taken_again_after_the_proof(self, region: Region, memory: int, own: GuestSlots) -> None:
        """Dead first, then the next incarnation."""
        with Holder(memory) as process:
            process.kill()
        assert own.take() == (0, 2)
        assert word(region, 40, "n_state") == (1, STATE_DEAD)

    def test_a_process_that_lost_its_lock_is_killed_before_its_slot_is_taken(self, region: Region, memory: int, own: GuestSlots) -> None:
        """A stray closerange: it may still store. It is dead before anybody says so."""
        with Holder(memory) as process:
            process.begin("os.closerange(3, 100); os.read(0, 1)")
            while own.prove_deaths() != [process.slot]:
                assert process.lives()
            assert process.wait() == -signal.SIGKILL
            assert own.take() == (0, 2)

    def test_a_fork_does_not_hold_the_slot_of_its_parent(self, memory: int, own: GuestSlots) -> None:
        """Record locks are not inherited."""
        with Holder(memory) as process:
            process.do("child = os.fork() or (os.read(0, 1), os._exit(0))")
            process.kill()
            assert own.prove_deaths() == [process.slot]

    def test_the_end_of_a_fork_frees_nothing_of_its_parent(self, memory: int, own: GuestSlots) -> None:
        """Though it closes the same file."""
        with Holder(memory) as process:
            process.do("child = os.fork() or os._exit(0); os.waitpid(child, 0)")
            assert own.prove_deaths() == []
            assert process.lives()
            assert own.take() == (1, 1)

    def test_a_process_with_the_pid_of_the_dead_is_left_alone(self, region: Region, memory: int, run_dir: Path, own: GuestSlots) -> None:
        """Pid and start together name a process."""
        with Holder(memory) as process, Holder(memory) as other:
            process.kill()
            record = run_dir / "slots-7"
            data = bytearray(record.read_bytes())
            data[:8] = other.pid.to_bytes(8, "little")  # the start stays that of the dead one
            record.write_bytes(data)
            assert start_of(other.pid) is not None
            assert own.prove_deaths() == [process.slot]
            assert other.lives()

    def test_after_a_reboot_all_older_incarnations_are_dead(self, region: Region, own: GuestSlots) -> None:
        """Another boot id in the slot; the folder went with the kernel."""
        for slot in (40, 43):
            region.write(slot_word(slot, "boot"), bytes(range(16)))
            region.store(slot_word(slot, "e_state"), 4 << 8 | STATE_MEMBER)
        assert own.take() == (0, 5)
        assert [word(region, slot, "n_state") for slot in (40, 43)] == [(4, STATE_DEAD)] * 2

    def test_a_record_of_another_boot_leads_to_no_process_of_this_one(
        self, region: Region, memory: int, run_dir: Path, own: GuestSlots
    ) -> None:
        """A run directory that outlives the kernel: pid and start may fit by chance."""
        with Holder(memory) as process:
            process.begin("os.closerange(3, 100); os.read(0, 1)")
            record = run_dir / "slots-7"
            data = bytearray(record.read_bytes())
            data[32:48] = bytes(range(16))
            record.write_bytes(data)
            region.write(slot_word(40, "boot"), bytes(range(16)))
            while own.prove_deaths() != [process.slot]:
                pass
            assert process.lives()

    def test_a_member_that_no_record_covers_keeps_its_slot(self, region: Region, own: GuestSlots) -> None:
        """It uses another run directory, or somebody removed the file: it may live."""
        region.write(slot_word(40, "boot"), boot_id())
        region.store(slot_word(40, "e_state"), 1 << 8 | STATE_MEMBER)
        assert own.prove_deaths() == []
        assert own.take() == (1, 1)
        assert word(region, 40, "n_state") == (0, 0)

    def test_a_process_of_another_pid_namespace_cannot_be_proved_dead(self, memory: int, run_dir: Path, own: GuestSlots) -> None:
        """Its pid means nothing here."""
        with Holder(memory) as process:
            process.kill()
            record = run_dir / "slots-7"
            data = bytearray(record.read_bytes())
            data[16:24] = (this_process().space + 1).to_bytes(8, "little")
            record.write_bytes(data)
            assert own.prove_deaths() == []
            assert own.take() == (1, 1)
