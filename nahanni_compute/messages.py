"""Descriptors as values: how the eight words of a message are packed and read. The vocabulary is `layout.MESSAGES`.

Word 0 is kind:16 | flags:16 | small:32. Every message about a bundle names (offset, generation), its key (B6).
"""

from __future__ import annotations

from typing import NamedTuple

from nahanni_compute.region.layout import MSG

WELCOME, ASK, ARENA, REFUSED = MSG["WELCOME"], MSG["ASK"], MSG["ARENA"], MSG["REFUSED"]
COMMIT, COMMITTED, PUNCH, RETIRE = MSG["COMMIT"], MSG["COMMITTED"], MSG["PUNCH"], MSG["RETIRE"]
OPEN, CLOSE, RELEASE, FORGOT = MSG["OPEN"], MSG["CLOSE"], MSG["RELEASE"], MSG["FORGOT"]
GRANT, DONE, BACK, CHUNK = MSG["GRANT"], MSG["DONE"], MSG["BACK"], MSG["CHUNK"]
DROP, CONTROL, EXPEL, RETURN = MSG["DROP"], MSG["CONTROL"], MSG["EXPEL"], MSG["RETURN"]
KIND_MASK = 0xFFFF
LIFE_SHIFT = 32  # of a generation: above stands which life of which client it is, and functions are bound to that, too


class BundleKey(NamedTuple):
    """The name of a bundle: where its block lies, and which use of the block this is."""

    offset: int
    generation: int


class Grant(NamedTuple):
    """The right to run lo..hi of a bundle, until the DONE of `range_id`."""

    bundle: BundleKey
    range_id: int
    lo: int
    hi: int
    budget_ns: int


Words = tuple[int, ...]


def grant_of(words: Words) -> Grant:
    """Read a GRANT or CONTROL as `take` or `next_grant` gave it: source first, then its words."""
    return Grant(BundleKey(words[2], words[3]), words[4], words[5], words[6], words[7])
