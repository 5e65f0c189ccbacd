"""One selectors loop. Callbacks never block; what is forgotten is not called any more, not even for an event already seen."""

from __future__ import annotations

import logging
import selectors
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)


class HasFileno(Protocol):
    """A socket, or a Descriptor."""

    def fileno(self) -> int:
        """The number."""


class Watch:
    """One descriptor in the loop."""

    def __init__(self, loop: Loop, source: HasFileno, readable: Callable[[], None], writable: Callable[[], None] | None) -> None:
        self._loop, self._fd = loop, source.fileno()
        self.readable, self.writable = readable, writable
        self.active = True
        self._events = selectors.EVENT_READ
        loop.selector.register(self._fd, self._events, self)

    def want(self, *, read: bool = True, write: bool = False) -> None:
        """What to be called for from now on."""
        events = (selectors.EVENT_READ if read else 0) | (selectors.EVENT_WRITE if write else 0)
        if not self.active or events == self._events:
            return
        if not self._events:
            self._loop.selector.register(self._fd, events, self)
        elif not events:
            self._loop.selector.unregister(self._fd)
        else:
            self._loop.selector.modify(self._fd, events, self)
        self._events = events

    def forget(self) -> None:
        """Before the descriptor is closed. Idempotent."""
        self.want(read=False)
        self.active = False


class Loop:
    """Waits, and calls."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()

    def __len__(self) -> int:
        return len(self.selector.get_map())

    def watch(self, source: HasFileno, readable: Callable[[], None], writable: Callable[[], None] | None = None) -> Watch:
        """Call `readable` whenever there is something to read; `writable` once `want(write=True)` was said."""
        return Watch(self, source, readable, writable)

    def turn(self, timeout_s: float) -> None:
        """Wait for events, at most so long, and call for each."""
        for key, mask in self.selector.select(timeout_s):
            watch: Watch = key.data
            if mask & selectors.EVENT_WRITE and watch.writable:
                _call(watch, watch.writable)
            if mask & selectors.EVENT_READ:
                _call(watch, watch.readable)


def _call(watch: Watch, callback: Callable[[], None]) -> None:
    if not watch.active:
        return
    try:
        callback()
    except Exception:  # a mistake of ours that one client brings up must not end the VMs of all others
        log.exception("this client is not listened to any more")
        watch.forget()
