"""What every guest of the tests starts from: a Debian kernel, its initramfs with our driver. Prepared once, kept in `.cache/guest`.

Nothing is installed: the kernel's packages are downloaded by apt and unpacked in a temporary folder. What is kept is named
by the kernel's release and a hash of all that goes into it, so that a change of a source makes a new one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nahanni_compute.vm import cpio, driver, initramfs, kernel
from nahanni_compute.vm.machine import QEMU, Boot

# NAHANNI_GUEST_KERNEL=6.12: the same tests on another of Debian's kernels.
SERIES = os.environ.get("NAHANNI_GUEST_KERNEL", "6.1")
CACHE = Path(__file__).parents[2] / ".cache/guest"
COMMANDS = (QEMU, "busybox", "make", "gcc", "zstd", "apt-get", "dpkg")
SOURCES = (
    Path(__file__),
    *(Path(str(module.__file__)) for module in (cpio, driver, initramfs, kernel)),
    *(initramfs.INIT, initramfs.AGENT, *driver.SOURCES),
)
WORK_BYTES = 1 << 30  # the packages unpacked, and room


def missing_commands() -> list[str]:
    """What the guests need and this machine lacks; tools/guest-packages installs it."""
    return [c for c in COMMANDS if not shutil.which(c)]


def prepare() -> Boot:
    """Kernel and initramfs, from the cache or anew (ten seconds, most of them a download)."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        digest = _digest()
        ready = sorted(CACHE.glob(f"{SERIES}.*-{digest}"))
        return _boot(ready[-1] if ready else _make(digest))


def _make(digest: str) -> Path:
    release = _newest_release()
    packages = _packages(release)
    target = CACHE / f"{release}-{digest}"
    with _work() as work:
        for package in packages:
            _run("dpkg", "-x", str(package), str(work))
        _point_headers_here(work, release)
        module = driver.build(_headers(work, release), work)
        made = work / "made"
        made.mkdir()
        modules = work / "lib/modules" / release
        boot = _boot(made)
        boot.initramfs.write_bytes(initramfs.build_initramfs(modules, module, _busybox()))
        boot.kernel.write_bytes(kernel.extract_vmlinux((work / f"boot/vmlinuz-{release}").read_bytes()))
        for old in CACHE.glob(f"{SERIES}.*"):
            shutil.rmtree(old)
        # Renamed last: a folder of this name is whole. The work folder may be on another file system.
        shutil.copytree(made, CACHE / "half", dirs_exist_ok=True)
        (CACHE / "half").rename(target)
    return target


def _boot(folder: Path) -> Boot:
    return Boot(folder / "vmlinux", folder / "initramfs")


def _newest_release() -> str:
    """The newest release that apt knows (Debian removes old ones), else one that was downloaded before."""
    names = [*_run("apt-cache", "pkgnames", f"linux-image-{SERIES}.").split(), *(p.name for p in CACHE.glob("packages/*/linux-image-*"))]
    pattern = re.compile(rf"linux-image-({re.escape(SERIES)}\.\d+(?:-\d+|\+deb\d+)-amd64)(?:_.*)?")
    releases = {m[1] for m in map(pattern.fullmatch, names) if m}
    if not releases:
        raise RuntimeError(f"expected apt to know a linux-image-{SERIES}.*-amd64, it knows none: apt-get update")
    return max(releases, key=lambda release: [int(n) for n in re.findall(r"\d+", release)])


def _packages(release: str) -> list[Path]:
    """The image, the headers and what the headers stand on, downloaded once."""
    folder = CACHE / "packages" / release
    if not folder.exists():
        depends = _run("apt-cache", "depends", "--important", f"linux-headers-{release}")
        below = re.findall(r"Depends: (linux-(?:headers|kbuild)-\S+)", depends)
        half = folder.with_suffix(".half")
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir(parents=True)
        # Sandbox::User: apt's own user may not write here, and apt would say so.
        download = ("apt-get", "-q", "-o", "APT::Sandbox::User=root", "download")
        _run(*download, f"linux-image-{release}", f"linux-headers-{release}", *below, cwd=half)
        for old in CACHE.glob(f"packages/{SERIES}.*"):
            if old != half:
                shutil.rmtree(old)
        half.rename(folder)
    return sorted(folder.glob("*.deb"))


def _headers(work: Path, release: str) -> Path:
    return work / "usr/src" / f"linux-headers-{release}"


def _point_headers_here(work: Path, release: str) -> None:
    """The headers' makefile names those common to all flavours by where they would be installed."""
    makefile = _headers(work, release) / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src", str(work / "usr/src")))


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise RuntimeError("expected the command busybox (static), saw none: tools/guest-packages")
    return Path(found)


def _digest() -> str:
    parts = [SERIES.encode(), *(source.read_bytes() for source in SOURCES), _busybox().read_bytes()]
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()[:16]


@contextmanager
def _work() -> Iterator[Path]:
    # Not in the checkout, whose path may have blanks: kbuild cannot stand them. In memory where that can be: 20 000 small files.
    memory = Path("/dev/shm")
    fits = memory.is_dir() and shutil.disk_usage(memory).free > WORK_BYTES and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    with tempfile.TemporaryDirectory(prefix="nahanni-", dir=memory if fits else None) as work:
        yield Path(work)


def _run(*command: str, cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr[-1000:]}")
    return done.stdout
