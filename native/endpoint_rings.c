/* Endpoint: opening rings, sending and taking, as Python does it. R1: counters go on from where they stand. */
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "endpoint.h"
#include "endpoint_methods.h"

static int a_ring(Endpoint *e, u64 slot, u64 offset, u64 log2)
{
    if (!a_slot(slot))
        return 0;
    u64 bytes = log2 <= NC_RING_LOG2_MAX ? NC_RING_AT_SLOTS + (64ull << log2) : ~0ull;
    if (log2 > NC_RING_LOG2_MAX || offset < NC_SLOT_TABLE || (offset & 63) || !region_holds(e->region, offset, bytes)) {
        PyErr_Format(lent.corrupt ? lent.corrupt : PyExc_ValueError,
                     "expected a ring of at most 2**%llu descriptors inside the region, saw 2**%llu at %llu (slot %llu)",
                     NC_RING_LOG2_MAX, log2, offset, slot);
        return 0;
    }
    return 1;
}

PyObject *endpoint_open_in(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Endpoint *e = (Endpoint *)self;
    u64 a[4]; /* slot, offset, log2, head */
    if (!endpoint_usable(e) || !numbers(v, n, 4, a) || !a_ring(e, a[0], a[1], a[2]))
        return NULL;
    RingIn in = {1, a[0], e->region->base + a[1], 1ull << a[2], a[3]};
    pthread_mutex_lock(&e->lock);
    RingIn *rings = grown(e->in, e->n_in, sizeof in);
    if (rings) {
        e->in = rings;
        e->in[e->n_in++] = in;
        store_release(in.memory + NC_RING_AT_HEAD, in.head);
    }
    pthread_mutex_unlock(&e->lock);
    if (!rings)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *endpoint_open_out(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Endpoint *e = (Endpoint *)self;
    u64 a[3]; /* slot, offset, log2 */
    if (!endpoint_usable(e) || !numbers(v, n, 3, a) || !a_ring(e, a[0], a[1], a[2]))
        return NULL;
    RingOut out = {.open = 1, .peer = a[0], .memory = e->region->base + a[1], .slots = 1ull << a[2]};
    out.tail = load_acquire(out.memory + NC_RING_AT_TAIL); /* R1: counters go on */
    out.published = out.tail;
    out.head_seen = load_acquire(out.memory + NC_RING_AT_HEAD);
    if (out.tail - out.head_seen > out.slots)
        out.head_seen = out.tail; /* of an ancestor whose reader never came */
    pthread_mutex_lock(&e->lock);
    RingOut *rings = grown(e->out, e->n_out, sizeof out);
    if (rings) {
        e->out = rings;
        e->out[e->n_out++] = out;
    }
    pthread_mutex_unlock(&e->lock);
    if (!rings)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *endpoint_close_ring(PyObject *self, PyObject *peer)
{
    Endpoint *e = (Endpoint *)self;
    u64 slot;
    if (!endpoint_usable(e) || !number(peer, &slot))
        return NULL;
    pthread_mutex_lock(&e->lock);
    for (u64 i = 0; i < e->n_in;) {
        if (e->in[i].peer == slot)
            e->in[i] = e->in[--e->n_in];
        else
            i++;
    }
    for (u64 i = 0; i < e->n_out;) {
        if (e->out[i].peer == slot) {
            queue_free(&e->out[i].waiting);
            e->out[i] = e->out[--e->n_out];
        } else {
            i++;
        }
    }
    pthread_mutex_unlock(&e->lock);
    Py_RETURN_NONE;
}

PyObject *endpoint_send_method(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Endpoint *e = (Endpoint *)self;
    u64 target;
    u64 w[NC_DESCRIPTOR_WORDS] = {0};
    if (!endpoint_usable(e))
        return NULL;
    if (n < 2 || n > 1 + (Py_ssize_t)NC_DESCRIPTOR_WORDS) {
        PyErr_Format(PyExc_TypeError, "expected a slot and 1 to %llu words, saw %zd arguments", NC_DESCRIPTOR_WORDS, n);
        return NULL;
    }
    if (!number(v[0], &target))
        return NULL;
    for (Py_ssize_t i = 1; i < n; i++) {
        if (!number(v[i], &w[i - 1]))
            return NULL;
    }
    pthread_mutex_lock(&e->lock);
    int rc = endpoint_send(e, target, w);
    pthread_mutex_unlock(&e->lock);
    if (rc < 0) {
        PyErr_Format(PyExc_ValueError, "expected a slot that a ring was opened to, saw %llu", target);
        return NULL;
    }
    Py_RETURN_NONE;
}

PyObject *endpoint_flush_method(PyObject *self, PyObject *unused)
{
    Endpoint *e = (Endpoint *)self;
    if (!endpoint_usable(e))
        return NULL;
    pthread_mutex_lock(&e->lock);
    endpoint_flush(e);
    pthread_mutex_unlock(&e->lock);
    Py_RETURN_NONE;
}

static PyObject *message_tuple(const Message *m)
{
    const u64 *w = m->w;
    return Py_BuildValue("KKKKKKKKK", m->source, w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]);
}

PyObject *endpoint_take(PyObject *self, PyObject *unused)
{
    Endpoint *e = (Endpoint *)self;
    Queue taken;
    Message m;
    if (!endpoint_usable(e))
        return NULL;
    pthread_mutex_lock(&e->lock);
    endpoint_drain(e);
    taken = e->inbox;
    memset(&e->inbox, 0, sizeof e->inbox);
    pthread_mutex_unlock(&e->lock);
    PyObject *list = PyList_New(0);
    while (list && queue_pop(&taken, &m)) {
        PyObject *t = message_tuple(&m);
        if (!t || PyList_Append(list, t) < 0)
            Py_CLEAR(list);
        Py_XDECREF(t);
    }
    queue_free(&taken);
    return list;
}

PyObject *endpoint_next_grant(PyObject *self, PyObject *unused)
{
    Endpoint *e = (Endpoint *)self;
    Message m;
    if (!endpoint_usable(e))
        return NULL;
    pthread_mutex_lock(&e->lock);
    int got = queue_pop(&e->granted, &m);
    if (got)
        e->keeper = m.source;
    pthread_mutex_unlock(&e->lock);
    if (!got)
        Py_RETURN_NONE;
    return message_tuple(&m);
}
