"""Becoming the keeper: appointed by the server, and paired with it (D6)."""

from __future__ import annotations

import time

from nahanni_compute.errors import NahanniError, SchedulerDied
from nahanni_compute.region.layout import HEADER, RING, UPLINK_LOG2, directory_word, slot_word
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import identity_of, is_alive, keeper_of, member_key

SERVER_SLOT = 0
LOOK_S = 0.05


def take_office(member: Member, timeout_s: float) -> int:
    """Wait to be appointed, then open the ring pair with the server. The epoch. Raises NahanniError when the region has a scheduler."""
    end = time.monotonic() + timeout_s
    region, endpoint, me = member.region, member.endpoint, member.key
    endpoint.watch(HEADER["keeper"])
    endpoint.ring(SERVER_SLOT)
    while (found := keeper_of(region)) is None or found[0] != me.slot:
        other = member_key(region, found[0]) if found is not None else None
        if other is not None and is_alive(region, other):
            raise NahanniError(f"expected a region without a scheduler, saw {identity_of(region, other).name}: a region has one")
        _pause(member, end, "did not appoint this scheduler")
    endpoint.unwatch(HEADER["keeper"])
    uplink, answer, theirs = slot_word(me.slot, "uplink"), directory_word(SERVER_SLOT, me.slot), slot_word(SERVER_SLOT, "uplink")
    region.store(directory_word(me.slot, SERVER_SLOT), uplink | UPLINK_LOG2)
    endpoint.ring(SERVER_SLOT)
    while region.load(answer) != theirs | UPLINK_LOG2 or region.load(theirs + RING["reader"]) != me.incarnation:
        _pause(member, end, "did not open its ring to this scheduler")
    endpoint.open_in(SERVER_SLOT, theirs, UPLINK_LOG2, region.load(theirs + RING["start"]))
    endpoint.open_out(SERVER_SLOT, uplink, UPLINK_LOG2)
    return found[1]


def _pause(member: Member, end: float, what: str) -> None:
    if time.monotonic() > end:
        raise SchedulerDied(f"expected the region's server to answer in time, but it {what}")
    member.endpoint.wait(LOOK_S)
    member.endpoint.changed()
