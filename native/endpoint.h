/* Endpoint: one process attached to the region. Its rings, doorbells, waiting and pump.
 *
 * `lock` guards everything here that both the pump and Python threads touch (M5). It is held for moments, never while
 * Python is called and never while the GIL is waited for, so a holder of the GIL may take it.
 */
#ifndef NAHANNI_ENDPOINT_H
#define NAHANNI_ENDPOINT_H

#include <pthread.h>
#include <unistd.h>

#include "region.h"

typedef struct Bundle Bundle;

typedef struct {
    u64 source; /* slot */
    u64 w[NC_DESCRIPTOR_WORDS];
} Message;

/* A growable FIFO of messages, process-local. queue.c */
typedef struct {
    Message *at;
    u64 room; /* power of two, or 0 */
    u64 first;
    u64 next;
} Queue;

int queue_push(Queue *q, const Message *m);
int queue_pop(Queue *q, Message *m);
static inline u64 queue_length(const Queue *q)
{
    return q->next - q->first;
}
void queue_free(Queue *q);

/* A ring's two ends. ring.c */
typedef struct {
    int open;
    u64 peer; /* slot */
    char *memory;
    u64 slots;
    u64 head;
} RingIn;

typedef struct {
    int open;
    u64 peer;
    char *memory;
    u64 slots;
    u64 tail;      /* written, perhaps not yet published */
    u64 published;
    u64 head_seen;
    Queue waiting; /* R5: what found no room */
} RingOut;

enum { RING_OK = 0, RING_VIOLATED = -1 };
int ring_take(RingIn *in, Queue *to);                /* R2, R3; messages taken, or RING_VIOLATED */
int ring_put(RingOut *out, const u64 *words);        /* 1 written, 0 no room, or RING_VIOLATED */
int ring_publish(RingOut *out);                      /* 1 if there was something to publish */
static inline int ring_has_mail(const RingIn *in)
{
    return in->open && load_acquire(in->memory + NC_RING_AT_TAIL) != in->head;
}

/* Doors: how to ring others, and our own bell. door.c */
#define VECTORS_MAX 8
typedef struct {
    int fd[VECTORS_MAX]; /* -1: none */
} Door;

typedef struct {
    volatile uint32_t *doorbell; /* uio: the register; else 0 */
    Door **by_peer;              /* unix: eventfds, by ivshmem id */
    int notices;                 /* unix: the server's socket, whose notices bring eventfds; -1 */
    int server_gone;
    int bell;                    /* readable when we were rung */
    int bell_bytes;              /* 8 for an eventfd, 4 for a uio device */
    u64 rung[NC_SLOTS];          /* S2: the seq for which we rang last, by slot */
} Doors;

/* A range that an executor thread is in. The cursor is one process-local word, next:32 | limit:32, moved by
 * compare-and-swap: the mutex of B7 and of back.pml in its cheapest form. Nothing of the region is decided by it. */
typedef struct {
    a64 cursor;
    a64 began_ns; /* 0: no range */
    u64 range_id;
    u64 bundle;
    u64 generation;
    int backed;   /* BACK was said for this range */
} Running;

typedef struct Endpoint {
    PyObject_HEAD
    Region *region;
    u64 slot;
    u64 incarnation;
    char *words; /* our slot */
    int closed;
    int forked;
    struct Endpoint *next; /* all of this process, for the fork handler */

    pthread_mutex_t lock;
    RingIn *in;
    u64 n_in;
    RingOut *out;
    u64 n_out;
    Queue inbox;   /* taken from rings, not yet given to Python */
    Queue granted; /* GRANTs among them, in order: the pump may give them back (B7) */
    int server_told; /* a wait has ended with WAIT_SERVER */
    int violated;  /* slot + 1 of a peer that broke R3, 0: none */
    Doors doors;
    Running running[NC_CUR_THREADS];

    /* waiting, wait.c */
    pthread_cond_t turned;
    int waiters; /* Python threads in wait(); one of them leads */
    int led;
    int sleepers; /* threads of ours that poll the bell: seq is odd while there are any */
    int nudge;    /* eventfd: the pump tells the leader */
    u64 any_ns;   /* when a leader that waits for anything was last woken (S7) */
    Bundle **tracked;
    u64 n_tracked;
    u64 *watched; /* offsets of words whose change ends a wait */
    u64 *watched_value;
    u64 n_watched;
    u64 rings;
    u64 wakes;
    u64 rescues;
    u64 sleeps;

    /* pump, pump.c */
    pthread_t pump;
    int pumping;
    int stopping;
    int poke;  /* eventfd: the pump must look up */
    int timer; /* timerfd: somebody has been busy for 2 ms */
    int armed;
    int at_bell; /* the pump polls our bell */
    int lifeline;
    int expelled;      /* D4: the state table says that we are no member any more */
    u64 keeper;        /* slot from which the last GRANT came */
    u64 busy_since_ns; /* last time a Python thread stopped waiting */
    u64 urgent;        /* bit k: kind k calls `callback` when no thread waits */
    PyObject *callback;
    int errand; /* a finalizer left something for `callback` to do */
} Endpoint;

extern PyTypeObject *EndpointType;

int endpoint_usable(Endpoint *e); /* 0 with ClosedError or ForkedEndpoint set */

/* All with `lock` held. messages.c */
int endpoint_send(Endpoint *e, u64 target, const u64 *words);
void endpoint_flush(Endpoint *e);
int endpoint_drain(Endpoint *e); /* rings -> inbox and granted; messages moved */

/* door.c: no lock needed but where it says */
void door_ring(Endpoint *e, u64 slot, u64 seq);      /* unconditionally, and remembers seq */
void door_check(Endpoint *e, u64 slot);              /* S2: fence, look at seq, ring once for each odd value */
int doors_read_notices(Endpoint *e);                 /* with lock */
int bell_consume(Endpoint *e);

/* S7: ring the owner of a bundle if it sleeps for one of lo..hi. 1 if it rang. wait.c */
int endpoint_tell(Endpoint *e, u64 owner, u64 bundle, u64 lo, u64 hi);

/* Sleep until item `index` of `bundle` has a status, or something else came. wait.c
 * Returns WAIT_* bits, 0 for the deadline, or -1 with a Python exception. Called with the GIL, gives it up inside. */
enum { WAIT_MAIL = 1, WAIT_COUNT = 2, WAIT_STATUS = 4, WAIT_WATCHED = 8, WAIT_SERVER = 16 };
int endpoint_wait(Endpoint *e, Bundle *bundle, u64 index, double timeout_s, u64 first_block_ns);

/* The next index of the range that thread k is in, or ~0 at its limit. The whole of "before each item" in B7. run.c */
static inline u64 running_next(Running *r)
{
    u64 c = atomic_load_explicit(&r->cursor, memory_order_relaxed);
    for (;;) {
        u64 next = c >> 32;
        if (next >= (c & 0xffffffffu))
            return ~0ull;
        if (atomic_compare_exchange_weak(&r->cursor, &c, c + (1ull << 32)))
            return next;
    }
}

/* limit = next; returns it: the first index not begun. For the pump (B7: then, and only then, BACK). */
static inline u64 running_limit(Running *r)
{
    u64 c = atomic_load(&r->cursor);
    for (;;) {
        u64 next = c >> 32;
        if (next >= (c & 0xffffffffu))
            return c & 0xffffffffu;
        if (atomic_compare_exchange_weak(&r->cursor, &c, next << 32 | next))
            return next;
    }
}

static inline void eventfd_signal(int fd)
{
    u64 one = 1;
    ssize_t n = write(fd, &one, sizeof one);
    (void)n; /* full means signalled often enough */
}

static inline void eventfd_empty(int fd)
{
    u64 count;
    ssize_t n = read(fd, &count, sizeof count);
    (void)n; /* non-blocking: empty already is as good */
}

/* wait.c, with lock: seq as S1 has it, for any number of threads of ours */
void sleep_begin(Endpoint *e);
void sleep_end(Endpoint *e);

/* pump.c */
void pump_arm(Endpoint *e); /* with lock: a Python thread went to work; the pump looks in 2 ms later */
int pump_start(Endpoint *e);
void pump_stop(Endpoint *e); /* without lock, with the GIL */

int door_add(Doors *d, u64 peer, u64 vector, int fd); /* owns fd */
void doors_free(Doors *d);

#endif
