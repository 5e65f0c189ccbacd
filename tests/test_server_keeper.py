"""The server and the keeper: who is appointed, what is committed, when a slot is given again (PROTOCOL.md M6, D5, D6, A1)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEADER, MIB, MSG, UPLINK_LOG2, directory_word, heap_start, slot_word
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import is_alive, keeper_of, member_key
from nahanni_compute.server.slots import Slots
from nahanni_compute.substrate import Attachment, open_substrate

from .serving import PATIENCE_S, HostProcess, RawQemu, Serving

HEAP = heap_start(64 * MIB)
CHECKOUT = str(Path(__file__).parents[1])
DEAD, LEFT, JOINED = layout.STATE_DEAD, layout.STATE_LEFT, layout.STATE_JOINED

_OFFICE = """
member = Member(place, ROLE_KEEPER, "keeper"); \
place.region.store(directory_word(member.key.slot, 0), slot_word(member.key.slot, "uplink") | UPLINK_LOG2); \
place.endpoint.ring(0)
"""


class Keeper:
    """A keeper that says only what a test tells it to."""

    def __init__(self, place: Attachment) -> None:
        self.member = Member(place, layout.ROLE_KEEPER, "keeper")
        self.endpoint, self.region, self.slot = place.endpoint, place.region, place.endpoint.slot
        self.region.store(directory_word(self.slot, 0), slot_word(self.slot, "uplink") | UPLINK_LOG2)
        self.endpoint.ring(0)
        answer, theirs = directory_word(0, self.slot), slot_word(0, "uplink")
        self.endpoint.watch(answer)
        end = time.monotonic() + PATIENCE_S
        while self.region.load(answer) != theirs | UPLINK_LOG2 or self.region.load(theirs + 8) != place.endpoint.incarnation:
            assert time.monotonic() < end, "the server does not answer"
            self.endpoint.wait(0.1)
            self.endpoint.changed()
        self.endpoint.open_in(0, theirs, UPLINK_LOG2, self.region.load(theirs + 16))
        self.endpoint.open_out(0, slot_word(self.slot, "uplink"), UPLINK_LOG2)

    def say(self, kind: str, first: int, second: int) -> None:
        self.endpoint.send(0, MSG[kind], first, second)
        self.endpoint.flush()

    def ask(self, kind: str, first: int, second: int) -> tuple[int, int, int]:
        """What the server answers: kind and two words."""
        self.say(kind, first, second)
        return self.answer()

    def answer(self) -> tuple[int, int, int]:
        end = time.monotonic() + PATIENCE_S
        while not (taken := self.endpoint.take()):
            assert time.monotonic() < end, "the server does not answer"
            self.endpoint.wait(0.25)
        ((_, kind, first, second, *_),) = taken
        return kind, first, second


@pytest.fixture
def server() -> Iterator[Serving]:
    with Serving() as serving:
        yield serving


@pytest.fixture
def qemu(server: Serving) -> Iterator[RawQemu]:
    """Slots 1 to 8; it sees what changes."""
    with RawQemu(server.socket) as vm:
        yield vm


@contextmanager
def keeping(server: Serving) -> Iterator[Keeper]:
    """A keeper of this process; it leaves in order."""
    place = open_substrate(server.socket).attach(layout.ROLE_KEEPER)
    try:
        keeper = Keeper(place)
        yield keeper
        keeper.member.leave()
    finally:
        place.close()


def blocks(vm: RawQemu) -> int:
    """Bytes of the region that have memory."""
    return os.fstat(vm.memory).st_blocks * 512


class TestAppointment:
    """One keeper at a time, each with an epoch."""

    def test_a_process_that_greets_as_keeper_is_appointed_when_it_is_a_member(self, server: Serving, qemu: RawQemu) -> None:
        """Not before: nobody must read its slot while it says nothing there."""
        with HostProcess(server, layout.ROLE_KEEPER) as process:
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, JOINED))
            assert keeper_of(qemu.region) is None
            process.do(_OFFICE.strip())
            qemu.wait_until(lambda: keeper_of(qemu.region) == (process.slot, 1))

    def test_only_one_that_is_gone_is_replaced(self, server: Serving, qemu: RawQemu) -> None:
        """By who waits, with the next epoch (K1)."""
        with HostProcess(server, layout.ROLE_KEEPER) as first, HostProcess(server, layout.ROLE_KEEPER) as second:
            for process in (first, second):
                process.do(_OFFICE.strip())
                qemu.wait_until(lambda: keeper_of(qemu.region) == (first.slot, 1))
            first.kill()
            qemu.wait_until(lambda: keeper_of(qemu.region) == (second.slot, 2))

    def test_a_process_of_another_role_is_not_appointed_whatever_its_slot_says(self, server: Serving, qemu: RawQemu) -> None:
        """It is what it greeted as."""
        with HostProcess(server, layout.ROLE_CLIENT) as process, keeping(server) as keeper:
            process.do(_OFFICE.strip())
            assert keeper_of(qemu.region) == (keeper.slot, 1)

    def test_an_endpoint_of_a_vm_may_be_the_keeper(self, server: Serving, qemu: RawQemu) -> None:
        """It rings peer 0; its slot says what it is. When its VM ends, there is none."""
        with RawQemu(server.socket) as vm:
            slot = vm.region.load(layout.peer_word(vm.id, "slots")) >> 32
            vm.region.store(slot_word(slot, "bell"), vm.id << 16)
            vm.region.store(slot_word(slot, "role"), layout.ROLE_KEEPER)
            vm.region.store(slot_word(slot, "e_state"), 7 << 8 | layout.STATE_MEMBER)
            vm.region.store(directory_word(slot, 0), slot_word(slot, "uplink") | UPLINK_LOG2)
            os.eventfd_write(vm.doors[0][0], 1)
            qemu.wait_until(lambda: keeper_of(qemu.region) == (slot, 1))
            vm.wait_until(lambda: vm.region.load(slot_word(0, "uplink") + 8) == 7)
            key = member_key(qemu.region, slot)
            assert key is not None
            assert is_alive(qemu.region, key)
        qemu.wait_until(lambda: qemu.state(slot) == (0, DEAD))
        assert not is_alive(qemu.region, key)

    def test_a_vm_whose_keeper_breaks_the_rules_is_not_heard_and_not_replaced_before_its_end(self, server: Serving, qemu: RawQemu) -> None:
        """Nobody can end it from here, and only a dead keeper is replaced (D5, K1)."""
        with RawQemu(server.socket) as vm, HostProcess(server, layout.ROLE_KEEPER) as next_one:
            slot = vm.region.load(layout.peer_word(vm.id, "slots")) >> 32
            vm.region.store(slot_word(slot, "role"), layout.ROLE_KEEPER)
            vm.region.store(directory_word(slot, 0), layout.HEAP)  # its ring is anywhere but in its slot
            vm.region.store(slot_word(slot, "e_state"), 1 << 8 | layout.STATE_MEMBER)
            os.eventfd_write(vm.doors[0][0], 1)
            qemu.wait_until(lambda: keeper_of(qemu.region) == (slot, 1))
            next_one.do(_OFFICE.strip())
            whole_turns(qemu)
            assert "VM 2 is expelled: expected its ring to the server" in server.logged()
            assert keeper_of(qemu.region) == (slot, 1)
            vm.close()
            qemu.wait_until(lambda: keeper_of(qemu.region) == (next_one.slot, 2))

    def test_the_slot_of_a_keeper_is_not_given_again_while_the_header_names_it(self, server: Serving, qemu: RawQemu) -> None:
        """Nobody must take another process for the keeper."""
        with keeping(server) as first:
            assert first.slot == 9
        qemu.wait_until(lambda: qemu.state(9) == (1, LEFT))
        with HostProcess(server, layout.ROLE_CLIENT) as process:
            assert process.slot == 10
        with keeping(server) as second:
            assert second.slot > 9
            with HostProcess(server, layout.ROLE_CLIENT) as process:
                assert (process.slot, process.incarnation) == (9, 2)


class TestMemory:
    """COMMIT and PUNCH: whole arena units of the heap."""

    def test_committed_memory_is_there_before_the_answer(self, server: Serving, qemu: RawQemu) -> None:
        """A store into it never fails for want of memory. Asking again costs nothing."""
        with keeping(server) as keeper:
            before = blocks(qemu)
            for _ in range(2):
                assert keeper.ask("COMMIT", HEAP + 2 * MIB, 3 * MIB) == (MSG["COMMITTED"], HEAP + 2 * MIB, 3 * MIB)
                assert blocks(qemu) == before + 3 * MIB

    def test_punched_memory_is_given_back_and_reads_as_zeros(self, server: Serving, qemu: RawQemu) -> None:
        """When the keeper says so."""
        with keeping(server) as keeper:
            before = blocks(qemu)
            keeper.ask("COMMIT", HEAP, 2 * MIB)
            keeper.region.write(HEAP + MIB, b"x" * 4096)
            keeper.say("PUNCH", HEAP + MIB, MIB)
            keeper.ask("COMMIT", HEAP, MIB)  # answered in order
            assert blocks(qemu) == before + MIB
            assert keeper.region.read(HEAP + MIB, 4096) == bytes(4096)

    def test_a_large_commitment_is_made_in_steps(self) -> None:
        """And answered once, when all of it is there."""
        with Serving(commit_step_bytes="1MiB") as server, RawQemu(server.socket) as qemu, keeping(server) as keeper:
            before = blocks(qemu)
            keeper.ask("COMMIT", HEAP + 2 * MIB, MIB)
            assert keeper.ask("COMMIT", HEAP, 5 * MIB) == (MSG["COMMITTED"], HEAP, 5 * MIB)
            assert blocks(qemu) == before + 5 * MIB

    def test_more_than_the_quota_is_refused(self) -> None:
        """The host's owner says how much; what was committed counts."""
        with Serving(commit_max_bytes="4MiB") as server, RawQemu(server.socket) as qemu, keeping(server) as keeper:
            assert keeper.ask("COMMIT", HEAP, 3 * MIB)[0] == MSG["COMMITTED"]
            before = blocks(qemu)
            assert keeper.ask("COMMIT", HEAP + 3 * MIB, 2 * MIB) == (MSG["REFUSED"], HEAP + 3 * MIB, layout.REASON_FULL)
            assert blocks(qemu) == before
            keeper.say("PUNCH", HEAP, MIB)
            assert keeper.ask("COMMIT", HEAP + 3 * MIB, 2 * MIB)[0] == MSG["COMMITTED"]

    def test_a_hundred_requests_at_once_are_all_answered_in_order(self, server: Serving) -> None:
        """Both rings are full of them."""
        with keeping(server) as keeper:
            for i in range(100):
                keeper.endpoint.send(0, MSG["COMMIT"], HEAP + i % 8 * MIB, MIB)
            keeper.endpoint.flush()
            offsets: list[int] = []
            end = time.monotonic() + PATIENCE_S
            while len(offsets) < 100 and time.monotonic() < end:
                offsets += [first for _, _, first, *_ in keeper.endpoint.take()]
                keeper.endpoint.flush()
                keeper.endpoint.wait(0.05)
            assert offsets == [HEAP + i % 8 * MIB for i in range(100)]

    @pytest.mark.parametrize(
        ("kind", "first", "second"),
        [
            ("COMMIT", 0, MIB),
            ("COMMIT", HEAP - MIB, MIB),
            ("COMMIT", HEAP + 64, MIB),
            ("COMMIT", HEAP, MIB + 4096),
            ("COMMIT", HEAP, 0),
            ("COMMIT", HEAP, 1 << 40),
            ("COMMIT", (1 << 64) - MIB, 2 * MIB),
            ("PUNCH", 0, 64 * MIB),
            ("RETIRE", 0, 1),
            ("RETIRE", 9, 1 << 40),
            ("RETIRE", 4096, 1),
            ("GRANT", 0, 0),
            ("OPEN", 0, 0),
        ],
    )
    def test_what_it_must_not_ask_for_costs_the_keeper_its_membership(
        self, server: Serving, qemu: RawQemu, kind: str, first: int, second: int
    ) -> None:
        """It is ended; the server goes on, and the next one is appointed (D5, D6)."""
        with HostProcess(server, layout.ROLE_KEEPER) as process:
            process.do(f"import sys; sys.path.append({CHECKOUT!r})")  # last: what is tested is what is installed
            process.do("from tests.test_server_keeper import Keeper")
            process.do("keeper = Keeper(place)")
            process.begin(f"keeper.say({kind!r}, {first}, {second}); os.read(0, 1)")
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, DEAD))
        assert "is expelled: expected" in server.logged()
        with keeping(server) as keeper:
            assert keeper_of(qemu.region) == (keeper.slot, 2)
            assert keeper.ask("COMMIT", HEAP, MIB)[0] == MSG["COMMITTED"]

    def test_a_ring_that_lies_costs_the_keeper_its_membership(self, server: Serving, qemu: RawQemu) -> None:
        """R3: a tail further ahead than the ring is long."""
        with HostProcess(server, layout.ROLE_KEEPER) as process:
            process.do(f"import sys; sys.path.append({CHECKOUT!r})")  # last: what is tested is what is installed
            process.do("from tests.test_server_keeper import Keeper")
            process.do("keeper = Keeper(place)")
            process.begin(f"place.region.store(slot_word({process.slot}, 'uplink'), 1 << 40); place.endpoint.ring(0); os.read(0, 1)")
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, DEAD))


class TestSlots:
    """A slot is given again when the keeper has handled the end of its endpoint."""

    @pytest.fixture
    def keeper(self, server: Serving, qemu: RawQemu) -> Iterator[Keeper]:
        with keeping(server) as keeper:
            assert keeper.slot == 9
            yield keeper

    def call_keeper(self, process: HostProcess) -> None:
        """Become a member that the keeper may know."""
        process.do("member = Member(place, ROLE_WORKER, 'w')")
        process.do("place.region.store(directory_word(member.key.slot, 9), 1)")

    def test_not_before_retire(self, server: Serving, qemu: RawQemu, keeper: Keeper) -> None:
        """The keeper may still drain its rings."""
        with HostProcess(server, layout.ROLE_WORKER) as first:
            self.call_keeper(first)
            first.kill()
            qemu.wait_until(lambda: qemu.state(10) == (1, DEAD))
        with HostProcess(server, layout.ROLE_WORKER) as second:
            assert second.slot == 11
            keeper.say("RETIRE", 10, 1)
            keeper.ask("COMMIT", HEAP, MIB)
            with HostProcess(server, layout.ROLE_WORKER) as third:
                assert (third.slot, third.incarnation) == (10, 2)
                assert qemu.state(10) == (2, JOINED)
                assert qemu.state(10, "e_state") == (1, LEFT)

    def test_retire_may_come_before_the_end_of_the_socket(self, server: Serving, qemu: RawQemu, keeper: Keeper) -> None:
        """Its e_state says LEFT before its socket ends."""
        with HostProcess(server, layout.ROLE_WORKER) as first:
            self.call_keeper(first)
            keeper.say("RETIRE", 10, 1)
            keeper.ask("COMMIT", HEAP, MIB)
            first.kill()
            qemu.wait_until(lambda: qemu.state(10) == (1, DEAD))
        with HostProcess(server, layout.ROLE_WORKER) as second:
            assert second.slot == 10

    def test_one_that_never_called_the_keeper_owes_nothing(self, server: Serving, qemu: RawQemu, keeper: Keeper) -> None:
        """Such as `nahanni status`: the keeper does not know it."""
        with HostProcess(server, layout.ROLE_OBSERVER) as first:
            first.do("member = Member(place, ROLE_OBSERVER, 'o')")
            first.kill()
            qemu.wait_until(lambda: qemu.state(10) == (1, DEAD))
        with HostProcess(server, layout.ROLE_WORKER) as second:
            assert second.slot == 10

    def test_the_members_of_a_vm_are_retired_one_by_one(self, server: Serving, qemu: RawQemu, keeper: Keeper) -> None:
        """Slots of a VM where nobody is a member are free when it ends. The next one there counts on."""
        with RawQemu(server.socket) as vm:
            slots = range(10, 18)
            assert vm.region.load(layout.peer_word(vm.id, "slots")) == slots.start << 32 | 8
            vm.region.store(directory_word(12, 9), 1)
            vm.region.store(slot_word(12, "e_state"), 5 << 8 | layout.STATE_MEMBER)
        qemu.wait_until(lambda: all(qemu.state(slot) == (0, DEAD) for slot in slots))
        with HostProcess(server, layout.ROLE_WORKER) as a, HostProcess(server, layout.ROLE_WORKER) as b:
            assert (a.slot, b.slot) == (10, 11)
            with HostProcess(server, layout.ROLE_WORKER) as c:
                assert c.slot == 13
                keeper.say("RETIRE", 12, 5)
                keeper.ask("COMMIT", HEAP, MIB)
                with HostProcess(server, layout.ROLE_WORKER) as d:
                    assert (d.slot, d.incarnation) == (12, 6)

    @pytest.mark.parametrize(("joined", "later"), [(5, 1 << 8 | LEFT), (1 << 33, 0), (1 << 33, 1 << 8 | LEFT)])
    @pytest.mark.parametrize("ended", [False, True], ids=["its VM lives", "its VM has ended"])
    def test_a_guest_that_changes_its_incarnation_does_not_cost_the_keeper_its_membership(
        self, server: Serving, qemu: RawQemu, joined: int, later: int, ended: bool
    ) -> None:
        """RETIRE names what the keeper saw in e_state, which the VM may have changed since."""
        with keeper_process(server) as keeper, RawQemu(server.socket) as vm:
            vm.region.store(slot_word(12, "e_state"), joined << 8 | layout.STATE_MEMBER)
            if later:
                vm.region.store(slot_word(12, "e_state"), later)
            if ended:
                vm.close()
                qemu.wait_until(lambda: qemu.state(12) == (0, DEAD))
            answer = keeper.do(f"keeper.say('RETIRE', 12, {joined}); answer = keeper.ask('COMMIT', {HEAP}, {MIB})")
            assert answer == str((MSG["COMMITTED"], HEAP, MIB))

    def test_what_a_guest_made_the_keeper_retire_says_nothing_of_who_has_the_slot_next(self) -> None:
        """Its incarnation may be one that a host process comes to, later."""
        slots = Slots(10)
        assert slots.give(8) == range(1, 9)
        slots.lend_to_guest(1)
        slots.retire(1, 1 << 20)
        assert slots.seen(1, 1)
        slots.end(1, 0)
        assert slots.give(1) == range(1, 2)
        slots.end(1, slots.begin(1))
        assert slots.give(1) == range(9, 10)
        slots.retire(1, 2)
        assert slots.give(1) == range(1, 2)

    def test_the_keeper_has_an_endpoint_ended_that_broke_the_rules(self, server: Serving, qemu: RawQemu, keeper: Keeper) -> None:
        """EXPEL of the incarnation that it names, and of no other."""
        with HostProcess(server, layout.ROLE_WORKER) as process:
            keeper.say("EXPEL", 10, 2)
            keeper.ask("COMMIT", HEAP, MIB)
            assert process.do("answer = 'here'") == "here"
            keeper.say("EXPEL", 10, 1)
            qemu.wait_until(lambda: qemu.state(10) == (1, DEAD))

    def test_mail_that_nobody_read_is_not_read_by_the_next_keeper(self, server: Serving, qemu: RawQemu, keeper: Keeper) -> None:
        """A slot is given with its uplink read to the end."""
        with HostProcess(server, layout.ROLE_OBSERVER) as first:
            uplink = slot_word(10, "uplink")
            first.do("member = Member(place, ROLE_OBSERVER, 'o')")
            first.do(f"place.region.store({uplink}, 5)")
            first.kill()
            qemu.wait_until(lambda: qemu.state(10) == (1, DEAD))
        with HostProcess(server, layout.ROLE_OBSERVER) as second:
            assert second.slot == 10
            assert keeper.region.load(uplink + layout.LINE) == 5


class TestEnd:
    """The server stores its keeper's end before its own: nobody else could (D2)."""

    @pytest.mark.parametrize("by_lifeline", [False, True], ids=["SIGTERM", "lifeline"])
    @pytest.mark.parametrize(
        ("at_sigterm", "state"),
        [("signal.SIG_DFL", DEAD), ("signal.SIG_IGN", DEAD), ("lambda *_: (member.leave(), os._exit(0))", LEFT)],
        ids=["dies", "stays", "leaves"],
    )
    def test_it_ends_the_keeper_and_says_so(self, server: Serving, qemu: RawQemu, by_lifeline: bool, at_sigterm: str, state: int) -> None:
        """With a ring: who waits for the keeper hears of it."""
        with keeper_process(server) as process:
            process.do(f"import signal; signal.signal(signal.SIGTERM, {at_sigterm})")
            if by_lifeline:
                server.cut_lifeline()
            else:
                server.process.terminate()
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, state) and qemu.state(0) == (1, LEFT))
            assert server.process.wait(PATIENCE_S) == 0
            assert process.wait() == {"signal.SIG_DFL": -signal.SIGTERM, "signal.SIG_IGN": -signal.SIGKILL}.get(at_sigterm, 0)

    def test_it_does_not_end_other_members(self, server: Serving) -> None:
        """They see its end, and the keeper's, and go by themselves."""
        with HostProcess(server, layout.ROLE_CLIENT) as process:
            process.do("member = Member(place, ROLE_CLIENT, 'c')")
            assert server.end() == 0
            assert process.do("answer = 'here'") == "here"


@contextmanager
def keeper_process(server: Serving) -> Iterator[HostProcess]:
    """A keeper that may be ended; `keeper` is what it is there."""
    with HostProcess(server, layout.ROLE_KEEPER) as process:
        process.do(f"import sys; sys.path.append({CHECKOUT!r})")  # last: what is tested is what is installed
        process.do("from tests.test_server_keeper import Keeper")
        process.do("keeper = Keeper(place); member = keeper.member")
        yield process


def whole_turns(vm: RawQemu) -> None:
    """Returns after two beats of the server: what had come before is done, and told."""
    beat = vm.region.load(slot_word(0, "heartbeat"))
    end = time.monotonic() + PATIENCE_S
    while vm.region.load(slot_word(0, "heartbeat")) < beat + 2:
        assert time.monotonic() < end, "the server stands still"
        os.eventfd_write(vm.doors[0][0], 1)
        os.sched_yield()


def test_changes_are_counted_for_who_looks_at_the_table(server: Serving, qemu: RawQemu) -> None:
    """`members` moves with every change, and with nothing else, however often the server is rung."""
    whole_turns(qemu)
    before = qemu.region.load(HEADER["members"])
    whole_turns(qemu)
    assert qemu.region.load(HEADER["members"]) == before
    with RawQemu(server.socket):
        qemu.wait_until(lambda: qemu.region.load(HEADER["members"]) == before + 1)
    qemu.wait_until(lambda: qemu.region.load(HEADER["members"]) == before + 2)
