/* The methods of Endpoint, by the file they stand in; endpoint.c has the table. */
#ifndef NAHANNI_ENDPOINT_METHODS_H
#define NAHANNI_ENDPOINT_METHODS_H

#include "python.h"

PyObject *endpoint_open_in(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *endpoint_open_out(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *endpoint_close_ring(PyObject *self, PyObject *peer);
PyObject *endpoint_send_method(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *endpoint_flush_method(PyObject *self, PyObject *unused);
PyObject *endpoint_take(PyObject *self, PyObject *unused);
PyObject *endpoint_next_grant(PyObject *self, PyObject *unused);
PyObject *endpoint_ring(PyObject *self, PyObject *slot);
PyObject *endpoint_wait_method(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *endpoint_watch(PyObject *self, PyObject *at);
PyObject *endpoint_unwatch(PyObject *self, PyObject *at);
PyObject *endpoint_changed(PyObject *self, PyObject *unused);
PyObject *endpoint_track(PyObject *self, PyObject *bundle);
PyObject *endpoint_untrack(PyObject *self, PyObject *bundle);
PyObject *endpoint_counts(PyObject *self, PyObject *unused);
PyObject *endpoint_set_bell(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *endpoint_set_door_register(PyObject *self, PyObject *buffer);
PyObject *endpoint_set_notices(PyObject *self, PyObject *fd);
PyObject *endpoint_add_door(PyObject *self, PyObject *const *v, Py_ssize_t n);
PyObject *endpoint_set_lifeline(PyObject *self, PyObject *fd);
PyObject *endpoint_start_pump(PyObject *self, PyObject *args, PyObject *kwargs);
PyObject *endpoint_stop_pump(PyObject *self, PyObject *unused);

#endif
