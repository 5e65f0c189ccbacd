"""The words of S in the region (layout.py): header, peer table, and the state of each slot.

Others find them changed by `members`; the server rings everyone once for all changes of a turn.
"""

from __future__ import annotations

import os
import platform
import secrets
import sys
from typing import Final

from nahanni_compute._native import Region
from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEADER, RING, slot_word
from nahanni_compute.region.slots import text_words

SERVER_INCARNATION: Final = 1
_WORD_MASK: Final = (1 << 64) - 1


class Table:
    """Writes them, in an order that a reader may look at in the middle.

    It counts here and never on from what a word holds: anybody may have stored anything there.
    """

    def __init__(self, region: Region, vectors: int) -> None:
        """Make the header and slot 0; MAGIC comes last."""
        self._region = region
        self._vectors = vectors
        self._changed = False
        self._counts = dict.fromkeys((HEADER["members"], slot_word(0, "heartbeat"), slot_word(0, "seq")), 0)
        for field, word in (
            ("format", layout.FORMAT),
            ("size", region.size),
            ("cluster", secrets.randbits(64)),
            ("arena_unit", layout.arena_unit(region.size)),
            ("arena_units", layout.arena_units(region.size)),
            ("slots_used", 1),
        ):
            region.store(HEADER[field], word)
        self._server_slot()
        self.peer(0, layout.PEER_HOST, range(1))
        region.store(HEADER["magic"], layout.MAGIC)

    def _server_slot(self) -> None:
        store = self._region.store
        store(slot_word(0, "role"), layout.ROLE_SERVER)
        store(slot_word(0, "pid"), os.getpid())
        store(slot_word(0, "python"), sys.hexversion)
        for field, text in (("name", "server"), ("host", platform.node()), ("substrate", "server")):
            self._region.write(slot_word(0, field), text_words(text, 64))
        store(slot_word(0, "s_state"), SERVER_INCARNATION << 8 | layout.STATE_JOINED)
        store(slot_word(0, "e_state"), SERVER_INCARNATION << 8 | layout.STATE_MEMBER)

    def peer(self, peer: int, state: int, slots: range) -> None:
        """What a peer is and which slots it has."""
        self._region.store(layout.peer_word(peer, "slots"), slots.start << 32 | len(slots))
        self._region.store(layout.peer_word(peer, "vectors"), self._vectors)
        self._region.store(layout.peer_word(peer, "state"), state)
        self._changed = True

    def slots_used(self, used: int) -> None:
        """No slot at or above this was ever given out."""
        self._region.store(HEADER["slots_used"], used)

    def give(self, slot: int, peer: int, last: int, state: int) -> None:
        """A slot goes to a peer. `last`: the highest incarnation before, whose words are ours since its death (M1).

        Its e_state must not make an ancestor a member again, and what nobody read of its uplink is never read.
        """
        if last:
            self._region.store(slot_word(slot, "e_state"), last << 8 | layout.STATE_LEFT)
        uplink = slot_word(slot, "uplink")
        self._region.store(uplink + RING["head"], self._region.load(uplink + RING["tail"]))
        self._region.store(slot_word(slot, "peer"), peer)
        self.slot_state(slot, state)

    def slot_state(self, slot: int, state: int) -> None:
        """s_state: incarnation << 8 | STATE_*."""
        self._region.store(slot_word(slot, "s_state"), state)
        self._changed = True

    def keeper(self, epoch: int, slot: int) -> None:
        """Whose word counts from now on."""
        self._region.store(HEADER["keeper"], epoch << 16 | slot)
        self._changed = True

    def publish(self) -> bool:
        """+1 for all changes since the last call; whether there were any."""
        changed, self._changed = self._changed, False
        if changed:
            self._count(HEADER["members"])
        return changed

    def leave(self) -> None:
        """The server ends in order: guests have no socket that would tell them."""
        self._region.store(slot_word(0, "e_state"), SERVER_INCARNATION << 8 | layout.STATE_LEFT)
        self.slot_state(0, SERVER_INCARNATION << 8 | layout.STATE_LEFT)

    def beat(self, asleep: bool) -> None:
        """Our heartbeat, and seq: odd while the loop blocks (S1). No fence from here: a ring that is missed costs a timeout (S3)."""
        for field in ("heartbeat", "seq") if asleep else ("seq",):
            self._count(slot_word(0, field))

    def _count(self, word: int) -> None:
        self._counts[word] += 1
        self._region.store(word, self._counts[word] & _WORD_MASK)
