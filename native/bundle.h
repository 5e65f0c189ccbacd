/* Bundle: an array of tasks in the region (section 8), seen from one process. */
#ifndef NAHANNI_BUNDLE_H
#define NAHANNI_BUNDLE_H

#include "endpoint.h"

struct Bundle {
    PyObject_HEAD
    Endpoint *endpoint;
    u64 offset;
    u64 generation;
    u64 capacity;
    u64 owner; /* slot */
    u64 function;
    u64 flags;
    a64 *items;
    a64 *statuses;
    a64 *count;
    u64 n;     /* client: items written. keeper: the count it acted on last */
    u64 at;    /* where this process writes payloads: arguments (C) or results (W) */
    u64 end;
    PyObject *alloc;    /* alloc(bytes) -> (offset, bytes), when at..end is used up */
    PyObject *callable; /* last function used, of items that carry their own */
    u64 callable_id;
    char *scratch; /* payloads are copied here, checked, then decoded (decision 10) */
    u64 scratch_room;
    int shut; /* CLOSE was said, or is about to be: no item may come after the keeper's last look at the count */
    u64 weight; /* bytes of payloads that this process gave it, or read of it: an open one that is heavy is full (B13) */
    u64 rang_ns; /* S6 */
    u64 unrung;
};

#define OPEN_WEIGHT_MAX (4u << 20) /* one future keeps its whole bundle: let it not keep much */
static inline int bundle_is_heavy(const Bundle *b)
{
    return b->n && b->weight >= OPEN_WEIGHT_MAX;
}

typedef struct {
    PyObject_HEAD
    Bundle *bundle;
    u64 index;
} Future;

extern PyTypeObject *BundleType;
extern PyTypeObject *FutureType;

/* encode.c, payload.c */
enum { DIRECTION_ITEM = 0, DIRECTION_STATUS = 16 }; /* added to the kind under a MAC: a result cannot pose as an argument */

/* value -> word, payload at b->at. `function`: 0, or an id put first. 1, or 0 with an exception. */
int value_put(Bundle *b, PyObject *value, u64 index, u64 direction, u64 function, u64 *word);

/* bytes under a MAC -> word of that kind. 1, or 0 with an exception. */
int bytes_put(Bundle *b, u64 kind, const char *bytes, u64 n, u64 index, u64 direction, u64 function, u64 *word);

/* word -> new reference; raises what an EXC, CANCELLED or LOST word says, RegionCorrupt for garbage. `function`: 0, or where
 * to store the id that stands first. */
PyObject *value_get(Bundle *b, u64 word, u64 index, u64 direction, u64 *function);

/* An EXC, CANCELLED or LOST status -> the exception it stands for, a new reference; NULL with another one raised. */
PyObject *exception_get(Bundle *b, u64 word, u64 index);

static inline int is_failure(u64 word)
{
    return word_kind(word) >= NC_KIND_EXC && word_kind(word) <= NC_KIND_LOST;
}

/* future.c */
Future *future_make(Bundle *b, u64 index);

/* bundle.c */
int bundle_index(Bundle *b, PyObject *v, u64 *index); /* checked against the capacity */
int bundle_range(Bundle *b, PyObject *lo, PyObject *hi, u64 range[2]);
PyObject *lent_call(PyObject *lent_callable, PyObject *argument);
PyObject *raise_corrupt(const char *format, ...);
PyObject *raise_refused(const char *format, ...);

/* Asked at the entry of whatever touches the region, and again after Python code ran, which may close the endpoint or fork. */
static inline int bundle_usable(const Bundle *b)
{
    return !(b->endpoint->closed | b->endpoint->forked) || endpoint_usable(b->endpoint);
}

/* S7, from any thread with the GIL: ring the owner if it sleeps for one of lo..hi. */
static inline void bundle_tell(Bundle *b, u64 lo, u64 hi)
{
    Endpoint *e = b->endpoint;
    u64 seq = load_relaxed(slot_words(e->region, b->owner) + NC_SLOT_AT_SEQ);
    if (!(seq & 1) || seq == e->doors.rung[b->owner])
        return;
    pthread_mutex_lock(&e->lock); /* a notice may take its door away just now */
    endpoint_tell(e, b->owner, b->offset, lo, hi);
    pthread_mutex_unlock(&e->lock);
}

/* items.c: what the client writes. METH_FASTCALL methods of Bundle */
PyObject *bundle_fill(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *bundle_append(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *bundle_ring(PyObject *self, PyObject *const *v, Py_ssize_t n);

/* statuses.c: what is read of outcomes, and what the keeper stores */
PyObject *bundle_status(PyObject *self, PyObject *index);
PyObject *bundle_value(PyObject *self, PyObject *index);
PyObject *bundle_gather(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *bundle_count(PyObject *self, PyObject *unused);
PyObject *bundle_unset(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *bundle_lose(PyObject *self, PyObject *index);

/* run.c: METH_FASTCALL method of Bundle */
PyObject *bundle_run(PyObject *self, PyObject *const *v, Py_ssize_t n);

extern PyType_Spec bundle_spec;
extern PyType_Spec future_spec;

#endif
