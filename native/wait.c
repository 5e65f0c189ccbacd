/* Waiting (section 3).
 *
 * S1: seq odd; fence; look again at all we may be woken for; block for at most 250 ms; seq even.
 * S6: after work was found the first block may be short; each further one doubles.
 * S7: want says what the client waits for. Several waiting threads have one leader, which waits for anything.
 * Only the leader polls the bell; the others wait for its turn to end. The pump steps back while anybody waits here.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "bundle.h"

#define BLOCK_NS_MAX 250000000ull
#define ANY_GAP_NS 500000ull

void sleep_begin(Endpoint *e)
{
    u64 seq = load_relaxed(e->words + NC_SLOT_AT_SEQ);
    /* a second sleeper needs a new odd value: the old one may have been rung for already (S2) */
    store_release(e->words + NC_SLOT_AT_SEQ, seq + (e->sleepers ? 2 : 1));
    e->sleepers++;
    fence();
}

void sleep_end(Endpoint *e)
{
    e->sleepers--;
    if (!e->sleepers)
        store_release(e->words + NC_SLOT_AT_SEQ, load_relaxed(e->words + NC_SLOT_AT_SEQ) + 1);
}

static int any_mail(Endpoint *e)
{
    if (queue_length(&e->inbox) || queue_length(&e->granted))
        return 1;
    for (u64 i = 0; i < e->n_in; i++) {
        if (ring_has_mail(&e->in[i]))
            return 1;
    }
    return 0;
}

static int any_count(Endpoint *e)
{
    for (u64 i = 0; i < e->n_tracked; i++) {
        if (load_acquire(e->tracked[i]->count) != e->tracked[i]->n)
            return 1;
    }
    return 0;
}

static int any_watched(Endpoint *e)
{
    for (u64 i = 0; i < e->n_watched; i++) {
        if (load_acquire(e->region->base + e->watched[i]) != e->watched_value[i])
            return 1;
    }
    return 0;
}

static int look(Endpoint *e, Bundle *bundle, u64 index)
{
    int bits = 0;
    if (any_mail(e))
        bits |= WAIT_MAIL;
    if (any_count(e))
        bits |= WAIT_COUNT;
    if (bundle && load_acquire(&bundle->statuses[index]))
        bits |= WAIT_STATUS;
    if (any_watched(e))
        bits |= WAIT_WATCHED;
    return bits;
}

/* Anything that came ends a wait: mail and deaths are for the waiter to handle. */
static int satisfied(Endpoint *e, Bundle *bundle, u64 index)
{
    int bits = look(e, bundle, index);
    if (e->closed)
        bits |= WAIT_SERVER;
    return bits;
}

static void want_store(Endpoint *e, Bundle *bundle, u64 index)
{
    u64 offset = NC_WANT_NOTHING;
    if (e->waiters > 1) {
        offset = NC_WANT_ANY;
        index = NC_WANT_ANY;
    } else if (bundle) {
        offset = bundle->offset;
    }
    store_release(e->words + NC_SLOT_AT_WANT_INDEX, index);
    store_release(e->words + NC_SLOT_AT_WANT_BUNDLE, offset);
}

static struct timespec timespec_of(u64 ns)
{
    struct timespec t = {(time_t)(ns / 1000000000ull), (long)(ns % 1000000000ull)};
    return t;
}

/* One block, with `lock` held on entry and exit. Returns 0, or EINTR. */
static int block(Endpoint *e, Bundle *bundle, u64 index, u64 ns)
{
    struct pollfd fds[2] = {{e->doors.bell, POLLIN, 0}, {e->nudge, POLLIN, 0}};
    struct timespec t = timespec_of(ns);
    int interrupted = 0;
    want_store(e, bundle, index);
    sleep_begin(e);
    if (!look(e, bundle, index) && !e->closed) {
        e->sleeps++;
        pthread_mutex_unlock(&e->lock);
        int ready = ppoll(fds, 2, &t, NULL);
        interrupted = ready < 0 && errno == EINTR;
        int rang = ready > 0 && (fds[0].revents & POLLIN) && bell_consume(e);
        if (ready > 0 && (fds[1].revents & POLLIN))
            eventfd_empty(e->nudge);
        pthread_mutex_lock(&e->lock);
        if (rang)
            e->wakes++;
        else if (ready == 0 && look(e, bundle, index))
            e->rescues++;
    }
    sleep_end(e);
    return interrupted ? EINTR : 0;
}

/* S7: who waits for anything is woken often; it looks no more often than every 0.5 ms. */
static void any_gap(Endpoint *e)
{
    u64 now = now_ns();
    if (e->waiters > 1 && now - e->any_ns < ANY_GAP_NS) {
        struct timespec t = timespec_of(ANY_GAP_NS - (now - e->any_ns));
        pthread_mutex_unlock(&e->lock);
        nanosleep(&t, NULL);
        pthread_mutex_lock(&e->lock);
    }
    e->any_ns = now_ns();
}

static int lead(Endpoint *e, Bundle *bundle, u64 index, u64 ns)
{
    e->led = 1;
    int interrupted = block(e, bundle, index, ns);
    if (e->waiters > 1)
        any_gap(e);
    e->led = 0;
    if (e->waiters > 1)
        pthread_cond_broadcast(&e->turned);
    return interrupted;
}

/* The leader sleeps for an item of its own: let it be woken for anything, then look once more (want.pml, WANT_LATE). */
static void follow(Endpoint *e, Bundle *bundle, u64 index, u64 ns)
{
    want_store(e, bundle, index);
    fence();
    if (look(e, bundle, index))
        return;
    struct timespec until = timespec_of(now_ns() + ns);
    pthread_cond_timedwait(&e->turned, &e->lock, &until);
}

/* With the GIL given up. Returns bits, 0 at the deadline, or -EINTR when signals should be looked at. */
static int wait_until(Endpoint *e, Bundle *bundle, u64 index, u64 deadline, u64 *block_ns)
{
    for (;;) {
        int bits = satisfied(e, bundle, index);
        u64 now = now_ns();
        if (bits || now >= deadline)
            return bits;
        u64 ns = *block_ns < deadline - now ? *block_ns : deadline - now;
        *block_ns = *block_ns * 2 < BLOCK_NS_MAX ? *block_ns * 2 : BLOCK_NS_MAX;
        if (e->led) {
            follow(e, bundle, index, ns);
            return -EINTR; /* condition variables do not end at signals: look at them now */
        }
        if (lead(e, bundle, index, ns) == EINTR || ns == BLOCK_NS_MAX)
            return -EINTR; /* also after a long block: a signal may have come between giving up the GIL and blocking */
        if (e->doors.server_gone && !e->server_told) {
            e->server_told = 1; /* once: it is news, not a state to wake up for */
            return WAIT_SERVER;
        }
    }
}

int endpoint_wait(Endpoint *e, Bundle *bundle, u64 index, double timeout_s, u64 first_block_ns)
{
    u64 deadline = timeout_s < 0 || timeout_s > 1e9 ? ~0ull : now_ns() + (u64)(timeout_s * 1e9);
    u64 block_ns = first_block_ns < BLOCK_NS_MAX ? first_block_ns : BLOCK_NS_MAX;
    PyThreadState *state = PyEval_SaveThread();
    pthread_mutex_lock(&e->lock);
    e->waiters++;
    if (e->at_bell)
        eventfd_signal(e->poke);
    int bits = wait_until(e, bundle, index, deadline, &block_ns);
    e->waiters--;
    if (e->waiters || e->closed)
        pthread_cond_broadcast(&e->turned); /* somebody else must lead */
    e->busy_since_ns = now_ns();
    pump_arm(e);
    pthread_mutex_unlock(&e->lock);
    PyEval_RestoreThread(state);
    if (bits == -EINTR) {
        if (PyErr_CheckSignals() < 0)
            return -1;
        bits = 0; /* a handler may have changed what the caller waits for: let it look */
    }
    if (e->closed && !endpoint_usable(e))
        return -1;
    return bits;
}

static int wants(u64 bundle, u64 index, u64 offset, u64 lo, u64 hi)
{
    if (bundle == NC_WANT_ANY)
        return 1;
    return bundle == offset && (index == NC_WANT_ANY || (index >= lo && index < hi));
}

int endpoint_tell(Endpoint *e, u64 owner, u64 bundle, u64 lo, u64 hi)
{
    char *words = slot_words(e->region, owner);
    u64 seq = load_relaxed(words + NC_SLOT_AT_SEQ);
    if (!(seq & 1) || seq == e->doors.rung[owner])
        return 0;
    u64 want = load_acquire(words + NC_SLOT_AT_WANT_BUNDLE);
    u64 index = load_relaxed(words + NC_SLOT_AT_WANT_INDEX);
    if (!wants(want, index, bundle, lo, hi))
        return 0;
    door_ring(e, owner, seq);
    return 1;
}
