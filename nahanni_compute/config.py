"""Settings: one frozen dataclass, each field overridden by the environment variable NAHANNI_<FIELD>. There is no settings file.

Names carry units, last. Fields named `*_bytes` take sizes like "4GiB".
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

from nahanni_compute.errors import UsageError

PREFIX: Final = "NAHANNI_"
REGION_BYTES_MIN: Final = 64 << 20  # as in region/layout.py
REGION_BYTES_MAX: Final = 1 << 40  # offsets in item and status words have 40 bits (B2)


@dataclass(frozen=True)
class Settings:
    """What may be tuned, with its default."""

    # Where things are
    key_file: str = ""  # looked at before the usual places (region/keys.py)
    run_dir: str = "/run/nahanni"  # the key of a guest, and who holds which slot of its VM
    log_level: str = "WARNING"  # of the processes that a cluster starts

    # Endpoints
    arena_bytes: int = 4 << 20  # asked for at a time; more only for a larger block

    # Server: limits (each refusal is logged)
    vectors: int = 2  # doorbell vectors a peer; each QEMU holds peers x vectors descriptors
    greeting_s: float = 5.0  # a host process must have greeted by then
    greetings_max: int = 64  # connections that have not greeted yet; more wait in the kernel's queue
    stall_s: float = 5.0  # a client that reads nothing for so long is sent nothing more
    backlog_messages: int = 65536  # messages that may wait for one client
    spare_descriptors: int = 32  # of RLIMIT_NOFILE, kept free by refusing newcomers
    commit_max_bytes: int = 0  # memory that the keeper may have committed; 0: the whole heap
    commit_step_bytes: int = 64 << 20  # committed in one turn of the server's loop, so that nobody else waits long
    host_free_bytes: int = 64 << 20  # left free on the host: commitment beyond is refused, rather than left to the OOM killer

    # Guests
    kill_s: float = 5.0  # a killed process must be gone by then, or its slot stays taken


def settings() -> Settings:
    """The settings as the environment has them now. Raises UsageError for a value that cannot be read."""
    return Settings(**{f.name: _read(PREFIX + f.name.upper(), f.name, f.default) for f in fields(Settings)})


def _read(variable: str, name: str, default: Any) -> Any:
    text = os.environ.get(variable)
    if text is None:
        return default
    if name.endswith("_bytes"):
        return 0 if text.strip() == "0" else parse_size(text, variable)
    if name == "log_level":
        return _level(variable, text)
    if isinstance(default, str):
        return text
    try:
        value = type(default)(text)
    except ValueError:
        value = -1
    if not 0 <= value < float("inf"):
        wanted = "a whole number" if isinstance(default, int) else "a number"
        raise UsageError(f"expected {wanted}, 0 or more, in {variable}, saw {text!r}: correct or unset it")
    return value


def _level(variable: str, text: str) -> str:
    level = text.strip().upper()
    if level not in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"):
        raise UsageError(f"expected DEBUG, INFO, WARNING, ERROR or CRITICAL in {variable}, saw {text!r}: correct or unset it")
    return level


_UNITS: Final = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS_BINARY: Final = {prefix + end: 1 << shift for prefix, shift in (("K", 10), ("M", 20), ("G", 30), ("T", 40)) for end in ("", "IB")}


def parse_size(size: int | str, what: str = "a size") -> int:
    """Bytes of an int, or of "4GiB", "512M" (binary), "1.5GB" (decimal). Raises UsageError naming `what`."""
    if isinstance(size, int) and not isinstance(size, bool):
        nbytes: float = size
    else:
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", size) if isinstance(size, str) else None
        unit = {**_UNITS, **_UNITS_BINARY}.get(match[2].upper()) if match else None
        if not match or unit is None:
            raise UsageError(f"expected {what} as a number of bytes or like '512MiB' or '4GiB', saw {size!r}")
        nbytes = int(match[1]) * unit if match[1].isdigit() else float(match[1]) * unit
    if nbytes <= 0 or nbytes != int(nbytes):
        raise UsageError(f"expected {what} of a whole number of bytes above 0, saw {size!r}")
    return int(nbytes)


def format_size(nbytes: int) -> str:
    """For people: "4GiB", "23.1GiB", "77 bytes"; exact for powers of two."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        step = _UNITS_BINARY[unit.upper()]
        if nbytes >= step:
            return f"{nbytes // step}{unit}" if nbytes % step == 0 else f"{nbytes / step:.1f}{unit}"
    return f"{nbytes} bytes"


def default_region_size() -> int:
    """Half of what the host has free, rounded down to a power of two. Only reserved: memory is taken arena by arena."""
    half = max(host_free_bytes() // 2, 1)
    return min(max(1 << (half.bit_length() - 1), REGION_BYTES_MIN), REGION_BYTES_MAX)


def host_free_bytes() -> int:
    """Memory that this process may still take: of the host, and of every control group that it is in."""
    return min([_meminfo_available(), *_group_rooms()])


def _meminfo_available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) << 10
    raise OSError("expected MemAvailable in /proc/meminfo, saw none: Linux 3.14 or newer is needed")


def _group_rooms(groups: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Room below the limit of our control group and of those around it (version 2 only; elsewhere the host's word counts)."""
    entry = next((line for line in own.read_text().splitlines() if line.startswith("0::/")), None)
    if entry is None:
        return []
    group = groups / entry[len("0::/") :]
    rooms = []
    for directory in (group, *group.parents):
        if not directory.is_relative_to(groups):
            break
        try:
            limit = (directory / "memory.max").read_text().strip()
            current = int((directory / "memory.current").read_text())
            statistics = dict(line.split() for line in (directory / "memory.stat").read_text().splitlines())
        except OSError:
            continue  # the root group has no limit, and a container may hide its parents
        if limit != "max":
            rooms.append(max(int(limit) - current + int(statistics.get("inactive_file", 0)), 0))
    return rooms
