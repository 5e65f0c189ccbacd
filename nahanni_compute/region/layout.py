"""Every offset in the region: the one source, for Python and for C.

All words are 8 bytes, aligned, little-endian. Each has one writer for the life of its incarnation (PROTOCOL.md, M1): the
initial beside it. S is the server, K the keeper, E the endpoint that holds the slot, N its neighbour or supervisor in the
same kernel, C the client that owns a bundle, W who holds a grant. `native/layout.h` and `docs/protocol/LAYOUT.md` are
generated from this file (`python -m nahanni_compute.region.layout --write`); a test holds them to it.

        0  region header                  S
   64 KiB  peer table, 65536 x 32 B       S
    3 MiB  arena table, 4096 words        K
    4 MiB  slots, 1024 x 32 KiB           see SLOT_FIELDS
   36 MiB  heap: arenas, handed out in whole units
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

KIB: Final = 1 << 10
MIB: Final = 1 << 20
WORD: Final = 8
LINE: Final = 64

MAGIC: Final = 0x494E4E4148414E01  # "\x01NAHANNI", read as little-endian
FORMAT: Final = 1  # of the region; peers of another format are refused (VersionMismatch)

REGION_SIZE_MIN: Final = 64 * MIB


@dataclass(frozen=True)
class Field:
    """One named word, or a run of them, at an offset in bytes within its record."""

    name: str
    offset: int
    words: int
    writer: str
    meaning: str


HEADER_FIELDS: Final = (
    Field("magic", 0, 1, "S", "MAGIC, stored last when the region is made"),
    Field("format", 8, 1, "S", "FORMAT"),
    Field("size", 16, 1, "S", "bytes in the region"),
    Field("cluster", 24, 1, "S", "random, tells one region's life from another's"),
    Field("arena_unit", 32, 1, "S", "bytes in an arena unit"),
    Field("arena_units", 40, 1, "S", "units in the heap"),
    Field("keeper", 64, 1, "S", "epoch << 16 | slot of the keeper; 0: none yet"),
    Field("members", 128, 1, "S", "+1 at each change of the peer table or of an S word in a slot"),
    Field("slots_used", 136, 1, "S", "no slot at or above this was ever given out"),
)

PEER_TABLE: Final = 64 * KIB
PEERS: Final = 65536
PEER_SIZE: Final = 32
PEER_FIELDS: Final = (
    Field("state", 0, 1, "S", "PEER_*"),
    Field("slots", 8, 1, "S", "first slot << 32 | number of slots"),
    Field("vectors", 16, 1, "S", "doorbell vectors of this peer"),
)
PEER_NONE, PEER_HOST, PEER_VM, PEER_GONE = range(4)

ARENA_TABLE: Final = 3 * MIB
ARENA_UNITS_MAX: Final = 4096  # word i: incarnation << 16 | slot of who owns unit i; 0: nobody

SLOT_TABLE: Final = 4 * MIB
SLOTS: Final = 1024
SLOTS_PER_VM: Final = 8
SLOT_SIZE: Final = 32 * KIB
CUR_THREADS: Final = 64
CONTROL_THREAD: Final = 63  # runs beside tasks: its range is no load, and nothing waits behind it
LEASES: Final = 1024
UPLINK_LOG2: Final = 7
SLOT_FIELDS: Final = (
    Field("s_state", 0, 1, "S", "incarnation << 8 | STATE_*; of a VM's slot: STATE_VM, or STATE_DEAD"),
    Field("peer", 8, 1, "S", "ivshmem id this slot belongs to"),
    Field("n_state", 64, 1, "N", "incarnation << 8 | STATE_DEAD: its death, proved within one kernel (D2)"),
    Field("e_state", 128, 1, "E", "incarnation << 8 | STATE_MEMBER, STATE_LEFT; the last store of a member"),
    Field("bell", 136, 1, "E", "peer << 16 | vector: where to ring"),
    Field("heartbeat", 192, 1, "E", "+1 at each turn of the pump"),
    Field("seq", 256, 1, "E", "odd: may be blocked (S1)"),
    Field("want_bundle", 320, 1, "E", "offset of the bundle waited for, or WANT_ANY (S7)"),
    Field("want_index", 328, 1, "E", "item waited for, or WANT_ANY"),
    Field("rings", 384, 1, "E", "doorbells rung"),
    Field("wakes", 392, 1, "E", "blocks ended by a bell"),
    Field("rescues", 400, 1, "E", "work found by a block that timed out"),
    Field("sleeps", 408, 1, "E", "blocks begun"),
    Field("role", 512, 1, "E", "ROLE_*"),
    Field("pid", 520, 1, "E", "in its own kernel; for people, never acted on by others"),
    Field("threads", 528, 1, "E", "executor threads"),
    Field("python", 536, 1, "E", "sys.hexversion"),
    Field("boot", 544, 2, "E", "boot id of its kernel"),
    Field("name", 576, 8, "E", "UTF-8, zero-padded"),
    Field("host", 640, 8, "E", "UTF-8, zero-padded"),
    Field("substrate", 704, 8, "E", "UTF-8, zero-padded"),
    Field("cur", 1024, 2 * CUR_THREADS, "E", "per executor thread: bundle, item + 1; read after death only (B11)"),
    Field("lease", 2048, LEASES, "E", "objects held; evidence for fail-over, never on a hot path (5.3)"),
    Field("directory", 10240, SLOTS, "E", "word j: where this slot's ring to slot j lies: offset | log2 slots"),
    Field("uplink", 18432, (128 + LINE * (1 << UPLINK_LOG2)) // WORD, "E", "its first ring, to the keeper"),
)
STATE_FREE, STATE_JOINED, STATE_VM, STATE_LEFT, STATE_DEAD, STATE_MEMBER = range(6)
ROLE_NONE, ROLE_SERVER, ROLE_KEEPER, ROLE_WORKER, ROLE_CLIENT, ROLE_OBSERVER = range(6)
WANT_ANY: Final = (1 << 64) - 1
WANT_NOTHING: Final = 0

HEAP: Final = 36 * MIB

# Ring: two counters on lines of their own, then the descriptors (PROTOCOL.md, section 2).
RING_FIELDS: Final = (
    Field("tail", 0, 1, "P", "messages ever published"),
    Field("reader", 8, 1, "P", "incarnation of Q that this ring is for"),
    Field("start", 16, 1, "P", "the tail at which that incarnation starts to read (R6)"),
    Field("head", LINE, 1, "Q", "messages ever taken; no other acknowledgement exists (R4)"),
    Field("slots", 2 * LINE, 0, "P", "descriptors of 64 bytes"),
)
DESCRIPTOR_WORDS: Final = 8
RING_LOG2_MAX: Final = 16

BUNDLE_MAGIC: Final = 0x454C444E55424E01
BUNDLE_SIZE: Final = 256
BUNDLE_FIELDS: Final = (
    Field("magic", 0, 1, "C", "BUNDLE_MAGIC, stored last"),
    Field("generation", 8, 1, "C", "with the offset, the bundle's name"),
    Field("capacity", 16, 1, "C", "items there is room for"),
    Field("items", 24, 1, "C", "offset of the item words"),
    Field("statuses", 32, 1, "C", "offset of the status words"),
    Field("owner", 40, 1, "C", "slot of the client"),
    Field("function", 48, 1, "C", "function id, or 0: each item carries its own"),
    Field("flags", 56, 1, "C", "BUNDLE_*"),
    Field("count", 128, 1, "C", "items there are (S5), in a line of its own"),
)
BUNDLE_STAR: Final = 1  # an item's value is a tuple: call fn(*value)
BUNDLE_CONTROL: Final = 2  # beside running tasks, on one worker: Client.run
MAP_ITEMS_MAX: Final = 65536
OPEN_ITEMS_MAX: Final = 8192

# Item and status words (B2): kind:4 | len:20 | off:40, or kind:4 | signed:60.
KIND_UNSET, KIND_INT, KIND_CONST, KIND_CODEC, KIND_PICKLE, KIND_OBJECT, KIND_EXC, KIND_CANCELLED, KIND_LOST = range(9)
LENGTH_LONG: Final = 0xFFFFF  # the length is a u64 before the bytes

# A function: a block in the client's arena. Its id is serial:24 | offset:40, so that a reused block is another function.
FUNCTION_FIELDS: Final = (
    Field("id", 0, 1, "C", "its own id again: serial << 40 | offset"),
    Field("length", 8, 1, "C", "bytes of cloudpickle"),
    Field("mac", 16, 1, "C", "over the life of its client, id, kind and bytes (B3)"),
    Field("bytes", 24, 0, "C", "cloudpickle"),
)

# In front of every block and chunk that is published (K2). In normal running nobody relies on it (A2).
BLOCK_SIZE: Final = 64
BLOCK_FIELDS: Final = (
    Field("bundle", 0, 1, "O", "bundle (or object) it belongs to"),
    Field("generation", 8, 1, "O", "of that bundle"),
    Field("length", 16, 1, "O", "bytes, with this header"),
    Field("sealed", 24, 1, "O", "BLOCK_SEALED, stored last; 0 before the block is used again"),
)
BLOCK_SEALED: Final = 0x4445_4C41_4553_0001

# Descriptors. Word 0: kind:16 | flags:16 | small:32. The rest by kind; the table is the whole vocabulary.
MESSAGES: Final = {
    "WELCOME": (1, "K E", "incarnation, epoch"),
    "ASK": (2, "E K", "bytes: an arena, please"),
    "ARENA": (3, "K E", "offset, bytes: yours from here on"),
    "REFUSED": (4, "K E, S K", "bytes (E) or offset (K), reason"),
    "COMMIT": (5, "K S", "offset, bytes: back it with memory (M6)"),
    "COMMITTED": (6, "S K", "offset, bytes"),
    "PUNCH": (7, "K S", "offset, bytes: take the pages back (M6)"),
    "RETIRE": (8, "K S", "slot, incarnation: handled its end, the slot may be given again"),
    "OPEN": (9, "C K", "bundle, generation, capacity, flags, incarnation << 16 | slot it is meant for, or 0"),
    "CLOSE": (10, "C K", "bundle, generation: no more items"),
    "RELEASE": (11, "C K", "bundle, generation: futures and views gone"),
    "FORGOT": (12, "K C", "bundle, generation: the block is free (B13)"),
    "GRANT": (13, "K W", "bundle, generation, range id, lo, hi, budget ns"),
    "DONE": (14, "W K", "bundle, generation, range id, next, ns, exceptions, 1 if the bundle could not be read"),
    "BACK": (15, "W K", "bundle, generation, range id, from"),
    "CHUNK": (16, "W K", "bundle, generation, offset, bytes (B4)"),
    "DROP": (17, "K W", "bundle, generation: free your chunks"),
    "CONTROL": (18, "K W", "as GRANT, of a bundle of Client.run: beside running tasks"),
    "RETURN": (20, "E K", "offset, bytes: an arena that holds nothing, yours again (M6)"),
    "EXPEL": (19, "K S", "slot, incarnation: it broke the rules (D5)"),
}
REASON_FULL, REASON_SERVER_DIED, REASON_TOO_LARGE = 1, 2, 3

RECORDS: Final = {
    "header": HEADER_FIELDS,
    "peer": PEER_FIELDS,
    "slot": SLOT_FIELDS,
    "ring": RING_FIELDS,
    "bundle": BUNDLE_FIELDS,
    "function": FUNCTION_FIELDS,
    "block": BLOCK_FIELDS,
}

HEADER: Final = {f.name: f.offset for f in HEADER_FIELDS}
PEER: Final = {f.name: f.offset for f in PEER_FIELDS}
SLOT: Final = {f.name: f.offset for f in SLOT_FIELDS}
RING: Final = {f.name: f.offset for f in RING_FIELDS}
BUNDLE: Final = {f.name: f.offset for f in BUNDLE_FIELDS}
FUNCTION: Final = {f.name: f.offset for f in FUNCTION_FIELDS}
BLOCK: Final = {f.name: f.offset for f in BLOCK_FIELDS}
MSG: Final = {name: number for name, (number, _, _) in MESSAGES.items()}


def slot_at(slot: int) -> int:
    """Offset of a slot's record."""
    return SLOT_TABLE + slot * SLOT_SIZE


def slot_word(slot: int, field: str) -> int:
    """Offset of a word of a slot."""
    return SLOT_TABLE + slot * SLOT_SIZE + SLOT[field]


def peer_word(peer: int, field: str) -> int:
    """Offset of a word of a peer's record."""
    return PEER_TABLE + peer * PEER_SIZE + PEER[field]


def directory_word(source: int, target: int) -> int:
    """Offset of the word that says where `source`'s ring to `target` lies."""
    return slot_word(source, "directory") + WORD * target


def ring_bytes(log2: int) -> int:
    """Bytes of a ring of 2**log2 descriptors."""
    return 2 * LINE + (LINE << log2)


def arena_unit(region_bytes: int) -> int:
    """Bytes in an arena unit: a power of two, 1 MiB at least, at most ARENA_UNITS_MAX of them."""
    return max(MIB, region_bytes // ARENA_UNITS_MAX)


def arena_units(region_bytes: int) -> int:
    """Arena units in the heap of a region of this size."""
    return (region_bytes - HEAP) // arena_unit(region_bytes)


def heap_start(region_bytes: int) -> int:
    """Offset of arena unit 0: the heap, aligned to a unit from the region's end."""
    return region_bytes - arena_units(region_bytes) * arena_unit(region_bytes)


def _check() -> None:
    for record, fields in RECORDS.items():
        end = 0
        for f in fields:
            if f.offset % WORD or f.offset < end:
                raise AssertionError(f"{record}.{f.name} overlaps what stands before it")
            end = f.offset + WORD * f.words
    assert SLOT["uplink"] % LINE == 0 and SLOT["uplink"] + ring_bytes(UPLINK_LOG2) <= SLOT_SIZE
    assert PEER_TABLE + PEERS * PEER_SIZE <= ARENA_TABLE
    assert ARENA_TABLE + ARENA_UNITS_MAX * WORD <= SLOT_TABLE
    assert SLOT_TABLE + SLOTS * SLOT_SIZE <= HEAP < REGION_SIZE_MIN


_check()

_CONSTANTS = (
    "MAGIC FORMAT PEER_TABLE PEERS PEER_SIZE ARENA_TABLE SLOT_TABLE SLOTS SLOT_SIZE CUR_THREADS CONTROL_THREAD LEASES UPLINK_LOG2 HEAP "
    "STATE_FREE STATE_JOINED STATE_VM STATE_LEFT STATE_DEAD STATE_MEMBER WANT_ANY WANT_NOTHING DESCRIPTOR_WORDS RING_LOG2_MAX "
    "BUNDLE_MAGIC BUNDLE_SIZE BLOCK_SIZE BLOCK_SEALED BUNDLE_STAR BUNDLE_CONTROL KIND_UNSET KIND_INT KIND_CONST KIND_CODEC KIND_PICKLE "
    "KIND_OBJECT KIND_EXC KIND_CANCELLED KIND_LOST LENGTH_LONG"
).split()


def c_header() -> str:
    """The text of native/layout.h."""
    out = ["/* Generated from nahanni_compute/region/layout.py: edit that, then run"]
    out += [" *   python -m nahanni_compute.region.layout --write", " */"]
    out += ["#ifndef NAHANNI_LAYOUT_H", "#define NAHANNI_LAYOUT_H", ""]
    out += [f"#define NC_{name} {globals()[name]:#x}ull" for name in _CONSTANTS]
    for record, fields in RECORDS.items():
        out += ["", f"/* {record}: offsets in bytes */"]
        out += [f"#define NC_{record.upper()}_AT_{f.name.upper()} {f.offset}ull /* {f.writer}: {f.meaning} */" for f in fields]
    out += ["", "/* descriptors: kinds */"]
    for name, (number, who, what) in MESSAGES.items():
        out.append(f"#define NC_MSG_{name} {number} /* {who.replace(' ', ' to ', 1)}: {what} */")
    return "\n".join([*out, "", "#endif", ""])


_PLAN = (
    (0, PEER_TABLE, "region header", "S"),
    (PEER_TABLE, PEERS * PEER_SIZE, f"peer table, {PEERS} records of {PEER_SIZE} B", "S"),
    (ARENA_TABLE, ARENA_UNITS_MAX * WORD, "arena table: word i = incarnation << 16 | slot that owns unit i", "K"),
    (SLOT_TABLE, SLOTS * SLOT_SIZE, f"{SLOTS} slots of {SLOT_SIZE} B", "below"),
    (HEAP, "to the end", f"heap, in units of max(1 MiB, size / {ARENA_UNITS_MAX})", "owners"),
)


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def diagram() -> str:
    """The text of docs/protocol/LAYOUT.md."""
    out = ["# The region, word by word", "", "Generated from `nahanni_compute/region/layout.py`."]
    out += ["Offsets in bytes; every word is 8 bytes, little-endian.", "", "| at | bytes | what | writer |", "|---:|---:|---|---|"]
    out += [_row(*line) for line in _PLAN]
    for record, fields in RECORDS.items():
        out += ["", f"## {record}", "", "| at | words | name | writer | meaning |", "|---:|---:|---|---|---|"]
        out += [_row(f.offset, f.words or "…", f"`{f.name}`", f.writer, f.meaning) for f in fields]
    out += ["", "## Descriptors", "", "Word 0: kind:16 \\| flags:16 \\| small:32.", ""]
    out += ["| kind | name | from, to | the other words |", "|---:|---|---|---|"]
    out += [_row(number, f"`{name}`", who, what) for name, (number, who, what) in MESSAGES.items()]
    return "\n".join([*out, ""])


def _write(root: Path) -> None:
    (root / "native/layout.h").write_text(c_header())
    (root / "docs/protocol").mkdir(parents=True, exist_ok=True)
    (root / "docs/protocol/LAYOUT.md").write_text(diagram())


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m nahanni_compute.region.layout --write   (from a checkout)")
    _write(Path(__file__).resolve().parents[2])
