"""The cluster's key: how it is made, where it is looked for, and what its absence says (decision 10)."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nahanni_compute.errors import AccessRefused, UsageError
from nahanni_compute.region.keys import find_key, key_path, socket_of, write_key


@pytest.fixture(autouse=True)
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run directory of the test's own, and no key named."""
    path = tmp_path / "run"
    path.mkdir()
    monkeypatch.setenv("NAHANNI_RUN_DIR", str(path))
    monkeypatch.delenv("NAHANNI_KEY_FILE", raising=False)
    return path


def test_a_new_key_is_16_bytes_that_only_its_owner_reads(tmp_path: Path) -> None:
    """Whatever the umask."""
    before = os.umask(0)
    try:
        write_key(tmp_path / "key")
    finally:
        os.umask(before)
    assert len((tmp_path / "key").read_bytes()) == 16
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_each_key_is_another(tmp_path: Path) -> None:
    """They are random."""
    for name in "ab":
        write_key(tmp_path / name)
    assert (tmp_path / "a").read_bytes() != (tmp_path / "b").read_bytes()


def test_a_key_is_never_written_over_nor_through_a_link(tmp_path: Path) -> None:
    """A link might lead to a file that others read."""
    write_key(tmp_path / "key")
    with pytest.raises(FileExistsError):
        write_key(tmp_path / "key")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        write_key(tmp_path / "link")
    assert not (tmp_path / "elsewhere").exists()


def test_the_places_are_looked_at_in_their_order(tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """key_file, NAHANNI_KEY_FILE, beside the socket, the run directory."""
    address = f"unix:{tmp_path}/region.sock"
    names = {"argument": tmp_path / "a", "variable": tmp_path / "v", "beside": tmp_path / "region.sock.key", "run": run_dir / "key"}
    for path in names.values():
        write_key(path)
    keys = {name: path.read_bytes() for name, path in names.items()}
    monkeypatch.setenv("NAHANNI_KEY_FILE", str(names["variable"]))
    assert find_key(address, names["argument"]) == keys["argument"]
    assert find_key(address) == keys["variable"]
    monkeypatch.delenv("NAHANNI_KEY_FILE")
    assert find_key(address) == keys["beside"]
    assert find_key(str(tmp_path / "region.sock")) == keys["beside"]
    names["beside"].unlink()
    assert find_key(address) == keys["run"]
    assert find_key("/dev/uio0") == keys["run"]


def test_a_key_that_is_missing_is_said_with_everywhere_it_was_looked_for(tmp_path: Path, run_dir: Path) -> None:
    """And what to do about it, on a host and in a guest."""
    with pytest.raises(AccessRefused) as host:
        find_key(f"unix:{tmp_path}/region.sock")
    for part in ("key_file", "NAHANNI_KEY_FILE", f"{tmp_path}/region.sock.key", f"{run_dir}/key", "nahanni server"):
        assert part in str(host.value)
    with pytest.raises(AccessRefused) as guest:
        find_key("/dev/uio0")
    for part in (f"{run_dir}/key", "-fw_cfg name=opt/nahanni/key", "qemu_fw_cfg"):
        assert part in str(guest.value)


@pytest.mark.parametrize("named_by", ["key_file", "NAHANNI_KEY_FILE"])
def test_a_file_that_was_named_is_the_only_place(tmp_path: Path, run_dir: Path, monkeypatch: pytest.MonkeyPatch, named_by: str) -> None:
    """Another key would be found, and be the wrong one."""
    write_key(run_dir / "key")
    missing = str(tmp_path / "missing")
    if named_by == "NAHANNI_KEY_FILE":
        monkeypatch.setenv("NAHANNI_KEY_FILE", missing)
    with pytest.raises(AccessRefused, match=f"{missing}, which {named_by} names"):
        find_key("/dev/uio0", missing if named_by == "key_file" else None)


def test_a_key_that_may_not_be_read_is_said_with_its_mode_and_us(tmp_path: Path) -> None:
    """Root reads everything: the test asks as nobody."""
    path = tmp_path / "region.sock.key"
    write_key(path)
    if os.geteuid() == 0:
        for folder in (tmp_path, *tmp_path.parents):
            if folder.name.startswith("pytest-"):
                folder.chmod(0o755)
        os.seteuid(65534)
    else:
        path.chmod(0)
    try:
        with pytest.raises(AccessRefused, match=r"saw permission denied \(.*\): run as its owner, or join its group"):
            find_key(f"unix:{tmp_path}/region.sock")
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_what_is_no_key_is_said(tmp_path: Path) -> None:
    """A copy as text, say."""
    (tmp_path / "key").write_text("3e" * 16)
    with pytest.raises(AccessRefused, match=r"expected a key of 16 bytes .* saw 32"):
        find_key("/dev/uio0", tmp_path / "key")
    with pytest.raises(AccessRefused, match="directory"):
        find_key("/dev/uio0", tmp_path)


def test_the_key_lies_beside_its_socket() -> None:
    """PATH.key."""
    assert key_path(Path("/a/region.sock")) == Path("/a/region.sock.key")


@pytest.mark.parametrize(
    ("address", "socket"),
    [
        ("unix:/run/nahanni/region.sock", "/run/nahanni/region.sock"),
        ("/run/nahanni/region.sock", "/run/nahanni/region.sock"),
        ("region.sock", "region.sock"),
        ("unix:odd:name", "odd:name"),
        ("/dev/uio0", None),
        ("vfio:0000:00:04.0", None),
        ("pci:0000:00:04.0", None),
    ],
)
def test_an_address_names_a_socket_or_a_device(address: str, socket: str | None) -> None:
    """A bare path is a socket's."""
    assert socket_of(address) == (None if socket is None else Path(socket))


@pytest.mark.parametrize("address", ["", "unix:", "tcp://127.0.0.1:80", "nahanni://x"])
def test_what_is_no_address_is_said(address: str) -> None:
    """With the forms that there are."""
    with pytest.raises(UsageError, match="expected the address of a region, 'unix:PATH'"):
        socket_of(address)
