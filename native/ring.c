/* The two ends of a ring (section 2): R1 counters that only grow, R2 slots before tail and copied out before head,
 * R3 violations, R6 a new incarnation goes on where its ancestor stopped.
 */
#include <string.h>

#include "endpoint.h"

#define BATCH 64

static char *slot_of(char *memory, u64 slots, u64 counter)
{
    return memory + NC_RING_AT_SLOTS + (counter & (slots - 1)) * NC_DESCRIPTOR_WORDS * 8;
}

int ring_take(RingIn *in, Queue *to)
{
    u64 tail = load_acquire(in->memory + NC_RING_AT_TAIL);
    u64 n = tail - in->head;
    if (n > in->slots)
        return RING_VIOLATED; /* R3: too far ahead, or gone back */
    for (u64 done = 0; done < n;) {
        u64 batch = n - done < BATCH ? n - done : BATCH;
        for (u64 i = 0; i < batch; i++) {
            Message m;
            m.source = in->peer;
            memcpy(m.w, slot_of(in->memory, in->slots, in->head + i), sizeof m.w);
            if (queue_push(to, &m) < 0)
                batch = i; /* no memory: what is not taken stays in the ring */
        }
        if (batch == 0)
            return (int)done;
        done += batch;
        in->head += batch;
        store_release(in->memory + NC_RING_AT_HEAD, in->head); /* R2, R4: the only acknowledgement, after the last copy */
    }
    return (int)n;
}

/* 1 if there is room, 0, or RING_VIOLATED */
static int ring_room(RingOut *out)
{
    if (out->tail - out->head_seen < out->slots)
        return 1;
    u64 head = load_acquire(out->memory + NC_RING_AT_HEAD);
    if (head - out->head_seen > out->slots || out->tail - head > out->slots)
        return RING_VIOLATED; /* R3: head <= tail, and it does not go back */
    out->head_seen = head;
    return out->tail - head < out->slots;
}

int ring_put(RingOut *out, const u64 *words)
{
    int room = ring_room(out);
    if (room != 1)
        return room;
    memcpy(slot_of(out->memory, out->slots, out->tail), words, NC_DESCRIPTOR_WORDS * 8);
    out->tail++;
    return 1;
}

int ring_publish(RingOut *out)
{
    if (out->published == out->tail)
        return 0;
    store_release(out->memory + NC_RING_AT_TAIL, out->tail);
    out->published = out->tail;
    return 1;
}
