/* Reading the arguments of fast-call methods. 1, or 0 with a Python exception. */
#ifndef NAHANNI_ARGUMENTS_H
#define NAHANNI_ARGUMENTS_H

#include <stdlib.h>
#include <string.h>

#include "python.h"
#include "words.h"

static inline int number(PyObject *v, u64 *out)
{
    *out = PyLong_AsUnsignedLongLong(v);
    return !(*out == ~0ull && PyErr_Occurred());
}

static inline int numbers(PyObject *const *v, Py_ssize_t n, Py_ssize_t expected, u64 *out)
{
    if (n != expected) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, saw %zd", expected, n);
        return 0;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        if (!number(v[i], &out[i]))
            return 0;
    }
    return 1;
}

static inline int a_slot(u64 slot)
{
    if (slot < NC_SLOTS)
        return 1;
    PyErr_Format(PyExc_ValueError, "expected a slot below %llu, saw %llu", NC_SLOTS, slot);
    return 0;
}

/* An array with room for one more, zeroed; NULL with MemoryError. */
static inline void *grown(void *at, u64 n, size_t one)
{
    void *p = realloc(at, (n + 1) * one);
    if (p)
        memset((char *)p + n * one, 0, one);
    else
        PyErr_NoMemory();
    return p;
}

#endif
