/* Endpoint: what the substrate gives it, its lifeline, and its pump. */
#include <errno.h>

#include "arguments.h"
#include "endpoint.h"
#include "endpoint_methods.h"

PyObject *endpoint_set_bell(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Endpoint *e = (Endpoint *)self;
    u64 a[2];
    if (!endpoint_usable(e) || !numbers(v, n, 2, a))
        return NULL;
    e->doors.bell = (int)a[0];
    e->doors.bell_bytes = a[1] == 4 ? 4 : 8;
    Py_RETURN_NONE;
}

PyObject *endpoint_set_door_register(PyObject *self, PyObject *buffer)
{
    Endpoint *e = (Endpoint *)self;
    Py_buffer view;
    if (!endpoint_usable(e) || PyObject_GetBuffer(buffer, &view, PyBUF_WRITABLE) < 0)
        return NULL;
    if (view.len < 16)
        PyErr_Format(PyExc_ValueError, "expected the registers of an ivshmem device, 16 bytes or more, saw %zd", view.len);
    else
        e->doors.doorbell = (volatile uint32_t *)((char *)view.buf + 12);
    PyBuffer_Release(&view); /* the substrate keeps its mapping until after close() */
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

PyObject *endpoint_set_notices(PyObject *self, PyObject *fd)
{
    Endpoint *e = (Endpoint *)self;
    u64 value;
    if (!endpoint_usable(e) || !number(fd, &value))
        return NULL;
    pthread_mutex_lock(&e->lock);
    e->doors.notices = (int)value;
    doors_read_notices(e);
    pthread_mutex_unlock(&e->lock);
    Py_RETURN_NONE;
}

PyObject *endpoint_add_door(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Endpoint *e = (Endpoint *)self;
    u64 a[3];
    if (!endpoint_usable(e) || !numbers(v, n, 3, a))
        return NULL;
    int fd = dup((int)a[2]);
    if (fd < 0)
        return PyErr_SetFromErrno(PyExc_OSError);
    pthread_mutex_lock(&e->lock);
    int rc = door_add(&e->doors, a[0], a[1], fd);
    pthread_mutex_unlock(&e->lock);
    if (rc < 0)
        return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject *endpoint_set_lifeline(PyObject *self, PyObject *fd)
{
    u64 value;
    if (!number(fd, &value))
        return NULL;
    ((Endpoint *)self)->lifeline = (int)value;
    Py_RETURN_NONE;
}

PyObject *endpoint_start_pump(PyObject *self, PyObject *args, PyObject *kwargs)
{
    Endpoint *e = (Endpoint *)self;
    static char *names[] = {"callback", "urgent_kinds", NULL};
    PyObject *callback = Py_None;
    PyObject *kinds = NULL;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO", names, &callback, &kinds) || !endpoint_usable(e))
        return NULL;
    if (e->pumping) {
        PyErr_SetString(PyExc_RuntimeError, "expected an endpoint whose pump does not run yet");
        return NULL;
    }
    for (Py_ssize_t i = 0; kinds && i < PySequence_Size(kinds); i++) {
        PyObject *kind = PySequence_GetItem(kinds, i);
        unsigned long bit = kind ? PyLong_AsUnsignedLong(kind) : 64;
        Py_XDECREF(kind);
        if (PyErr_Occurred())
            return NULL;
        if (bit < 64)
            e->urgent |= 1ull << bit;
    }
    if (callback != Py_None)
        e->callback = Py_NewRef(callback);
    e->busy_since_ns = now_ns();
    int rc = pump_start(e);
    if (rc) {
        errno = rc;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyObject *endpoint_stop_pump(PyObject *self, PyObject *unused)
{
    pump_stop((Endpoint *)self);
    Py_RETURN_NONE;
}
