"""Whose items are granted next. Clients take turns, one group each; the bundles of a client go by age."""

from __future__ import annotations

from bisect import insort
from collections import deque
from operator import attrgetter

from nahanni_compute.scheduler.bundles import Bundle, Client

AGE = attrgetter("age")


class Turns:
    """A circle of the clients that have items nobody holds. What has none is taken out when its turn comes."""

    def __init__(self) -> None:
        self._clients: deque[Client] = deque()

    def __bool__(self) -> bool:
        return bool(self._clients)

    def add(self, bundle: Bundle) -> None:
        """It has items to grant. Idempotent."""
        client = bundle.client
        if not bundle.is_queued:
            bundle.is_queued = True
            insort(client.waiting, bundle, key=AGE)
        if not client.is_queued:
            client.is_queued = True
            self._clients.append(client)

    def remove(self, bundle: Bundle) -> None:
        """It has none any more."""
        if bundle.is_queued:
            bundle.is_queued = False
            bundle.client.waiting.remove(bundle)

    def next(self, most_mean_ns: float) -> Bundle | None:
        """The bundle whose turn it is, none with longer items than that."""
        clients = self._clients
        for _ in range(len(clients)):
            client = clients[0]
            bundle = _oldest(client)
            if bundle is None:
                clients.popleft()
                client.is_queued = False
                continue
            clients.rotate(-1)
            if bundle.mean_ns <= most_mean_ns:
                return bundle
        return None


def _oldest(client: Client) -> Bundle | None:
    waiting = client.waiting
    while waiting:
        bundle = waiting[0]
        if bundle.unheld.items:
            return bundle
        del waiting[0]
        bundle.is_queued = False
    return None
