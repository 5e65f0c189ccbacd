"""Who is there, from the slots: newcomers to welcome, and those whose end is a fact (D2)."""

from __future__ import annotations

from nahanni_compute._native import Endpoint, Region
from nahanni_compute.region import layout
from nahanni_compute.region.layout import HEADER, UPLINK_LOG2, directory_word, slot_word
from nahanni_compute.region.membership import Member
from nahanni_compute.region.slots import Key, is_alive, member_key

INCARNATION_MAX = 1 << 22  # a generation has 22 bits for it; nobody comes so often
ROLES = (layout.ROLE_WORKER, layout.ROLE_CLIENT)


class Register:
    """The members that were welcomed, by slot. The words that say who comes and goes are watched, so a change ends a wait."""

    def __init__(self, member: Member) -> None:
        self._region: Region = member.region
        self._endpoint: Endpoint = member.endpoint
        self._me = member.key.slot
        self._watched = 0  # slots below this are
        self.at: dict[int, Key] = {}
        self._retired: dict[int, int] = {}  # slot -> the last incarnation whose end the server was told of
        self._endpoint.watch(HEADER["members"])

    def watch_new_slots(self) -> None:
        """Slots that were given out since."""
        used = min(self._region.load(HEADER["slots_used"]), layout.SLOTS)
        for slot in range(self._watched, used):
            if slot in (0, self._me):
                continue
            for field in ("s_state", "n_state", "e_state"):
                self._endpoint.watch(slot_word(slot, field))
            self._endpoint.watch(directory_word(slot, self._me))
        self._watched = max(self._watched, used)

    def gone(self) -> list[Key]:
        """Members that left or are dead, also when the slot has a new life already."""
        return [key for key in self.at.values() if not is_alive(self._region, key)]

    def never_welcomed(self) -> list[Key]:
        """Who said hello and was gone before the welcome: the server waits to hear of their end, too."""
        found = []
        for slot in range(1, self._watched):
            key = member_key(self._region, slot)
            if key is None or slot == self._me or slot in self.at or self._retired.get(slot, 0) >= key.incarnation:
                continue
            if self._told(slot) and not is_alive(self._region, key):
                found.append(key)
        return found

    def retire(self, key: Key) -> None:
        """The server is told of its end."""
        self._retired[key.slot] = key.incarnation
        self.at.pop(key.slot, None)

    def _told(self, slot: int) -> bool:
        return self._region.load(directory_word(slot, self._me)) == slot_word(slot, "uplink") | UPLINK_LOG2

    def newcomers(self) -> list[tuple[Key, int]]:
        """Who said hello, with its role: alive, its uplink told, not yet welcomed."""
        found = []
        for slot in range(1, self._watched):
            if slot == self._me or slot in self.at:
                continue
            key = member_key(self._region, slot)
            role = self._region.load(slot_word(slot, "role"))
            if key is not None and key.incarnation < INCARNATION_MAX and self._told(slot) and role in ROLES and is_alive(self._region, key):
                found.append((key, role))
        return found
