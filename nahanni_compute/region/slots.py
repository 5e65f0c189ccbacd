"""Slots as anybody may read them: who is there, alive or gone (PROTOCOL.md section 4)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nahanni_compute._native import Region
from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEADER, SLOT, slot_at, slot_word

ROLE_NAMES = {
    layout.ROLE_SERVER: "server",
    layout.ROLE_KEEPER: "scheduler",
    layout.ROLE_WORKER: "worker",
    layout.ROLE_CLIENT: "client",
    layout.ROLE_OBSERVER: "observer",
}


class Key(NamedTuple):
    """One life of one slot: what the keeper means by an endpoint."""

    slot: int
    incarnation: int


@dataclass(frozen=True)
class Identity:
    """What an endpoint says of itself. For people: nobody acts on the pid of another kernel."""

    key: Key
    role: str
    name: str
    host: str
    substrate: str
    pid: int
    threads: int
    python: int


def keeper_of(region: Region) -> tuple[int, int] | None:
    """(slot, epoch) of the keeper that the server appointed, or None."""
    word = region.load(HEADER["keeper"])
    return (word & 0xFFFF, word >> 16) if word else None


def member_key(region: Region, slot: int) -> Key | None:
    """Whose life this slot says it is in, dead or alive; None where nobody joined yet."""
    word = region.load(slot_word(slot, "e_state"))
    return Key(slot, word >> 8) if word else None


def is_alive(region: Region, key: Key) -> bool:
    """A member that neither left nor is known to be dead. A fact only where it is False (D2)."""
    if region.load(slot_word(key.slot, "e_state")) != (key.incarnation << 8 | layout.STATE_MEMBER):
        return False
    state = region.load(slot_word(key.slot, "s_state"))
    if state & 0xFF == layout.STATE_VM:
        return region.load(slot_word(key.slot, "n_state")) >> 8 < key.incarnation
    return state == (key.incarnation << 8 | layout.STATE_JOINED)


def has_left(region: Region, key: Key) -> bool:
    """Whether it went in order: no store of its can follow.

    In a VM's slot a new life may have begun already. Whoever took the slot has proved a death if there was one (D2).
    """
    word = region.load(slot_word(key.slot, "e_state"))
    if word >> 8 > key.incarnation and region.load(slot_word(key.slot, "s_state")) & 0xFF == layout.STATE_VM:
        return region.load(slot_word(key.slot, "n_state")) >> 8 < key.incarnation
    return word == (key.incarnation << 8 | layout.STATE_LEFT)


def text_words(text: str, nbytes: int) -> bytes:
    """UTF-8, cut at a whole character, zero-padded."""
    return text.encode()[:nbytes].decode(errors="ignore").encode().ljust(nbytes, b"\0")


def _text(region: Region, slot: int, field: str, nbytes: int = 64) -> str:
    return region.read(slot_word(slot, field), nbytes).rstrip(b"\0").decode(errors="replace")


def identity_of(region: Region, key: Key) -> Identity:
    """Read what the slot says."""
    load = region.load
    return Identity(
        key=key,
        role=ROLE_NAMES.get(load(slot_word(key.slot, "role")), "unknown"),
        name=_text(region, key.slot, "name"),
        host=_text(region, key.slot, "host"),
        substrate=_text(region, key.slot, "substrate"),
        pid=load(slot_word(key.slot, "pid")),
        threads=load(slot_word(key.slot, "threads")),
        python=load(slot_word(key.slot, "python")),
    )


def members(region: Region) -> list[Identity]:
    """All that are alive now."""
    used = min(region.load(HEADER["slots_used"]), layout.SLOTS)
    keys = (member_key(region, slot) for slot in range(used))
    return [identity_of(region, key) for key in keys if key is not None and is_alive(region, key)]


def clear_own_words(region: Region, slot: int) -> None:
    """What an ancestor left in the words of E, all but e_state, and the counters of its ring, which go on (R1)."""
    start = SLOT["want_bundle"]
    region.write(slot_at(slot) + start, bytes(SLOT["uplink"] - start))
