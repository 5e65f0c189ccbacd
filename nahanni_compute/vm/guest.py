"""A guest under QEMU, on a server's region.

    with Guest(Machine("one", boot, region=socket, key_file=key)) as guest:
        print(guest.sh("uname -a"))

It leaves nothing behind, whoever dies first: QEMU's sockets are inherited pairs and its logs are memory, so that there is
no folder to remove, and QEMU is on a leash (leash.py).
"""

from __future__ import annotations

import base64
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from nahanni_compute.vm.agent import Agent, AgentSilent
from nahanni_compute.vm.errors import GuestError
from nahanni_compute.vm.machine import QEMU, Machine
from nahanni_compute.vm.qmp import Qmp

UP_TIMEOUT_S: Final = 120.0
ANSWER_TIMEOUT_S: Final = 60.0
LEASH: Final = Path(__file__).with_name("leash.py")


class Guest:
    """One guest, for one thread at a time. QEMU runs when it is made; the guest is up after wait_up(), or `with`."""

    def __init__(self, machine: Machine) -> None:
        if shutil.which(QEMU) is None:
            raise GuestError(f"expected the command {QEMU}, saw none: install it (Debian: qemu-system-x86)")
        self.name = machine.name
        self.up_s: float | None = None
        self._started = time.monotonic()
        self._console, self._log = os.memfd_create("console"), os.memfd_create("qemu")
        lifeline_end, self._lifeline = os.pipe()
        agent, agent_end = socket.socketpair()
        qmp, qmp_end = socket.socketpair()
        self._agent, self._qmp = Agent(agent), Qmp(qmp)
        command = machine.command(agent_end.fileno(), qmp_end.fileno())
        with agent_end, qmp_end, os.fdopen(lifeline_end, "rb"):
            self._qemu = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH), str(lifeline_end), *command],
                stdin=subprocess.DEVNULL,
                stdout=self._console,
                stderr=self._log,
                pass_fds=(lifeline_end, agent_end.fileno(), qmp_end.fileno()),
                process_group=0,  # a Ctrl-C is for us, who end the guest when we are done with it
            )

    @property
    def pid(self) -> int:
        """QEMU's."""
        return self._qemu.pid

    def wait_up(self, timeout_s: float = UP_TIMEOUT_S) -> Self:
        """Returns when the guest takes scripts; raises GuestError with what it said."""
        try:
            self._agent.wait_ready(timeout_s)
        except AgentSilent as error:
            raise self._told(error) from None
        self.up_s = time.monotonic() - self._started
        return self

    def send(self, script: str) -> int:
        """Starts a script of /bin/sh in the guest, beside those that run; returns what recv() takes."""
        return self._agent.send(script)

    def recv(self, job: int, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """The script's output, with its errors; an exit status other than 0 is a GuestError."""
        try:
            status, output = self._agent.recv(job, timeout_s)
        except AgentSilent as error:
            raise self._told(error) from None
        if status:
            raise GuestError(f"{self.name}: expected exit status 0, saw {status}:\n{output}")
        return output.strip()

    def sh(self, script: str, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """Runs a script of /bin/sh in the guest."""
        return self.recv(self.send(script), timeout_s)

    def send_python(self, code: str, *arguments: object) -> int:
        """Starts a fresh interpreter, this very Python, on `code`; arguments are its sys.argv[1:]."""
        encoded = base64.b64encode(code.encode()).decode()
        words = " ".join(shlex.quote(str(a)) for a in arguments)
        path = shlex.quote(os.environ.get("PYTHONPATH", ""))
        # From a file, so that tracebacks show the code; -P, so that its folder is not searched for modules.
        python = f"PYTHONPATH={path} exec {shlex.quote(sys.executable)} -P"
        return self.send(f"file=$(mktemp) && echo {encoded} | base64 -d > $file && {python} $file {words}")

    def python(self, code: str, *arguments: object, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
        """Runs code in a fresh interpreter in the guest."""
        return self.recv(self.send_python(code, *arguments), timeout_s)

    def qmp(self, execute: str, **arguments: object) -> Any:
        """Asks QEMU itself."""
        return self._qmp.ask(execute, **arguments)

    def console(self) -> str:
        """What the guest's kernel and init said so far."""
        return _text(self._console)

    def kill(self) -> None:
        """Ends QEMU, like a power cut. May be called twice."""
        if self._lifeline < 0:
            return
        self._qemu.kill()
        self._qemu.wait()
        self._agent.close()
        self._qmp.close()
        for fd in (self._lifeline, self._console, self._log):
            os.close(fd)
        self._lifeline = -1

    def _told(self, error: GuestError) -> GuestError:
        return GuestError(f"{self.name}: {error}\nconsole: {self.console()[-3000:]}\nQEMU: {_text(self._log)[-500:]}")

    def __enter__(self) -> Self:
        try:
            return self.wait_up()
        except BaseException:
            self.kill()
            raise

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.kill()


def _text(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
