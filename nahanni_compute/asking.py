"""Asking the keeper for an arena, waiting for its answer, giving one back: what clients and workers alike do for memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from nahanni_compute import messages
from nahanni_compute.config import settings
from nahanni_compute.errors import RegionFull, SchedulerDied, ServerDied
from nahanni_compute.messages import Words
from nahanni_compute.region.arenas import Arenas
from nahanni_compute.region.layout import REASON_SERVER_DIED
from nahanni_compute.region.membership import Member

ANSWER_S = 30.0
LOOK_S = 0.25
EXPECT_S = 2.0  # what was dropped comes back when its tasks have ended: some do soon
SHORT_S = 0.01
SHARE_OF_REGION = 64  # no endpoint asks for more than this part at a time, unless one block needs it

Block = tuple[int, int]


class Asking:
    """One question at a time: whoever asks holds its owner's lock. `turn()` is the owner's, which hands answers to `answered`."""

    def __init__(self, member: Member, turn: Callable[[], None], is_expecting: Callable[[], bool] = bool) -> None:
        """`is_expecting()`: whether memory of ours is on its way back to us; then a refusal is not the last word."""
        self._member, self._turn, self._is_expecting = member, turn, is_expecting
        self._answers: deque[Words] = deque()

    @property
    def usual_bytes(self) -> int:
        """What is asked for at a time, unless one block needs more."""
        return min(settings().arena_bytes, self._member.region.size // SHARE_OF_REGION)

    def arenas(self) -> Arenas:
        """The allocator that asks here."""
        return Arenas(self.ask, self._give_back, self.usual_bytes)

    def _give_back(self, offset: int, nbytes: int) -> None:
        """RETURN: nothing of ours, and nothing that we published, is in this arena any more."""
        endpoint, keeper = self._member.endpoint, self._member.keeper
        if keeper is not None:
            endpoint.send(keeper.slot, messages.RETURN, offset, nbytes)
            endpoint.flush()

    def answered(self, words: Words) -> None:
        """ARENA or REFUSED has come."""
        self._answers.append(words)

    def ask(self, nbytes: int) -> Block:
        """An arena of `nbytes` or more: (offset, bytes). Raises RegionFull, SchedulerDied, ServerDied."""
        usual = self.usual_bytes
        answer = self._asked(max(usual, nbytes))
        if answer[1] & messages.KIND_MASK == messages.REFUSED and usual > nbytes:
            answer = self._asked(nbytes)
        if answer[1] & messages.KIND_MASK == messages.REFUSED and self._is_expecting():
            self._await_memory()
            answer = self._asked(nbytes)
        if answer[1] & messages.KIND_MASK == messages.ARENA:
            return answer[2], answer[3]
        if answer[3] == REASON_SERVER_DIED:
            raise ServerDied("expected the region's server for a new arena, saw its death: what runs goes on; start a new cluster")
        raise RegionFull(
            f"expected an arena of {nbytes} bytes, the region of {self._member.region.size} bytes has none to give: "
            "drop futures you no longer need, or make the region larger (region_size=, nahanni server --size)"
        )

    def _await_memory(self) -> None:
        end = time.monotonic() + EXPECT_S
        while self._is_expecting() and time.monotonic() < end and self._member.keeper_is_alive():
            self._turn()
            self._member.endpoint.wait(SHORT_S)

    def _asked(self, nbytes: int) -> Words:
        endpoint, keeper = self._member.endpoint, self._member.keeper
        assert keeper is not None
        endpoint.send(keeper.slot, messages.ASK, nbytes)
        endpoint.flush()
        end = time.monotonic() + ANSWER_S
        while not self._answers:
            if not self._member.keeper_is_alive():
                self._turn()  # the owner hears of it, not only who asked
                raise SchedulerDied(f"expected an arena of {nbytes} bytes, but the scheduler has died: start a new cluster")
            if time.monotonic() > end:
                raise RegionFull(f"expected an arena of {nbytes} bytes within {ANSWER_S:.0f} s, saw no answer: see the scheduler's output")
            endpoint.wait(LOOK_S)
            self._turn()
        return self._answers.popleft()
