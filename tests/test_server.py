"""The server, as its clients see it: QEMU's protocol, host processes, deaths, refusals, and what it leaves."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path

import pytest

from nahanni_compute import processes
from nahanni_compute.errors import NoDevice, RegionFull, VersionMismatch
from nahanni_compute.region import greeting, layout
from nahanni_compute.region.greeting import host_socket
from nahanni_compute.region.layout import HEADER, SLOTS_PER_VM, peer_word, slot_word
from nahanni_compute.substrate import Attachment, open_substrate

from .living import wait_until
from .serving import PATIENCE_S, VECTORS, HostProcess, RawQemu, Serving, environment

DEAD, LEFT, JOINED, VM = layout.STATE_DEAD, layout.STATE_LEFT, layout.STATE_JOINED, layout.STATE_VM


@pytest.fixture
def server() -> Iterator[Serving]:
    """A server of the test's own."""
    with Serving() as serving:
        yield serving


@pytest.fixture
def qemu(server: Serving) -> Iterator[RawQemu]:
    """The first VM on it: peer 1, slots 1 to 8."""
    with RawQemu(server.socket) as vm:
        yield vm


def greet(server: Serving, data: bytes) -> socket.socket:
    """A raw connection of a host process that has said this."""
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE_S)
    sock.connect(str(host_socket(server.socket)))
    sock.sendall(data)
    return sock


def is_state(vm: RawQemu, slot: int, expected: tuple[int, int]) -> bool:
    return vm.state(slot) == expected


def refusal(sock: socket.socket) -> tuple[int, str]:
    """The code and the reason that the server answers."""
    answer, descriptors = greeting.receive_with(sock, greeting.ANSWER.size)
    assert descriptors == []
    text, _ = greeting.receive_with(sock, greeting.text_bytes(answer))
    with suppress(ConnectionResetError):  # not all that we said was read
        assert sock.recv(1) == b""
    return greeting.ANSWER.unpack(answer)[1], text.decode()


class TestQemu:
    """The protocol of QEMU's ivshmem device, version 0."""

    def test_the_handshake_has_exactly_these_messages_in_this_order(self, server: Serving) -> None:
        """Version, id, region, the server's own doorbells as peer 0, and its own vectors last."""
        with RawQemu(server.socket) as first:
            assert first.messages == [(0, False), (1, False), (-1, True), *[(0, True)] * VECTORS, *[(1, True)] * VECTORS]
            assert first.more() == []

    def test_a_newcomer_hears_of_all_others_and_they_of_it(self, server: Serving, qemu: RawQemu) -> None:
        """Each vector is a message; the end of a VM is its id without a descriptor."""
        with RawQemu(server.socket) as second:
            expected = [(0, True)] * VECTORS + [(1, True)] * VECTORS + [(2, True)] * VECTORS
            assert second.messages[3:] == expected
            assert qemu.more() == [(2, True)] * VECTORS
        qemu.wait_until(lambda: qemu.region.load(peer_word(2, "state")) == layout.PEER_GONE)
        assert qemu.more() == [(2, False)]

    def test_doorbells_reach_the_peer_they_are_of(self, server: Serving, qemu: RawQemu) -> None:
        """Vector by vector."""
        with RawQemu(server.socket) as second:
            for vector in range(VECTORS):
                os.eventfd_read(qemu.doors[1][vector])  # it was rung when the second one came
                os.eventfd_write(second.doors[1][vector], 5)
                assert os.eventfd_read(qemu.doors[1][vector]) == 5

    def test_the_id_of_a_vm_is_never_given_again(self, server: Serving) -> None:
        """QEMU would free what it knows of the peer twice."""
        ids = []
        for _ in range(4):
            with RawQemu(server.socket) as vm:
                ids.append(vm.id)
        assert ids == [1, 2, 3, 4]

    def test_a_vm_has_eight_slots_that_are_dead_when_its_socket_ends(self, server: Serving, qemu: RawQemu) -> None:
        """Incarnation 0: its endpoints count their own."""
        assert [qemu.state(slot) for slot in range(1, 9)] == [(0, VM)] * SLOTS_PER_VM
        with RawQemu(server.socket) as second:
            assert qemu.region.load(peer_word(2, "slots")) == 9 << 32 | SLOTS_PER_VM
            assert qemu.region.load(peer_word(2, "state")) == layout.PEER_VM
            assert second.region.load(HEADER["slots_used"]) == 17
        qemu.wait_until(lambda: [qemu.state(slot) for slot in range(9, 17)] == [(0, DEAD)] * SLOTS_PER_VM)

    def test_a_vm_that_dies_in_its_handshake_harms_nobody(self, server: Serving, qemu: RawQemu) -> None:
        """After any number of messages."""
        for taken in range(5):
            with RawQemu(server.socket, handshake=False) as dying:
                for _ in range(taken):
                    dying.take()
        qemu.wait_until(lambda: all(qemu.region.load(peer_word(i, "state")) == layout.PEER_GONE for i in range(2, 7)))
        with RawQemu(server.socket) as next_one:
            assert next_one.id == 7

    def test_a_vm_that_reads_nothing_stalls_nobody_and_is_not_called_dead(self) -> None:
        """It may be stopped: its memory is safe until its socket ends. It is told nothing more."""
        with Serving(stall_s=0.2) as server, RawQemu(server.socket) as watcher, RawQemu(server.socket) as stalled:
            while "reads nothing" not in server.logged():
                with RawQemu(server.socket):
                    watcher.more()
            assert watcher.state(9) == (0, VM)
            stalled.close()
            watcher.wait_until(lambda: watcher.state(9) == (0, DEAD))

    def test_a_vm_is_refused_by_a_version_it_does_not_know(self) -> None:
        """Anything else, the end of the socket too, makes QEMU spin for ever."""
        with Serving(descriptors=64) as server, ExitStack() as stack:
            while True:
                vm = stack.enter_context(RawQemu(server.socket, handshake=False))
                version, _ = vm.take()
                if version:
                    break
            assert version == -2
            with pytest.raises(EOFError):
                vm.take()
            assert "no descriptors left" in server.logged()


class TestRegion:
    """The memory itself."""

    def test_it_is_sealed(self, qemu: RawQemu) -> None:
        """Or any peer could shorten it and end all others with SIGBUS."""
        for nbytes in (0, 1 << 30):
            with pytest.raises(PermissionError):
                os.ftruncate(qemu.memory, nbytes)
        seals = fcntl.fcntl(qemu.memory, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW

    def test_it_is_sparse(self, qemu: RawQemu) -> None:
        """Only tables and given slots have memory."""
        found = os.fstat(qemu.memory)
        assert found.st_size == 64 << 20
        assert found.st_blocks * 512 < 5 << 20

    def test_its_header_says_what_it_is(self, qemu: RawQemu) -> None:
        """Everything that a reader checks before it believes the rest."""
        load = qemu.region.load
        assert load(HEADER["magic"]) == layout.MAGIC
        assert load(HEADER["format"]) == layout.FORMAT
        assert load(HEADER["size"]) == 64 << 20
        assert load(HEADER["arena_unit"]) == layout.arena_unit(64 << 20)
        assert load(HEADER["arena_units"]) == layout.arena_units(64 << 20)
        assert load(HEADER["keeper"]) == 0
        assert qemu.state(0) == (1, JOINED)

    def test_a_region_of_another_format_is_refused_by_name(self, server: Serving, qemu: RawQemu) -> None:
        """Both versions are in the message."""
        qemu.region.store(HEADER["format"], layout.FORMAT + 1)
        with pytest.raises(VersionMismatch, match=f"format {layout.FORMAT} .* saw {layout.FORMAT + 1}"):
            open_substrate(server.socket).attach(layout.ROLE_CLIENT)

    def test_without_its_magic_it_is_no_region(self, server: Serving, qemu: RawQemu) -> None:
        """Such as another ivshmem server's."""
        qemu.region.store(HEADER["magic"], 0)
        with pytest.raises(VersionMismatch, match="nahanni server"):
            open_substrate(server.socket).attach(layout.ROLE_CLIENT)


class TestGoesOn:
    """VMs that were started on a server cannot be given to another: it must not end of anything."""

    @pytest.mark.parametrize("word", [slot_word(0, "heartbeat"), slot_word(0, "seq"), HEADER["members"]])
    def test_after_anything_is_stored_in_its_own_words(self, server: Serving, qemu: RawQemu, word: int) -> None:
        """It counts on from what it knows itself."""
        qemu.region.store(word, (1 << 64) - 1)
        for _ in range(3):
            with RawQemu(server.socket) as vm:
                assert vm.id > 1
                wait_until(lambda: qemu.region.load(word) < 1 << 32)

    def test_after_a_failure_in_its_turn(self, tmp_path: Path) -> None:
        """It is logged, and everybody else is served."""
        script = """
import sys
from nahanni_compute.server import __main__
from nahanni_compute.server.keeper import Keeper
turn, failures = Keeper.turn, iter(range(3))
def failing(self):
    if next(failures, None) is not None:
        raise ValueError("a bad word")
    return turn(self)
Keeper.turn = failing
sys.exit(__main__.main())
"""
        command = [sys.executable, "-P", "-c", script, *_command(tmp_path / "region.sock")[4:]]
        variables = environment({"vectors": VECTORS})
        with (
            open(tmp_path / "log", "w+") as log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=variables) as process,
        ):
            assert processes.read_line(process.stdout).startswith("listening on")
            for i in range(1, 5):
                with RawQemu(tmp_path / "region.sock") as vm:
                    assert vm.id == i
            process.terminate()
            assert process.wait(PATIENCE_S) == 0
            log.seek(0)
            assert log.read().count("ValueError: a bad word") == 3


class TestHosts:
    """Host processes: greeting, leaving, dying."""

    def test_a_process_gets_a_slot_and_everyone_is_rung(self, server: Serving, qemu: RawQemu) -> None:
        """And every VM is told its doorbells."""
        members = qemu.region.load(HEADER["members"])
        with HostProcess(server, layout.ROLE_CLIENT) as process:
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, JOINED))
            assert (process.peer, process.slot, process.incarnation) == (2, 9, 1)
            assert qemu.region.load(peer_word(2, "state")) == layout.PEER_HOST
            assert qemu.more() == [(2, True)] * VECTORS
            qemu.wait_until(lambda: qemu.region.load(HEADER["members"]) > members)

    def test_its_id_is_parked_and_goes_to_the_next_process_with_its_doorbells(self, server: Serving, qemu: RawQemu) -> None:
        """VMs hear nothing of either: what they knew is still right."""
        with HostProcess(server, layout.ROLE_CLIENT) as first:
            qemu.wait_until(lambda: qemu.state(9) == (1, JOINED))
            assert first.leave() == 0
        qemu.wait_until(lambda: qemu.state(9) == (1, LEFT))
        assert qemu.region.load(peer_word(2, "state")) == layout.PEER_GONE
        assert qemu.more() == [(2, True)] * VECTORS
        with RawQemu(server.socket) as later, HostProcess(server, layout.ROLE_CLIENT) as second:
            assert second.peer == 2
            assert qemu.more() == [(3, True)] * VECTORS
            for vm in (qemu, later):
                second.do("bell = place._received[1]; os.eventfd_write(bell, 1); os.eventfd_read(bell)")
                os.eventfd_write(vm.doors[2][0], 1)
                assert second.do("import select; answer = bool(select.select([bell], [], [], 10)[0])") == "True"

    def test_a_slot_given_again_has_a_new_incarnation(self, server: Serving, qemu: RawQemu) -> None:
        """Without a keeper it is free at once."""
        for expected in [(1, DEAD), (2, DEAD), (3, DEAD)]:
            with HostProcess(server, layout.ROLE_CLIENT) as process:
                assert (process.slot, process.incarnation) == (9, expected[0])
                process.kill()
                qemu.wait_until(partial(is_state, qemu, 9, expected))

    def test_a_process_that_is_killed_is_dead_and_everyone_is_rung(self, server: Serving, qemu: RawQemu) -> None:
        """As a fact, by its pidfd."""
        with HostProcess(server, layout.ROLE_WORKER) as process:
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, JOINED))
            process.kill()
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, DEAD))

    def test_a_process_whose_socket_lives_on_in_a_fork_is_dead_all_the_same(self, server: Serving, qemu: RawQemu) -> None:
        """The pidfd is of the process and not of the socket."""
        with HostProcess(server, layout.ROLE_WORKER) as process:
            process.do("kept = os.dup(place._socket.fd)")
            process.do("child = os.fork() or (os.read(0, 1), os._exit(0))")
            process.kill()
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, DEAD))

    def test_the_end_of_its_socket_alone_proves_nothing_so_it_is_killed_first(self, server: Serving, qemu: RawQemu) -> None:
        """A stray closerange, say."""
        with HostProcess(server, layout.ROLE_WORKER) as process:
            process.begin("os.close(place._socket.fd); os.read(0, 1)")
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, DEAD))
            assert process.wait() == -signal.SIGKILL

    def test_a_process_that_leaves_lives_on(self, server: Serving, qemu: RawQemu) -> None:
        """LEAVE, then the end of the socket."""
        with HostProcess(server, layout.ROLE_CLIENT) as process:
            process.do("place.close()")
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, LEFT))
            assert process.do("answer = 'here'") == "here"

    def test_garbage_after_the_greeting_costs_the_process_its_membership(self, server: Serving, qemu: RawQemu) -> None:
        """It is ended, never the server."""
        with HostProcess(server, layout.ROLE_CLIENT) as process:
            process.begin("os.write(place._socket.fd, b'what?'); os.read(0, 1)")
            qemu.wait_until(lambda: qemu.state(process.slot) == (1, DEAD))
            assert process.wait() == -signal.SIGKILL

    def test_processes_and_vms_know_each_others_doorbells(self, server: Serving) -> None:
        """Whoever came first."""
        with HostProcess(server, layout.ROLE_CLIENT) as process, RawQemu(server.socket) as vm:
            slot = vm.region.load(peer_word(vm.id, "slots")) >> 32
            vm.region.store(layout.slot_word(slot, "bell"), vm.id << 16 | 1)
            vm.wait_until(lambda: vm.region.load(HEADER["members"]) > 1)
            vm.drain(1)
            process.do("place.endpoint.start_pump()")
            while not vm.is_rung(1):
                process.do(f"place.endpoint.ring({slot})")
            process.do("bell = place._received[1]; os.eventfd_write(bell, 1); os.eventfd_read(bell)")
            os.eventfd_write(vm.doors[process.peer][0], 1)
            assert process.do("import select; answer = bool(select.select([bell], [], [], 10)[0])") == "True"


class TestRefusals:
    """Every no has a reason."""

    @pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\nHost: me\r\n\r\n", b"?", bytes(greeting.GREETING.size)])
    def test_what_is_no_greeting_is_told_so(self, server: Serving, data: bytes) -> None:
        """At its first wrong byte."""
        with greet(server, data) as sock:
            code, text = refusal(sock)
        assert code == greeting.REFUSED
        assert "expected the greeting of a Nahanni process" in text

    def test_another_format_is_told_both_versions(self, server: Serving) -> None:
        """VersionMismatch at the other end."""
        with greet(server, greeting.GREETING.pack(greeting.GREETING_MAGIC, layout.FORMAT + 1, layout.ROLE_CLIENT, 0)) as sock:
            code, text = refusal(sock)
        assert code == greeting.WRONG_FORMAT
        assert f"format {layout.FORMAT}," in text
        assert f"saw {layout.FORMAT + 1}" in text

    def test_nobody_greets_as_a_server(self, server: Serving) -> None:
        """Roles are those of host processes."""
        with greet(server, greeting.pack_greeting(layout.ROLE_SERVER)) as sock:
            assert "expected the role of a host process" in refusal(sock)[1]

    def test_half_a_greeting_is_given_some_time(self) -> None:
        """And then a reason."""
        with Serving(greeting_s=0.2) as server, greet(server, greeting.pack_greeting(layout.ROLE_CLIENT)[:11]) as sock:
            assert "whole greeting within 0.2 s" in refusal(sock)[1]

    def test_a_storm_of_silent_connections_stops_nobody(self) -> None:
        """They wait for their time to run out, VMs and greeting processes do not, though the kernel's queue is full."""
        with Serving(greeting_s=0.2) as server, ExitStack() as stack:
            with suppress(BlockingIOError):
                while True:
                    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                    sock.setblocking(False)
                    sock.connect(str(host_socket(server.socket)))
            with RawQemu(server.socket) as vm:
                assert vm.id == 1
            with HostProcess(server, layout.ROLE_CLIENT) as process:
                assert process.slot > 0

    def test_a_process_is_refused_with_a_reason_before_descriptors_run_out(self) -> None:
        """The others go on; when one leaves there is room again."""
        with Serving(descriptors=72) as server, RawQemu(server.socket) as vm, ExitStack() as stack:
            attached: list[Attachment] = []

            def attach_for_ever() -> None:
                while True:
                    attached.append(stack.enter_context(closing(open_substrate(server.socket).attach(layout.ROLE_CLIENT))))

            with pytest.raises(RegionFull, match="no descriptors left: raise its limit"):
                attach_for_ever()
            assert attached
            attached[0].close()
            vm.wait_until(lambda: vm.state(9) == (1, LEFT))
            stack.enter_context(closing(open_substrate(server.socket).attach(layout.ROLE_CLIENT)))

    def test_a_full_host_is_told_so(self) -> None:
        """Rather than left to the OOM killer."""
        full = Serving(host_free_bytes="1000TiB")
        try:
            assert full.start().said == ""
            assert full.process.wait(PATIENCE_S) == 1
            assert "are kept (NAHANNI_HOST_FREE_BYTES)" in full.logged()
        finally:
            full.__exit__(None, None, None)


class TestFiles:
    """Sockets and key: who may use them, and when they go."""

    def names(self, server: Serving) -> set[str]:
        return {path.name for path in server.folder.iterdir()}

    def modes(self, server: Serving) -> set[int]:
        return {stat.S_IMODE(path.stat().st_mode) for path in (server.socket, host_socket(server.socket))}

    def test_they_are_the_owners_alone(self, server: Serving) -> None:
        """Who can connect can read every value, and who has the key can run code in all others."""
        assert self.names(server) == {"region.sock", "region-host.sock", "region.sock.key"}
        assert self.modes(server) == {0o600}
        assert stat.S_IMODE(server.key.stat().st_mode) == 0o600

    def test_a_group_may_connect_and_read_the_key(self) -> None:
        """With --group."""
        with Serving("--group", str(os.getgid())) as server:
            assert self.modes(server) == {0o660}
            assert stat.S_IMODE(server.key.stat().st_mode) == 0o640

    def test_nothing_is_left_after_sigterm(self, server: Serving) -> None:
        """An orderly end."""
        assert server.end() == 0
        assert self.names(server) == set()

    def test_guests_see_the_servers_orderly_end_in_the_region(self, server: Serving, qemu: RawQemu) -> None:
        """They have no socket that would tell them."""
        server.process.terminate()
        qemu.wait_until(lambda: qemu.state(0) == (1, LEFT))

    def test_nothing_is_left_after_the_end_of_the_lifeline(self, server: Serving) -> None:
        """However the parent died."""
        server.cut_lifeline()
        assert server.process.wait(PATIENCE_S) == 0
        assert self.names(server) == set()

    def test_nothing_is_left_when_the_parent_is_killed(self, tmp_path: Path) -> None:
        """Not even the directory, with --private-dir."""
        script = """
import os, subprocess, sys
from nahanni_compute import processes
server = processes.start("nahanni_compute.server", "--socket", sys.argv[1], "--size", "64MiB", "--private-dir",
                         lifeline=processes.Lifeline(), output=subprocess.PIPE)
print(server.pid, processes.read_line(server.stdout), flush=True)
sys.stdin.read()
"""
        private = tmp_path / "private"
        private.mkdir()
        command = [sys.executable, "-P", "-c", script, str(private / "region.sock")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment({})) as parent:
            assert parent.stdout is not None
            pid, said = parent.stdout.readline().split(maxsplit=1)
            assert said.startswith(b"listening")
            ended = os.pidfd_open(int(pid))
            parent.kill()
        with os.fdopen(ended, "rb") as pidfd:
            assert select.select([pidfd], [], [], PATIENCE_S)[0]
        assert not private.exists()

    def test_the_socket_of_a_living_server_is_refused(self, server: Serving) -> None:
        """And that one goes on."""
        again = subprocess.run(_command(server.socket), capture_output=True, text=True, env=environment({}), check=False)
        assert again.returncode == 1
        assert "saw a living server" in again.stderr
        assert again.stdout == ""
        with RawQemu(server.socket) as vm:
            assert vm.id == 1

    def test_what_a_killed_server_left_is_replaced(self, server: Serving) -> None:
        """With a new key."""
        key = server.key.read_bytes()
        server.process.kill()
        server.process.wait()
        assert self.names(server) == {"region.sock", "region-host.sock", "region.sock.key"}
        assert server.process.stdout is not None
        server.process.stdout.close()
        os.close(server._lifeline)
        server.start()
        assert server.said.startswith("listening")
        assert server.key.read_bytes() != key

    def test_a_socket_somebody_else_listens_on_is_refused(self, tmp_path: Path) -> None:
        """Whoever that is."""
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(tmp_path / "region.sock"))
            other.listen()
            ended = subprocess.run(_command(tmp_path / "region.sock"), capture_output=True, text=True, env=environment({}), check=False)
        assert "saw a living server listen there" in ended.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"region.sock"}

    def test_a_file_that_is_no_socket_is_left_alone(self, tmp_path: Path) -> None:
        """It may be somebody's data."""
        (tmp_path / "region.sock").write_text("data")
        ended = subprocess.run(_command(tmp_path / "region.sock"), capture_output=True, text=True, env=environment({}), check=False)
        assert "another kind of file" in ended.stderr
        assert (tmp_path / "region.sock").read_text() == "data"

    @pytest.mark.parametrize(
        ("size", "said"), [("3GiB", "nearest are 2GiB and 4GiB"), ("32MiB", "64MiB to 1TiB"), ("many", "like '512MiB'")]
    )
    def test_a_size_that_cannot_be_is_refused_before_anything(self, tmp_path: Path, size: str, said: str) -> None:
        """QEMU would abort, on the user's VM."""
        command = [*_command(tmp_path / "region.sock")[:-1], size]
        ended = subprocess.run(command, capture_output=True, text=True, env=environment({}), check=False)
        assert ended.returncode == 1
        assert said in ended.stderr
        assert list(tmp_path.iterdir()) == []

    def test_a_path_too_long_for_a_socket_is_refused_with_the_limit(self, tmp_path: Path) -> None:
        """The kernel's message names neither path nor limit."""
        ended = subprocess.run(_command(tmp_path / ("x" * 120)), capture_output=True, text=True, env=environment({}), check=False)
        assert "at most 102 bytes" in ended.stderr

    def test_there_is_no_server_where_none_listens(self, tmp_path: Path) -> None:
        """NoDevice says how to start one."""
        with pytest.raises(NoDevice, match="start `nahanni server`"):
            open_substrate(tmp_path / "region.sock").attach(layout.ROLE_CLIENT)


def _command(path: Path) -> list[str]:
    return [sys.executable, "-P", "-m", "nahanni_compute.server", "--socket", str(path), "--size", "64MiB"]
