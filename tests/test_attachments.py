"""Addresses, what a substrate says of what is not there, what an attachment gives up, and forks of a member (D3)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from nahanni_compute.errors import NoDevice, UsageError
from nahanni_compute.region import layout
from nahanni_compute.substrate import Attachment, open_substrate
from nahanni_compute.substrate.uio import find_device

from .serving import HostProcess, RawQemu, Serving


@pytest.fixture
def server() -> Iterator[Serving]:
    """A server of the test's own."""
    with Serving() as serving:
        yield serving


@pytest.fixture
def place(server: Serving) -> Iterator[Attachment]:
    """This process, attached."""
    with closing(open_substrate(server.socket).attach(layout.ROLE_CLIENT)) as attachment:
        yield attachment


@pytest.mark.parametrize("address", ["vfio:0000:00:04.0", "pci:0000:00:04.0", "/dev/mem", "tcp://x", ""])
def test_an_address_without_a_substrate_is_said_with_those_that_have_one(address: str) -> None:
    """Before anything is opened."""
    with pytest.raises(UsageError, match=r"'unix:PATH'.*/dev/uio"):
        open_substrate(address)


def test_a_substrate_names_itself_by_its_address() -> None:
    """For people."""
    assert open_substrate("unix:/a/b.sock").name == open_substrate(Path("/a/b.sock")).name == "unix:/a/b.sock"
    assert open_substrate("/dev/uio3").name == "/dev/uio3"


def test_a_server_that_does_not_come_is_waited_for_and_then_missed(tmp_path: Path) -> None:
    """Up to the time that was given."""
    with pytest.raises(NoDevice, match="start `nahanni server`"):
        open_substrate(tmp_path / "region.sock").attach(layout.ROLE_CLIENT, wait_s=0.1)


class TestUio:
    """What sysfs says of a device is checked before it is opened."""

    def device(self, sysfs: Path, number: int, name: str, region_bytes: int = 256 << 20) -> None:
        entry = sysfs / f"uio{number}"
        for i, nbytes in enumerate((4096, region_bytes)):
            (entry / f"maps/map{i}").mkdir(parents=True)
            (entry / f"maps/map{i}/size").write_text(f"{nbytes:#x}\n")
        (entry / "name").write_text(name + "\n")
        pci = sysfs / "pci" / name.partition(".vec")[0]
        (pci / "uio").mkdir(parents=True, exist_ok=True)
        (pci / "uio" / entry.name).symlink_to(entry)
        (entry / "device").symlink_to(pci)

    def test_the_vectors_of_a_device_are_found_in_order(self, tmp_path: Path) -> None:
        """Of the same PCI device only, whatever the numbers of their files."""
        self.device(tmp_path, 5, "ivshmem.0000:00:04.0.vec0")
        self.device(tmp_path, 4, "ivshmem.0000:00:04.0.vec1")
        self.device(tmp_path, 10, "ivshmem.0000:00:04.0.vec10")
        self.device(tmp_path, 6, "ivshmem.0000:00:05.0.vec0")
        found = find_device("/dev/uio4", tmp_path)
        assert found.vectors == ("/dev/uio5", "/dev/uio4", "/dev/uio10")
        assert (found.registers_bytes, found.region_bytes) == (4096, 256 << 20)

    def test_uio_pci_generic_is_refused_by_name(self, tmp_path: Path) -> None:
        """It would spin for ever."""
        self.device(tmp_path, 0, "uio_pci_generic")
        with pytest.raises(NoDevice, match=r"saw uio_pci_generic, .*load uio_ivshmem"):
            find_device("/dev/uio0", tmp_path)

    def test_another_driver_is_refused_by_name(self, tmp_path: Path) -> None:
        """Any uio device has that path."""
        self.device(tmp_path, 0, "fpga")
        with pytest.raises(NoDevice, match=r"saw 'fpga'"):
            find_device("/dev/uio0", tmp_path)

    def test_a_device_that_is_not_there_is_said_with_what_makes_one(self, tmp_path: Path) -> None:
        """QEMU's option and the module."""
        with pytest.raises(NoDevice, match=r"-device ivshmem-doorbell .* load the module uio_ivshmem"):
            find_device("/dev/uio0", tmp_path)

    def test_memory_of_an_impossible_size_is_no_region(self, tmp_path: Path) -> None:
        """Such as another device's."""
        self.device(tmp_path, 0, "ivshmem.0000:00:04.0.vec0", 4 << 20)
        with pytest.raises(NoDevice, match=r"/dev/uio0 is no region: .*saw 4MiB"):
            find_device("/dev/uio0", tmp_path)


def sockets() -> int:
    """How many this process has open."""
    links = [Path(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    return sum("socket:" in os.readlink(link) for link in links if os.path.lexists(link))


def in_fork(check: Callable[[], bool]) -> bool:
    """Whether this holds in a fork."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


class TestForks:
    """A fork is not a member, and harms nobody."""

    def test_it_reads_what_was_there_and_its_stores_reach_nobody(self, place: Attachment) -> None:
        """Private, copy-on-write."""

        def stores() -> bool:
            place.region.store(layout.HEAP, 1)
            return place.region.load(layout.HEAP) == 1

        assert in_fork(lambda: place.region.load(0) == layout.MAGIC)
        assert in_fork(stores)
        assert place.region.load(layout.HEAP) == 0

    def test_it_holds_no_socket_of_its_parent(self, place: Attachment) -> None:
        """The server would not see the parent's end."""
        before = sockets()
        assert in_fork(lambda: sockets() == before - 1)

    def test_closing_there_is_nothing(self, server: Serving, place: Attachment) -> None:
        """The parent goes on as a member."""

        def closes() -> bool:
            place.close()
            return True

        assert in_fork(closes)
        with RawQemu(server.socket) as vm:
            assert vm.state(place.endpoint.slot) == (1, layout.STATE_JOINED)


def test_an_attachment_gives_up_everything(server: Serving) -> None:
    """Twice is once. The fixture that runs around each test looks for mappings and descriptors."""
    with RawQemu(server.socket) as vm:
        place = open_substrate(server.socket).attach(layout.ROLE_CLIENT)
        slot = place.endpoint.slot
        place.leave()
        place.close()
        place.close()
        vm.wait_until(lambda: vm.state(slot) == (1, layout.STATE_LEFT))


def test_an_attachment_that_is_forgotten_does_not_cost_the_process_its_life(server: Serving) -> None:
    """Its socket stays open: the end of it would be taken for a death."""
    with HostProcess(server, layout.ROLE_CLIENT) as process, RawQemu(server.socket) as vm:
        process.do("place = None; import gc; gc.collect()")
        assert vm.state(process.slot) == (1, layout.STATE_JOINED)
        assert process.do("answer = 'here'") == "here"


def test_a_mapping_that_somebody_looks_into_keeps_us_a_member(server: Serving) -> None:
    """Silent, until they let go (D3)."""
    with RawQemu(server.socket) as vm:
        place = open_substrate(server.socket).attach(layout.ROLE_CLIENT)
        slot = place.endpoint.slot
        view = memoryview(place._span.mapping)
        place.close()
        with HostProcess(server, layout.ROLE_CLIENT) as process:
            assert process.slot != slot
            assert vm.state(slot) == (1, layout.STATE_JOINED)
        view.release()
        place.close()
        vm.wait_until(lambda: vm.state(slot) == (1, layout.STATE_LEFT))
