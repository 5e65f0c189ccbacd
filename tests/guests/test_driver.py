"""The kernel module in a real guest: devices, mappings, doorbells; and the key that came with the machine."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from nahanni_compute.config import parse_size, settings
from nahanni_compute.region import layout
from nahanni_compute.vm.guest import Guest

from . import raw_uio
from .conftest import Pair
from .qemu_peer import QemuPeer
from .raw_uio import ping
from .region_server import REGION_SIZE, RegionServer

pytestmark = pytest.mark.guest

RAW = Path(raw_uio.__file__).read_text()
DEVICE = "/sys/class/uio/uio0/device"

MAPPINGS = """
import json
from mmap import MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
device = RawUio()
both = PROT_READ | PROT_WRITE
read_only = os.open("/dev/uio0", os.O_RDONLY)
print(json.dumps({
    "the whole region": mmap_errno(device.fd, device.size, both, MAP_SHARED, PAGE),
    "the region's first page": mmap_errno(device.fd, PAGE, both, MAP_SHARED, PAGE),
    "the region, for reading": mmap_errno(read_only, device.size, PROT_READ, MAP_SHARED, PAGE),
    "the registers": mmap_errno(device.fd, PAGE, both, MAP_SHARED, 0),
    "nothing of the region": mmap_errno(device.fd, 0, both, MAP_SHARED, PAGE),
    "a page more than the region": mmap_errno(device.fd, device.size + PAGE, both, MAP_SHARED, PAGE),
    "terabytes of region": mmap_errno(device.fd, 1 << 46, both, MAP_SHARED, PAGE),
    "a page more than the registers": mmap_errno(device.fd, 2 * PAGE, both, MAP_SHARED, 0),
    "a third map": mmap_errno(device.fd, PAGE, both, MAP_SHARED, 2 * PAGE),
    "the last offset there is": mmap_errno(device.fd, PAGE, both, MAP_SHARED, (1 << 63) - PAGE),
    "a private copy of the region": mmap_errno(device.fd, device.size, both, MAP_PRIVATE, PAGE),
    "a private copy of the registers": mmap_errno(device.fd, PAGE, both, MAP_PRIVATE, 0),
    "the region, for writing, by who may read": mmap_errno(read_only, device.size, both, MAP_SHARED, PAGE),
}))
"""


@pytest.fixture(scope="module")
def mapped(guests: Pair) -> dict[str, int]:
    """What the kernel says to each mapping: 0, or an errno. One program asks for all of them."""
    answers: dict[str, int] = json.loads(guests[0].python(RAW + MAPPINGS))
    return answers


def position(guest: Guest) -> int:
    """The guest's peer id, as its device says."""
    return int(guest.python(RAW + "print(RawUio().position)"))


def test_the_driver_is_bound_and_makes_a_device_of_each_vector(guests: Pair) -> None:
    """Each guest has as many /dev/uioN as the server gives vectors, all of our driver, by name."""
    for guest in guests:
        assert guest.sh(f"basename $(readlink -f {DEVICE}/driver)") == "uio_ivshmem"
        address = guest.sh(f"basename $(readlink -f {DEVICE})")
        names = guest.sh("cat /sys/class/uio/uio*/name").split()
        assert names == [f"ivshmem.{address}.vec{n}" for n in range(settings().vectors)]


@pytest.mark.parametrize("what", ["the whole region", "the region's first page", "the region, for reading", "the registers"])
def test_what_the_device_has_can_be_mapped(mapped: dict[str, int], what: str) -> None:
    """Whole or in part, for reading alone as well."""
    assert mapped[what] == 0


@pytest.mark.parametrize(
    "what",
    [
        *("nothing of the region", "a page more than the region", "a page more than the registers", "a third map"),
        *("the last offset there is", "a private copy of the region", "a private copy of the registers"),
    ],
)
def test_a_mapping_beyond_the_device_is_refused(mapped: dict[str, int], what: str) -> None:
    """By the kernel, before a page of it is there."""
    assert errno.errorcode[mapped[what]] == "EINVAL"


def test_a_mapping_larger_than_the_device_cannot_overflow_its_check(mapped: dict[str, int]) -> None:
    """Refused at any length."""
    assert mapped["terabytes of region"] in (errno.EINVAL, errno.ENOMEM)


def test_who_may_only_read_the_device_cannot_map_it_for_writing(mapped: dict[str, int]) -> None:
    """File modes are all the permission there is, so they must hold."""
    assert errno.errorcode[mapped["the region, for writing, by who may read"]] == "EACCES"


def test_the_region_is_cached_and_the_registers_are_not(guests: Pair) -> None:
    """In the page tables of a process, though the firmware calls uncached where this region lies, below 4 GiB."""
    guest = guests[0]
    registers, region = (f"{int(a, 16):016x}" for a in guest.sh("cat /sys/class/uio/uio0/maps/map[01]/addr").split())
    guest.sh("mkfifo /tmp/mapped")
    spinning = guest.send_python(RAW + SPIN)
    guest.sh("read ready < /tmp/mapped")
    flags = page_flags(guest)
    while region not in flags:  # another process was running
        flags = page_flags(guest)
    guest.sh("touch /tmp/looked")
    guest.recv(spinning)
    guest.sh("rm /tmp/mapped /tmp/looked")
    assert "C" not in flags[region]  # cache disabled
    assert "C" in flags[registers]


SPIN = """
device = RawUio()
Path("/tmp/mapped").write_text("yes\\n")
while not os.path.exists("/tmp/looked"):
    for offset in range(0, 1 << 20, PAGE):
        device.region[offset]
"""


def page_flags(guest: Guest) -> dict[str, str]:
    """Physical address -> flags, of each page of the process that runs at this moment. QEMU prints `virtual: physical flags`."""
    guest.qmp("stop")
    lines = guest.qmp("human-monitor-command", **{"command-line": "info tlb"}).splitlines()
    guest.qmp("cont")
    return {physical: flags for _, physical, flags in map(str.split, lines)}


def test_guests_and_host_see_one_region(guests: Pair) -> None:
    """The header that the server wrote is what each guest reads, to the size."""
    code = "device = RawUio(); words = memoryview(device.region).cast('Q'); print(words[0], words[2], device.size)"
    for guest in guests:
        magic, size, mapped_bytes = map(int, guest.python(RAW + code).split())
        assert magic == layout.MAGIC
        assert size == mapped_bytes == parse_size(REGION_SIZE)


PONG = "import sys; pong(RawUio(), *map(int, sys.argv[1:]))"
PING = "import sys; ping(RawUio(), *map(int, sys.argv[1:]))"
ROUNDS = 10


@pytest.fixture
def host(guests: Pair, region_server: RegionServer) -> Iterator[QemuPeer]:
    """The host, by QEMU's protocol."""
    with QemuPeer(region_server.socket, settings().vectors) as peer:
        yield peer


def test_the_host_and_a_guest_wake_each_other(guests: Pair, host: QemuPeer) -> None:
    """The guest's register rings the host's eventfd, and the host's eventfd ends the guest's read."""
    for word, guest in enumerate(guests):
        at_guest = position(guest)
        answering = guest.send_python(RAW + PONG, host.id, word, 2 + word, ROUNDS)
        ping(host, at_guest, 2 + word, word, ROUNDS)
        guest.recv(answering)


def test_two_guests_wake_each_other(guests: Pair, host: QemuPeer) -> None:
    """Without the host, whose peer only makes the words 0 afterwards."""
    one, two = guests
    at_one, at_two = position(one), position(two)
    answering = two.send_python(RAW + PONG, at_one, 1, 0, ROUNDS)
    one.python(RAW + PING, at_two, 0, 1, ROUNDS)
    two.recv(answering)


def test_every_vector_wakes_its_own_device(guests: Pair) -> None:
    """A guest rings itself on each vector, and that vector's device hears it."""
    code = f"""
devices = [RawUio(n) for n in range({settings().vectors})]
for n, device in enumerate(devices):
    device.ring(device.position, n)
    assert device.wait(ANSWER_S), n
"""
    guests[0].python(RAW + code)


def test_the_driver_lets_go_of_the_device_and_takes_it_again(guests: Pair) -> None:
    """Unbound, nothing of it is left; bound again, doorbells work."""
    guest = guests[1]
    address = guest.sh(f"basename $(readlink -f {DEVICE})")
    guest.sh(f"echo {address} > /sys/bus/pci/drivers/uio_ivshmem/unbind")
    assert guest.sh("ls /sys/class/uio") == ""
    assert "uio_ivshmem" not in guest.sh("cat /proc/iomem")
    guest.sh(f"echo {address} > /sys/bus/pci/drivers/uio_ivshmem/bind")
    guest.python(RAW + "device = RawUio(); device.ring(device.position); assert device.wait(ANSWER_S)")


def test_the_key_is_the_hosts_and_for_root_and_group_alone(guests: Pair, region_server: RegionServer) -> None:
    """From the first boot on, with no step by hand."""
    key = region_server.key_file.read_bytes()
    for guest in guests:
        assert bytes.fromhex(guest.sh("od -An -tx1 /run/nahanni/key")) == key
        assert guest.sh("stat -c '%a %U' /run/nahanni/key") == "440 root"
