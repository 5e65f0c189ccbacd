/* Sending and taking, over all rings of an endpoint. All with `lock` held.
 *
 * R5: nobody waits for room. What finds none goes to a FIFO of its destination; the pump retries.
 */
#include "endpoint.h"

static RingOut *out_to(Endpoint *e, u64 target)
{
    for (u64 i = 0; i < e->n_out; i++) {
        if (e->out[i].open && e->out[i].peer == target)
            return &e->out[i];
    }
    return NULL;
}

static void violation(Endpoint *e, u64 peer)
{
    e->violated = (int)peer + 1;
}

int endpoint_send(Endpoint *e, u64 target, const u64 *words)
{
    RingOut *out = out_to(e, target);
    if (!out)
        return -1;
    if (!queue_length(&out->waiting)) {
        int put = ring_put(out, words);
        if (put == 1)
            return 0;
        if (put == RING_VIOLATED) {
            violation(e, target);
            return 0; /* D5: its rings are ignored */
        }
    }
    Message m;
    m.source = target;
    for (int i = 0; i < (int)NC_DESCRIPTOR_WORDS; i++)
        m.w[i] = words[i];
    return queue_push(&out->waiting, &m);
}

static void out_refill(Endpoint *e, RingOut *out)
{
    while (queue_length(&out->waiting)) {
        const Message *m = &out->waiting.at[out->waiting.first & (out->waiting.room - 1)];
        int put = ring_put(out, m->w);
        if (put == RING_VIOLATED)
            violation(e, out->peer);
        if (put != 1)
            return;
        out->waiting.first++;
    }
}

void endpoint_flush(Endpoint *e)
{
    for (u64 i = 0; i < e->n_out; i++) {
        RingOut *out = &e->out[i];
        if (!out->open)
            continue;
        out_refill(e, out);
        if (ring_publish(out))
            door_check(e, out->peer);
    }
}

/* GRANTs wait in a queue of their own, in order, so that the pump can give back those not begun (B7). */
static void sort_grants(Endpoint *e, u64 from)
{
    u64 mask = e->inbox.room - 1;
    u64 keep = from;
    for (u64 i = from; i < e->inbox.next; i++) {
        Message m = e->inbox.at[i & mask];
        if ((m.w[0] & 0xffff) == NC_MSG_GRANT && queue_push(&e->granted, &m) == 0)
            continue;
        e->inbox.at[keep & mask] = m;
        keep++;
    }
    e->inbox.next = keep;
}

int endpoint_drain(Endpoint *e)
{
    int moved = 0;
    for (u64 i = 0; i < e->n_in; i++) {
        RingIn *in = &e->in[i];
        if (!ring_has_mail(in))
            continue;
        u64 length = queue_length(&e->inbox);
        int n = ring_take(in, &e->inbox);
        if (n == RING_VIOLATED) {
            if (e->violated)
                continue; /* one at a time: this one is found again */
            violation(e, in->peer);
            in->open = 0;
            continue;
        }
        moved += n;
        sort_grants(e, e->inbox.first + length);
    }
    return moved;
}
