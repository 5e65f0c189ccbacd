"""leash.py FD COMMAND...: become COMMAND, and die when the pipe FD ends: when its write end, our parent's, is closed.

The kernel itself watches: a pipe can send its owner a signal when something happens to it (fcntl(2), F_SETSIG), and one
whose other end nobody holds any more does so at once, however the holder died. The owner, the signal and the descriptor
outlive exec, so this works for a program that knows nothing of it. What was refused: PR_SET_PDEATHSIG follows the
parent's *thread*; a watcher process beside COMMAND can itself be killed; QEMU has no option for it.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys


def put_on(fd: int) -> None:
    """From here on this process is killed when the other end of the pipe is closed."""
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETFL, os.O_ASYNC)
    end = select.poll()
    end.register(fd, 0)  # POLLHUP is always reported
    if end.poll(0):  # it ended before we watched
        sys.exit(1)


if __name__ == "__main__":
    pipe = int(sys.argv[1])
    put_on(pipe)
    os.set_inheritable(pipe, True)
    os.execvp(sys.argv[2], sys.argv[2:])
