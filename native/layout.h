/* Generated from nahanni_compute/region/layout.py: edit that, then run
 *   python -m nahanni_compute.region.layout --write
 */
#ifndef NAHANNI_LAYOUT_H
#define NAHANNI_LAYOUT_H

#define NC_MAGIC 0x494e4e4148414e01ull
#define NC_FORMAT 0x1ull
#define NC_PEER_TABLE 0x10000ull
#define NC_PEERS 0x10000ull
#define NC_PEER_SIZE 0x20ull
#define NC_ARENA_TABLE 0x300000ull
#define NC_SLOT_TABLE 0x400000ull
#define NC_SLOTS 0x400ull
#define NC_SLOT_SIZE 0x8000ull
#define NC_CUR_THREADS 0x40ull
#define NC_CONTROL_THREAD 0x3full
#define NC_LEASES 0x400ull
#define NC_UPLINK_LOG2 0x7ull
#define NC_HEAP 0x2400000ull
#define NC_STATE_FREE 0x0ull
#define NC_STATE_JOINED 0x1ull
#define NC_STATE_VM 0x2ull
#define NC_STATE_LEFT 0x3ull
#define NC_STATE_DEAD 0x4ull
#define NC_STATE_MEMBER 0x5ull
#define NC_WANT_ANY 0xffffffffffffffffull
#define NC_WANT_NOTHING 0x0ull
#define NC_DESCRIPTOR_WORDS 0x8ull
#define NC_RING_LOG2_MAX 0x10ull
#define NC_BUNDLE_MAGIC 0x454c444e55424e01ull
#define NC_BUNDLE_SIZE 0x100ull
#define NC_BLOCK_SIZE 0x40ull
#define NC_BLOCK_SEALED 0x44454c4145530001ull
#define NC_BUNDLE_STAR 0x1ull
#define NC_BUNDLE_CONTROL 0x2ull
#define NC_KIND_UNSET 0x0ull
#define NC_KIND_INT 0x1ull
#define NC_KIND_CONST 0x2ull
#define NC_KIND_CODEC 0x3ull
#define NC_KIND_PICKLE 0x4ull
#define NC_KIND_OBJECT 0x5ull
#define NC_KIND_EXC 0x6ull
#define NC_KIND_CANCELLED 0x7ull
#define NC_KIND_LOST 0x8ull
#define NC_LENGTH_LONG 0xfffffull

/* header: offsets in bytes */
#define NC_HEADER_AT_MAGIC 0ull /* S: MAGIC, stored last when the region is made */
#define NC_HEADER_AT_FORMAT 8ull /* S: FORMAT */
#define NC_HEADER_AT_SIZE 16ull /* S: bytes in the region */
#define NC_HEADER_AT_CLUSTER 24ull /* S: random, tells one region's life from another's */
#define NC_HEADER_AT_ARENA_UNIT 32ull /* S: bytes in an arena unit */
#define NC_HEADER_AT_ARENA_UNITS 40ull /* S: units in the heap */
#define NC_HEADER_AT_KEEPER 64ull /* S: epoch << 16 | slot of the keeper; 0: none yet */
#define NC_HEADER_AT_MEMBERS 128ull /* S: +1 at each change of the peer table or of an S word in a slot */
#define NC_HEADER_AT_SLOTS_USED 136ull /* S: no slot at or above this was ever given out */

/* peer: offsets in bytes */
#define NC_PEER_AT_STATE 0ull /* S: PEER_* */
#define NC_PEER_AT_SLOTS 8ull /* S: first slot << 32 | number of slots */
#define NC_PEER_AT_VECTORS 16ull /* S: doorbell vectors of this peer */

/* slot: offsets in bytes */
#define NC_SLOT_AT_S_STATE 0ull /* S: incarnation << 8 | STATE_*; of a VM's slot: STATE_VM, or STATE_DEAD */
#define NC_SLOT_AT_PEER 8ull /* S: ivshmem id this slot belongs to */
#define NC_SLOT_AT_N_STATE 64ull /* N: incarnation << 8 | STATE_DEAD: its death, proved within one kernel (D2) */
#define NC_SLOT_AT_E_STATE 128ull /* E: incarnation << 8 | STATE_MEMBER, STATE_LEFT; the last store of a member */
#define NC_SLOT_AT_BELL 136ull /* E: peer << 16 | vector: where to ring */
#define NC_SLOT_AT_HEARTBEAT 192ull /* E: +1 at each turn of the pump */
#define NC_SLOT_AT_SEQ 256ull /* E: odd: may be blocked (S1) */
#define NC_SLOT_AT_WANT_BUNDLE 320ull /* E: offset of the bundle waited for, or WANT_ANY (S7) */
#define NC_SLOT_AT_WANT_INDEX 328ull /* E: item waited for, or WANT_ANY */
#define NC_SLOT_AT_RINGS 384ull /* E: doorbells rung */
#define NC_SLOT_AT_WAKES 392ull /* E: blocks ended by a bell */
#define NC_SLOT_AT_RESCUES 400ull /* E: work found by a block that timed out */
#define NC_SLOT_AT_SLEEPS 408ull /* E: blocks begun */
#define NC_SLOT_AT_ROLE 512ull /* E: ROLE_* */
#define NC_SLOT_AT_PID 520ull /* E: in its own kernel; for people, never acted on by others */
#define NC_SLOT_AT_THREADS 528ull /* E: executor threads */
#define NC_SLOT_AT_PYTHON 536ull /* E: sys.hexversion */
#define NC_SLOT_AT_BOOT 544ull /* E: boot id of its kernel */
#define NC_SLOT_AT_NAME 576ull /* E: UTF-8, zero-padded */
#define NC_SLOT_AT_HOST 640ull /* E: UTF-8, zero-padded */
#define NC_SLOT_AT_SUBSTRATE 704ull /* E: UTF-8, zero-padded */
#define NC_SLOT_AT_CUR 1024ull /* E: per executor thread: bundle, item + 1; read after death only (B11) */
#define NC_SLOT_AT_LEASE 2048ull /* E: objects held; evidence for fail-over, never on a hot path (5.3) */
#define NC_SLOT_AT_DIRECTORY 10240ull /* E: word j: where this slot's ring to slot j lies: offset | log2 slots */
#define NC_SLOT_AT_UPLINK 18432ull /* E: its first ring, to the keeper */

/* ring: offsets in bytes */
#define NC_RING_AT_TAIL 0ull /* P: messages ever published */
#define NC_RING_AT_READER 8ull /* P: incarnation of Q that this ring is for */
#define NC_RING_AT_START 16ull /* P: the tail at which that incarnation starts to read (R6) */
#define NC_RING_AT_HEAD 64ull /* Q: messages ever taken; no other acknowledgement exists (R4) */
#define NC_RING_AT_SLOTS 128ull /* P: descriptors of 64 bytes */

/* bundle: offsets in bytes */
#define NC_BUNDLE_AT_MAGIC 0ull /* C: BUNDLE_MAGIC, stored last */
#define NC_BUNDLE_AT_GENERATION 8ull /* C: with the offset, the bundle's name */
#define NC_BUNDLE_AT_CAPACITY 16ull /* C: items there is room for */
#define NC_BUNDLE_AT_ITEMS 24ull /* C: offset of the item words */
#define NC_BUNDLE_AT_STATUSES 32ull /* C: offset of the status words */
#define NC_BUNDLE_AT_OWNER 40ull /* C: slot of the client */
#define NC_BUNDLE_AT_FUNCTION 48ull /* C: function id, or 0: each item carries its own */
#define NC_BUNDLE_AT_FLAGS 56ull /* C: BUNDLE_* */
#define NC_BUNDLE_AT_COUNT 128ull /* C: items there are (S5), in a line of its own */

/* function: offsets in bytes */
#define NC_FUNCTION_AT_ID 0ull /* C: its own id again: serial << 40 | offset */
#define NC_FUNCTION_AT_LENGTH 8ull /* C: bytes of cloudpickle */
#define NC_FUNCTION_AT_MAC 16ull /* C: over the life of its client, id, kind and bytes (B3) */
#define NC_FUNCTION_AT_BYTES 24ull /* C: cloudpickle */

/* block: offsets in bytes */
#define NC_BLOCK_AT_BUNDLE 0ull /* O: bundle (or object) it belongs to */
#define NC_BLOCK_AT_GENERATION 8ull /* O: of that bundle */
#define NC_BLOCK_AT_LENGTH 16ull /* O: bytes, with this header */
#define NC_BLOCK_AT_SEALED 24ull /* O: BLOCK_SEALED, stored last; 0 before the block is used again */

/* descriptors: kinds */
#define NC_MSG_WELCOME 1 /* K to E: incarnation, epoch */
#define NC_MSG_ASK 2 /* E to K: bytes: an arena, please */
#define NC_MSG_ARENA 3 /* K to E: offset, bytes: yours from here on */
#define NC_MSG_REFUSED 4 /* K to E, S K: bytes (E) or offset (K), reason */
#define NC_MSG_COMMIT 5 /* K to S: offset, bytes: back it with memory (M6) */
#define NC_MSG_COMMITTED 6 /* S to K: offset, bytes */
#define NC_MSG_PUNCH 7 /* K to S: offset, bytes: take the pages back (M6) */
#define NC_MSG_RETIRE 8 /* K to S: slot, incarnation: handled its end, the slot may be given again */
#define NC_MSG_OPEN 9 /* C to K: bundle, generation, capacity, flags, incarnation << 16 | slot it is meant for, or 0 */
#define NC_MSG_CLOSE 10 /* C to K: bundle, generation: no more items */
#define NC_MSG_RELEASE 11 /* C to K: bundle, generation: futures and views gone */
#define NC_MSG_FORGOT 12 /* K to C: bundle, generation: the block is free (B13) */
#define NC_MSG_GRANT 13 /* K to W: bundle, generation, range id, lo, hi, budget ns */
#define NC_MSG_DONE 14 /* W to K: bundle, generation, range id, next, ns, exceptions, 1 if the bundle could not be read */
#define NC_MSG_BACK 15 /* W to K: bundle, generation, range id, from */
#define NC_MSG_CHUNK 16 /* W to K: bundle, generation, offset, bytes (B4) */
#define NC_MSG_DROP 17 /* K to W: bundle, generation: free your chunks */
#define NC_MSG_CONTROL 18 /* K to W: as GRANT, of a bundle of Client.run: beside running tasks */
#define NC_MSG_RETURN 20 /* E to K: offset, bytes: an arena that holds nothing, yours again (M6) */
#define NC_MSG_EXPEL 19 /* K to S: slot, incarnation: it broke the rules (D5) */

#endif
