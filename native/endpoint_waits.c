/* Endpoint: bells, waiting, and what may end a wait: words that are watched, bundles whose counts are messages (S5). */
#include <stdlib.h>
#include <string.h>

#include "arguments.h"
#include "bundle.h"
#include "endpoint_methods.h"

PyObject *endpoint_ring(PyObject *self, PyObject *slot)
{
    Endpoint *e = (Endpoint *)self;
    u64 target;
    if (!endpoint_usable(e) || !number(slot, &target) || !a_slot(target))
        return NULL;
    pthread_mutex_lock(&e->lock);
    doors_read_notices(e);
    door_ring(e, target, load_relaxed(slot_words(e->region, target) + NC_SLOT_AT_SEQ));
    pthread_mutex_unlock(&e->lock);
    Py_RETURN_NONE;
}

PyObject *endpoint_wait_method(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Endpoint *e = (Endpoint *)self;
    static char *names[] = {"timeout", "bundle", "index", "first_block_ns", NULL};
    PyObject *timeout = Py_None;
    PyObject *bundle = Py_None;
    unsigned long long index = 0;
    unsigned long long first_block_ns = 250000000ull;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OOKK", names, &timeout, &bundle, &index, &first_block_ns) || !endpoint_usable(e))
        return NULL;
    double timeout_s = timeout == Py_None ? -1 : PyFloat_AsDouble(timeout);
    if (timeout_s < 0 && timeout != Py_None)
        timeout_s = 0;
    if (PyErr_Occurred())
        return NULL;
    Bundle *b = NULL;
    if (bundle != Py_None) {
        if (!PyObject_TypeCheck(bundle, BundleType) || index >= ((Bundle *)bundle)->capacity) {
            PyErr_SetString(PyExc_IndexError, "expected a bundle and the index of an item in it");
            return NULL;
        }
        b = (Bundle *)bundle;
    }
    int bits = endpoint_wait(e, b, index, timeout_s, first_block_ns);
    return bits < 0 ? NULL : PyLong_FromLong(bits);
}

PyObject *endpoint_watch(PyObject *self, PyObject *at)
{
    Endpoint *e = (Endpoint *)self;
    u64 offset;
    if (!endpoint_usable(e) || !number(at, &offset))
        return NULL;
    if ((offset & 7) || !region_holds(e->region, offset, 8)) {
        PyErr_SetString(PyExc_ValueError, "expected the offset of a word of the region");
        return NULL;
    }
    pthread_mutex_lock(&e->lock);
    u64 *words = grown(e->watched, e->n_watched, sizeof(u64));
    if (words)
        e->watched = words;
    u64 *values = words ? grown(e->watched_value, e->n_watched, sizeof(u64)) : NULL;
    if (values) {
        e->watched_value = values;
        e->watched[e->n_watched] = offset;
        e->watched_value[e->n_watched++] = load_acquire(e->region->base + offset);
    }
    pthread_mutex_unlock(&e->lock);
    if (!values)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *endpoint_unwatch(PyObject *self, PyObject *at)
{
    Endpoint *e = (Endpoint *)self;
    u64 offset;
    if (!endpoint_usable(e) || !number(at, &offset))
        return NULL;
    pthread_mutex_lock(&e->lock);
    for (u64 i = 0; i < e->n_watched; i++) {
        if (e->watched[i] != offset)
            continue;
        e->n_watched--;
        e->watched[i] = e->watched[e->n_watched];
        e->watched_value[i] = e->watched_value[e->n_watched];
        break;
    }
    pthread_mutex_unlock(&e->lock);
    Py_RETURN_NONE;
}

PyObject *endpoint_changed(PyObject *self, PyObject *unused)
{
    Endpoint *e = (Endpoint *)self;
    if (!endpoint_usable(e))
        return NULL;
    PyObject *list = PyList_New(0);
    pthread_mutex_lock(&e->lock);
    for (u64 i = 0; list && i < e->n_watched; i++) {
        u64 value = load_acquire(e->region->base + e->watched[i]);
        if (value == e->watched_value[i])
            continue;
        e->watched_value[i] = value;
        PyObject *offset = PyLong_FromUnsignedLongLong(e->watched[i]);
        if (!offset || PyList_Append(list, offset) < 0)
            Py_CLEAR(list);
        Py_XDECREF(offset);
    }
    pthread_mutex_unlock(&e->lock);
    return list;
}

PyObject *endpoint_track(PyObject *self, PyObject *bundle)
{
    Endpoint *e = (Endpoint *)self;
    if (!endpoint_usable(e))
        return NULL;
    if (!PyObject_TypeCheck(bundle, BundleType)) {
        PyErr_SetString(PyExc_TypeError, "expected a Bundle");
        return NULL;
    }
    pthread_mutex_lock(&e->lock);
    Bundle **tracked = grown(e->tracked, e->n_tracked, sizeof(Bundle *));
    if (tracked) {
        e->tracked = tracked;
        e->tracked[e->n_tracked++] = (Bundle *)Py_NewRef(bundle);
    }
    pthread_mutex_unlock(&e->lock);
    if (!tracked)
        return NULL;
    Py_RETURN_NONE;
}

PyObject *endpoint_untrack(PyObject *self, PyObject *bundle)
{
    Endpoint *e = (Endpoint *)self;
    int found = 0;
    pthread_mutex_lock(&e->lock);
    for (u64 i = 0; i < e->n_tracked && !found; i++) {
        if ((PyObject *)e->tracked[i] != bundle)
            continue;
        e->tracked[i] = e->tracked[--e->n_tracked];
        found = 1;
    }
    pthread_mutex_unlock(&e->lock);
    if (found)
        Py_DECREF(bundle);
    Py_RETURN_NONE;
}

/* S5: counts are messages. For the one thread that tracks: it alone changes the array. A count that goes back or beyond the
 * capacity is the owner's word against itself: clamped. */
PyObject *endpoint_counts(PyObject *self, PyObject *unused)
{
    Endpoint *e = (Endpoint *)self;
    if (!endpoint_usable(e))
        return NULL;
    PyObject *list = PyList_New(0);
    for (u64 i = 0; list && i < e->n_tracked; i++) {
        Bundle *b = e->tracked[i];
        u64 n = load_acquire(b->count);
        if (n == b->n)
            continue;
        b->n = n;
        PyObject *t = Py_BuildValue("OK", b, n < b->capacity ? n : b->capacity);
        if (!t || PyList_Append(list, t) < 0)
            Py_CLEAR(list);
        Py_XDECREF(t);
    }
    return list;
}
