"""The guest's kernel module: its source, and how it is built."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from nahanni_compute.vm.errors import GuestError

SOURCES = (Path(__file__).with_name("uio_ivshmem.c"), Path(__file__).with_name("Makefile"))
MODULE = "uio_ivshmem.ko"


def build(kernel_build: Path, folder: Path) -> Path:
    """Build the module with the headers in `kernel_build`; returns where it lies in `folder`.

    In a temporary folder: the installed sources may be read-only, and kbuild cannot stand blanks in a path.
    """
    with tempfile.TemporaryDirectory(prefix="nahanni-") as work:
        for source in SOURCES:
            shutil.copy(source, work)
        make = ["make", "-s", "-C", work, f"KERNEL_BUILD={kernel_build}"]
        done = subprocess.run(make, capture_output=True, text=True, check=False)
        if done.returncode:
            raise GuestError(f"expected {MODULE} from the headers in {kernel_build}, make failed:\n{(done.stdout + done.stderr)[-2000:]}")
        return Path(shutil.copy(Path(work, MODULE), folder))
