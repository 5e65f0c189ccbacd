/* What the client writes into a bundle: item words, the count, and whom it rings.
 *
 * S5: the count is the message; it is published after the items that it includes, and grows only.
 * S6: the ring of an append may be put off, for 50 us and 64 items; it is owed, and paid at the next append or before a wait.
 */
#include "arguments.h"
#include "bundle.h"

#define PUBLISH_EVERY 1024
#define UNRUNG_MAX 64

enum { ADD_FAILED = -1, ADD_FULL = 0, ADD_DONE = 1 };

static int is_ours(Bundle *b)
{
    if (!bundle_usable(b))
        return 0;
    if (b->owner == b->endpoint->slot)
        return 1;
    PyErr_Format(PyExc_ValueError, "expected a bundle of this endpoint's, slot %llu, saw one of slot %llu: only its owner writes it (M1)",
                 b->endpoint->slot, b->owner);
    return 0;
}

/* Python code may run while the value is pickled, or a block is asked for, and append to this very bundle, or shut it: then the
 * item's index is another, and so is its MAC; or it belongs in the next bundle. */
static int item_add(Bundle *b, PyObject *value, u64 function)
{
    u64 index;
    u64 word;
    do {
        index = b->n;
        if (index >= b->capacity)
            return ADD_FULL;
        if (!value_put(b, value, index, DIRECTION_ITEM, function, &word))
            return ADD_FAILED;
        if (b->shut)
            return ADD_FULL;
    } while (index != b->n);
    atomic_store_explicit(&b->items[index], word, memory_order_relaxed);
    b->n = index + 1;
    return ADD_DONE;
}

static void count_publish(Bundle *b)
{
    atomic_store_explicit(b->count, b->n, memory_order_release);
}

/* The next value of the iterator, added. ADD_FULL also at its end. */
static int item_add_next(Bundle *b, PyObject *iterator)
{
    PyObject *value = PyIter_Next(iterator);
    if (!value)
        return PyErr_Occurred() ? ADD_FAILED : ADD_FULL;
    int rc = bundle_usable(b) ? item_add(b, value, 0) : ADD_FAILED;
    Py_DECREF(value);
    if (rc == ADD_FULL) { /* there was room when we asked for the value */
        PyErr_SetString(PyExc_RuntimeError, "expected one caller to fill this bundle, saw another take the last place: wait for the other");
        return ADD_FAILED;
    }
    return rc;
}

PyObject *bundle_fill(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Bundle *b = (Bundle *)self;
    u64 max;
    u64 added = 0;
    int rc = ADD_DONE;
    if (n != 2) {
        PyErr_Format(PyExc_TypeError, "expected 2 arguments, saw %zd", n);
        return NULL;
    }
    if (!number(v[1], &max) || !is_ours(b))
        return NULL;
    if (!PyIter_Check(v[0]) || !b->function) {
        PyErr_SetString(PyExc_TypeError, "expected an iterator, and a bundle with one function");
        return NULL;
    }
    while (added < max && b->n < b->capacity && rc == ADD_DONE) {
        rc = item_add_next(b, v[0]);
        if (rc == ADD_DONE && !(++added % PUBLISH_EVERY))
            count_publish(b);
    }
    if (!(b->endpoint->closed | b->endpoint->forked))
        count_publish(b);
    return rc == ADD_FAILED ? NULL : PyLong_FromUnsignedLongLong(added);
}

/* 0 with an exception; else the id that stands in the item: none if the bundle has one function. */
static int item_function(Bundle *b, u64 id, u64 *function)
{
    *function = b->function ? 0 : id;
    if (b->function ? !id || id == b->function : id != 0)
        return 1;
    PyErr_Format(PyExc_ValueError, "expected the id of a function for a bundle with function %llu, saw %llu", b->function, id);
    return 0;
}

PyObject *bundle_append(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Bundle *b = (Bundle *)self;
    u64 id;
    u64 function;
    if (n != 2) {
        PyErr_Format(PyExc_TypeError, "expected 2 arguments, saw %zd", n);
        return NULL;
    }
    if (!number(v[0], &id) || !is_ours(b) || !item_function(b, id, &function))
        return NULL;
    int rc = bundle_is_heavy(b) ? ADD_FULL : item_add(b, v[1], function);
    if (rc == ADD_FULL)
        Py_RETURN_NONE;
    if (rc == ADD_FAILED)
        return NULL;
    u64 index = b->n - 1;
    count_publish(b);
    return (PyObject *)future_make(b, index);
}

static int may_put_off(Bundle *b, u64 gap_ns)
{
    if (!gap_ns)
        return 0;
    u64 now = now_ns();
    if (b->rang_ns && now - b->rang_ns < gap_ns && b->unrung < UNRUNG_MAX) {
        b->unrung++;
        return 1;
    }
    b->rang_ns = now;
    return 0;
}

PyObject *bundle_ring(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Bundle *b = (Bundle *)self;
    Endpoint *e = b->endpoint;
    u64 a[2]; /* the keeper's slot, gap in ns */
    if (!numbers(v, n, 2, a) || !a_slot(a[0]) || !bundle_usable(b))
        return NULL;
    fence();
    u64 seq = load_relaxed(slot_words(e->region, a[0]) + NC_SLOT_AT_SEQ);
    if ((seq & 1) && seq != e->doors.rung[a[0]]) {
        if (may_put_off(b, a[1]))
            Py_RETURN_FALSE;
        pthread_mutex_lock(&e->lock); /* a notice may take the keeper's door away just now */
        door_ring(e, a[0], seq);
        pthread_mutex_unlock(&e->lock);
    }
    b->unrung = 0;
    Py_RETURN_TRUE;
}
