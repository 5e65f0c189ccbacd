/* Region: what Python sees of the mapping. Every access is checked against the bounds; words by M2. */
#include <string.h>

#include "region.h"

PyTypeObject *RegionType;

static PyObject *region_new(PyTypeObject *t, PyObject *args, PyObject *kwargs)
{
    PyObject *buffer;
    PyObject *key;
    if (!PyArg_ParseTuple(args, "OO", &buffer, &key))
        return NULL;
    Region *r = object_new(t);
    if (!r)
        return NULL;
    if (PyObject_GetBuffer(buffer, &r->view, PyBUF_WRITABLE) < 0) {
        Py_DECREF(r);
        return NULL;
    }
    r->base = r->view.buf;
    r->size = (u64)r->view.len;
    if (((uintptr_t)r->base & 63) || r->size < NC_HEAP) {
        PyErr_Format(PyExc_ValueError, "expected a region of at least %llu bytes, aligned to 64; saw %llu bytes", NC_HEAP, r->size);
        Py_DECREF(r);
        return NULL;
    }
    if (key != Py_None) {
        char *bytes;
        Py_ssize_t n;
        if (PyBytes_AsStringAndSize(key, &bytes, &n) < 0 || n != 16) {
            if (!PyErr_Occurred())
                PyErr_SetString(PyExc_ValueError, "expected a key of 16 bytes");
            Py_DECREF(r);
            return NULL;
        }
        memcpy(r->key, bytes, 16);
        r->keyed = 1;
    }
    return (PyObject *)r;
}

static void region_dealloc(PyObject *self)
{
    PyBuffer_Release(&((Region *)self)->view);
    object_free(self);
}

static int region_word(Region *r, PyObject *v, u64 *offset)
{
    *offset = PyLong_AsUnsignedLongLong(v);
    if (*offset == ~0ull && PyErr_Occurred())
        return 0;
    if ((*offset & 7) || !region_holds(r, *offset, 8)) {
        PyErr_Format(PyExc_ValueError, "expected the offset of a word in a region of %llu bytes, saw %llu", r->size, *offset);
        return 0;
    }
    return 1;
}

static int arguments(Py_ssize_t n, Py_ssize_t expected)
{
    if (n == expected)
        return 1;
    PyErr_Format(PyExc_TypeError, "expected %zd arguments, saw %zd", expected, n);
    return 0;
}

static PyObject *region_load(PyObject *self, PyObject *at)
{
    u64 offset;
    if (!region_word((Region *)self, at, &offset))
        return NULL;
    return PyLong_FromUnsignedLongLong(load_acquire(((Region *)self)->base + offset));
}

static PyObject *region_store(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    u64 offset;
    if (!arguments(n, 2) || !region_word((Region *)self, v[0], &offset))
        return NULL;
    u64 word = PyLong_AsUnsignedLongLong(v[1]);
    if (word == ~0ull && PyErr_Occurred())
        return NULL;
    store_release(((Region *)self)->base + offset, word);
    Py_RETURN_NONE;
}

static int region_span(Region *r, PyObject *at, u64 bytes, u64 *offset)
{
    *offset = PyLong_AsUnsignedLongLong(at);
    if (*offset == ~0ull && PyErr_Occurred())
        return 0;
    if (!region_holds(r, *offset, bytes)) {
        PyErr_Format(PyExc_ValueError, "expected a span of a region of %llu bytes, saw %llu bytes at %llu", r->size, bytes, *offset);
        return 0;
    }
    return 1;
}

static PyObject *region_read(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Region *r = (Region *)self;
    u64 offset;
    if (!arguments(n, 2))
        return NULL;
    u64 bytes = PyLong_AsUnsignedLongLong(v[1]);
    if ((bytes == ~0ull && PyErr_Occurred()) || !region_span(r, v[0], bytes, &offset))
        return NULL;
    return PyBytes_FromStringAndSize(r->base + offset, (Py_ssize_t)bytes);
}

static PyObject *region_write(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Region *r = (Region *)self;
    Py_buffer from;
    u64 offset;
    if (!arguments(n, 2) || PyObject_GetBuffer(v[1], &from, PyBUF_SIMPLE) < 0)
        return NULL;
    int fits = region_span(r, v[0], (u64)from.len, &offset);
    if (fits)
        copy_to_region(r->base + offset, from.buf, (u64)from.len);
    PyBuffer_Release(&from);
    if (!fits)
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *region_mac(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Region *r = (Region *)self;
    u64 words[4];
    char *bytes;
    Py_ssize_t length;
    if (!arguments(n, 5))
        return NULL;
    if (!r->keyed) {
        PyErr_SetString(lent.refused ? lent.refused : PyExc_PermissionError,
                        "expected the cluster's key, saw none: this endpoint was opened without it");
        return NULL;
    }
    for (int i = 0; i < 4; i++) {
        words[i] = PyLong_AsUnsignedLongLong(v[i]);
        if (words[i] == ~0ull && PyErr_Occurred())
            return NULL;
    }
    if (PyBytes_AsStringAndSize(v[4], &bytes, &length) < 0)
        return NULL;
    return PyLong_FromUnsignedLongLong(mac_of(r->key, words[0], words[1], words[2], words[3], bytes, (u64)length));
}

/* Nothing is reached through it any more, and the mapping may go: its owner made sure that no endpoint uses it. */
static PyObject *region_close(PyObject *self, PyObject *unused)
{
    Region *r = (Region *)self;
    r->size = 0;
    PyBuffer_Release(&r->view);
    Py_RETURN_NONE;
}

static PyObject *region_get_size(PyObject *self, void *closure)
{
    return PyLong_FromUnsignedLongLong(((Region *)self)->size);
}

static PyMethodDef region_methods[] = {
    {"load", region_load, METH_O, "load(offset) -> int: the word there, with acquire (M2)."},
    FASTCALL("store", region_store, "store(offset, word): with release (M2)."),
    FASTCALL("read", region_read, "read(offset, n) -> bytes: a copy."),
    FASTCALL("write", region_write, "write(offset, buffer): copies; streaming stores from 256 KiB on (M4)."),
    {"close", region_close, METH_NOARGS, "close(): lets go of the mapping; every later access is out of bounds."},
    FASTCALL("mac", region_mac, "mac(generation, index, kind, function, bytes) -> int: B3, under the cluster's key."),
    {0},
};

static PyGetSetDef region_getters[] = {
    {"size", region_get_size, NULL, "bytes in the region", NULL},
    {0},
};

static PyType_Slot region_slots[] = {
    {Py_tp_doc, "Region(buffer, key): a writable mapping of the region and the cluster's key (16 bytes, or None)."},
    {Py_tp_new, region_new},
    {Py_tp_dealloc, region_dealloc},
    {Py_tp_methods, region_methods},
    {Py_tp_getset, region_getters},
    {0},
};

PyType_Spec region_spec = {"nahanni_compute._native.Region", sizeof(Region), 0, Py_TPFLAGS_DEFAULT, region_slots};
