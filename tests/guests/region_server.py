"""A region's server, as its own process, for the guests of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

REGION_SIZE = "256MiB"


class RegionServer:
    """Runs within `with`; `socket` is QEMU's, `key_file` the cluster's."""

    def __init__(self, size: str = REGION_SIZE) -> None:
        # Short: the path of a Unix socket ends at 107 bytes. The server removes it, however we end (--private-dir).
        self._folder = Path(tempfile.mkdtemp(prefix="nahanni-"))
        self.socket = self._folder / "region.sock"
        self.key_file = Path(f"{self.socket}.key")
        self._size = size

    def __enter__(self) -> Self:
        lifeline_end, self._lifeline = os.pipe()
        command = [sys.executable, "-P", "-m", "nahanni_compute.server"]
        options = ["--socket", str(self.socket), "--size", self._size, "--private-dir", "--lifeline", str(lifeline_end)]
        with os.fdopen(lifeline_end, "rb"):
            self._process = subprocess.Popen([*command, *options], pass_fds=(lifeline_end,), stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        if not self._process.stdout.readline().startswith("listening"):
            self.__exit__(None, None, None)
            raise RuntimeError("expected the server to listen, saw its end")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with self._process:
            self._process.terminate()
        os.close(self._lifeline)
        shutil.rmtree(self._folder, ignore_errors=True)  # of a server that did not start
