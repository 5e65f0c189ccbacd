/* The stable ABI of CPython 3.11, and the few helpers every type here needs. */
#ifndef NAHANNI_PYTHON_H
#define NAHANNI_PYTHON_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define FASTCALL(name, function, doc) {name, (PyCFunction)(void *)function, METH_FASTCALL, doc}

static inline void *object_new(PyTypeObject *t)
{
    allocfunc alloc = (allocfunc)PyType_GetSlot(t, Py_tp_alloc);
    return alloc(t, 0);
}

static inline void object_free(PyObject *self)
{
    PyTypeObject *t = Py_TYPE(self);
    freefunc release = (freefunc)PyType_GetSlot(t, Py_tp_free);
    release(self);
    Py_DECREF(t);
}

/* What Python lends the core: set once by _native.configure (module.c). */
typedef struct {
    PyObject *dumps;          /* object -> bytes */
    PyObject *loads;          /* bytes -> object */
    PyObject *dump_exception; /* exception -> bytes */
    PyObject *load_exception; /* bytes -> exception */
    PyObject *cancelled;      /* classes of exceptions */
    PyObject *lost;
    PyObject *corrupt;
    PyObject *refused;
    PyObject *forked;
    PyObject *closed;
} Lent;

extern Lent lent;

#endif
