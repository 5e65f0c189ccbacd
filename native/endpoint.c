/* Endpoint: the Python type, its life, and what it says of itself. Its methods stand in endpoint_*.c. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "arguments.h"
#include "bundle.h"
#include "endpoint_methods.h"

PyTypeObject *EndpointType;

/* D3: a fork is no member. Its copies of our endpoints refuse every call. */
static Endpoint *all;
static pthread_mutex_t all_lock = PTHREAD_MUTEX_INITIALIZER;

static void after_fork_in_child(void)
{
    pthread_mutex_init(&all_lock, NULL); /* its holder, if any, is not in the child */
    for (Endpoint *e = all; e; e = e->next) {
        pthread_mutex_init(&e->lock, NULL);
        e->forked = 1;
        e->pumping = 0; /* no such thread here */
        e->waiters = 0;
    }
}

int endpoint_watch_forks(void)
{
    return pthread_atfork(NULL, NULL, after_fork_in_child);
}

int endpoint_usable(Endpoint *e)
{
    if (e->forked) {
        PyErr_SetString(lent.forked ? lent.forked : PyExc_RuntimeError,
                        "expected the process that joined the region, saw a fork of it: a fork is not a member; "
                        "open a Client of its own there");
        return 0;
    }
    if (e->closed) {
        PyErr_SetString(lent.closed ? lent.closed : PyExc_RuntimeError, "expected an open endpoint, saw one that was closed");
        return 0;
    }
    return 1;
}

static PyObject *endpoint_new(PyTypeObject *t, PyObject *args, PyObject *kwargs)
{
    PyObject *region;
    unsigned long long slot;
    unsigned long long incarnation;
    pthread_condattr_t clock;
    if (!PyArg_ParseTuple(args, "OKK", &region, &slot, &incarnation))
        return NULL;
    if (Py_TYPE(region) != RegionType || slot >= NC_SLOTS) {
        PyErr_Format(PyExc_ValueError, "expected a Region and a slot below %llu, saw slot %llu", NC_SLOTS, slot);
        return NULL;
    }
    Endpoint *e = object_new(t);
    if (!e)
        return NULL;
    Py_INCREF(region);
    e->region = (Region *)region;
    e->slot = slot;
    e->incarnation = incarnation;
    e->words = slot_words(e->region, slot);
    e->doors.bell = -1;
    e->doors.notices = -1;
    e->lifeline = -1;
    pthread_mutex_init(&e->lock, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&e->turned, &clock);
    e->nudge = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    e->poke = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    e->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (e->nudge < 0 || e->poke < 0 || e->timer < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        Py_DECREF(e);
        return NULL;
    }
    u64 seq = load_relaxed(e->words + NC_SLOT_AT_SEQ);
    if (seq & 1) /* an ancestor died asleep */
        store_release(e->words + NC_SLOT_AT_SEQ, seq + 1);
    pthread_mutex_lock(&all_lock);
    e->next = all;
    all = e;
    pthread_mutex_unlock(&all_lock);
    return (PyObject *)e;
}

static void forget(Endpoint *e)
{
    pthread_mutex_lock(&all_lock);
    for (Endpoint **p = &all; *p; p = &(*p)->next) {
        if (*p == e) {
            *p = e->next;
            break;
        }
    }
    pthread_mutex_unlock(&all_lock);
}

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* All but the object itself, and its hold on the region. */
static void release(Endpoint *e)
{
    forget(e);
    for (u64 i = 0; i < e->n_out; i++)
        queue_free(&e->out[i].waiting);
    free(e->in);
    free(e->out);
    free(e->watched);
    free(e->watched_value);
    e->in = NULL;
    e->out = NULL;
    e->watched = NULL;
    e->watched_value = NULL;
    e->n_in = 0;
    e->n_out = 0;
    e->n_watched = 0;
    queue_free(&e->inbox);
    queue_free(&e->granted);
    doors_free(&e->doors);
    for (u64 i = 0; i < e->n_tracked; i++)
        Py_DECREF(e->tracked[i]);
    free(e->tracked);
    e->tracked = NULL;
    e->n_tracked = 0;
    Py_CLEAR(e->callback);
    close_fd(&e->nudge);
    close_fd(&e->poke);
    close_fd(&e->timer);
}

static PyObject *endpoint_close(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Endpoint *e = (Endpoint *)self;
    u64 last[2]; /* e_state, slot to ring */
    if (n && !numbers(v, n, 2, last))
        return NULL;
    if (n && !a_slot(last[1]))
        return NULL;
    if (e->closed)
        Py_RETURN_NONE;
    pump_stop(e);
    pthread_mutex_lock(&e->lock);
    e->closed = 1;
    pthread_mutex_unlock(&e->lock);
    PyThreadState *state = PyEval_SaveThread();
    pthread_mutex_lock(&e->lock);
    while (e->waiters && !e->forked) { /* each ends with ClosedError */
        struct timespec until;
        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec++;
        eventfd_signal(e->nudge);
        pthread_cond_broadcast(&e->turned);
        pthread_cond_timedwait(&e->turned, &e->lock, &until);
    }
    pthread_mutex_unlock(&e->lock);
    PyEval_RestoreThread(state);
    if (n && !e->forked) { /* D3: no store of ours follows this one */
        store_release(e->words + NC_SLOT_AT_E_STATE, last[0]);
        door_ring(e, last[1], load_relaxed(slot_words(e->region, last[1]) + NC_SLOT_AT_SEQ));
    }
    release(e);
    Py_RETURN_NONE;
}

static void endpoint_dealloc(PyObject *self)
{
    Endpoint *e = (Endpoint *)self;
    if (!e->closed) {
        pump_stop(e);
        release(e);
    }
    pthread_mutex_destroy(&e->lock);
    pthread_cond_destroy(&e->turned);
    Py_XDECREF((PyObject *)e->region);
    object_free(self);
}

static PyObject *endpoint_statistics(PyObject *self, PyObject *unused)
{
    Endpoint *e = (Endpoint *)self;
    return Py_BuildValue("KKKK", e->rings, e->wakes, e->rescues, e->sleeps);
}

static PyObject *endpoint_errand(PyObject *self, PyObject *unused)
{
    ((Endpoint *)self)->errand = 1;
    Py_RETURN_NONE;
}

static PyObject *endpoint_violator(PyObject *self, PyObject *unused)
{
    Endpoint *e = (Endpoint *)self;
    int violator = e->violated - 1;
    e->violated = 0; /* said once; its ring to us is closed, so that others are seen, too */
    return PyLong_FromLong(violator);
}

static PyObject *endpoint_get_slot(PyObject *self, void *closure)
{
    return PyLong_FromUnsignedLongLong(((Endpoint *)self)->slot);
}

static PyObject *endpoint_get_incarnation(PyObject *self, void *closure)
{
    return PyLong_FromUnsignedLongLong(((Endpoint *)self)->incarnation);
}

static PyObject *endpoint_get_region(PyObject *self, void *closure)
{
    return Py_NewRef((PyObject *)((Endpoint *)self)->region);
}

static PyObject *endpoint_get_server_gone(PyObject *self, void *closure)
{
    return PyBool_FromLong(((Endpoint *)self)->doors.server_gone);
}

static PyObject *endpoint_get_expelled(PyObject *self, void *closure)
{
    return PyBool_FromLong(((Endpoint *)self)->expelled);
}

static PyObject *endpoint_get_closed(PyObject *self, void *closure)
{
    return PyBool_FromLong(((Endpoint *)self)->closed);
}

static PyMethodDef endpoint_methods[] = {
    FASTCALL("set_bell", endpoint_set_bell, "set_bell(fd, nbytes): our own doorbell; the substrate owns it."),
    {"set_door_register", endpoint_set_door_register, METH_O, "set_door_register(buffer): a guest's BAR0; rings are stores to it."},
    {"set_notices", endpoint_set_notices, METH_O, "set_notices(fd): the server's socket, whose notices bring other peers' doors."},
    FASTCALL("add_door", endpoint_add_door, "add_door(peer, vector, fd): an eventfd that rings them; duplicated."),
    {"set_lifeline", endpoint_set_lifeline, METH_O, "set_lifeline(fd): when this pipe ends, so does the process."},
    FASTCALL("open_in", endpoint_open_in, "open_in(slot, offset, log2, head): read their ring to us from head on."),
    FASTCALL("open_out", endpoint_open_out, "open_out(slot, offset, log2): write our ring to them, from the tail that stands there (R1)."),
    {"close_ring", endpoint_close_ring, METH_O, "close_ring(slot): both directions; what waits for room is dropped."},
    FASTCALL("send", endpoint_send_method, "send(slot, *words): one descriptor, up to 8 words. Never blocks (R5). flush() publishes it."),
    {"flush", endpoint_flush_method, METH_NOARGS, "flush(): publish all that was sent and ring who sleeps (S2)."},
    {"take", endpoint_take, METH_NOARGS, "take() -> [(slot, w0, ..., w7)]: everything that has come, except GRANTs."},
    {"next_grant", endpoint_next_grant, METH_NOARGS,
     "next_grant() -> (slot, w0, ..., w7) or None: the next GRANT; the pump cannot give it back from then on (B7)."},
    {"ring", endpoint_ring, METH_O, "ring(slot): ring that endpoint's doorbell whatever it does."},
    {"wait", (PyCFunction)(void *)endpoint_wait_method, METH_VARARGS | METH_KEYWORDS,
     "wait(timeout=None, bundle=None, index=0, first_block_ns=250_000_000) -> bits: 1 mail, 2 a count moved, 4 the item has a\n"
     "status, 8 a watched word changed, 16 the server is gone (once); 0 at the timeout, and at times before: look, and wait\n"
     "again. Gives up the GIL;\n"
     "signal handlers run."},
    {"watch", endpoint_watch, METH_O, "watch(offset): a change of that word ends a wait."},
    {"unwatch", endpoint_unwatch, METH_O, "unwatch(offset)"},
    {"changed", endpoint_changed, METH_NOARGS, "changed() -> [offset]: watched words that are not what they were at the last call."},
    {"track", endpoint_track, METH_O, "track(bundle): a move of its count ends a wait (S5)."},
    {"untrack", endpoint_untrack, METH_O, "untrack(bundle)"},
    {"counts", endpoint_counts, METH_NOARGS, "counts() -> [(bundle, n)]: tracked bundles whose count moved since the last call."},
    {"start_pump", (PyCFunction)(void *)endpoint_start_pump, METH_VARARGS | METH_KEYWORDS,
     "start_pump(callback=None, urgent_kinds=()): callback() runs on the pump's thread when such a message came and no thread waits."},
    {"stop_pump", endpoint_stop_pump, METH_NOARGS, "stop_pump(): returns when its thread has ended."},
    {"statistics", endpoint_statistics, METH_NOARGS, "statistics() -> (rings, wakes, rescues, sleeps)"},
    {"violator", endpoint_violator, METH_NOARGS, "violator() -> slot of a peer that broke R3 since the last call, or -1."},
    FASTCALL("close", endpoint_close,
             "close([e_state, slot]): stops the pump, ends waits with ClosedError; then, as the last store, e_state, and a ring for\n"
             "that slot (D3). Descriptors lent to us stay open."),
    {"errand", endpoint_errand, METH_NOARGS, "errand(): the pump calls back at its next turn. For finalizers: it only sets a flag (M5)."},
    {0},
};

static PyGetSetDef endpoint_getters[] = {
    {"slot", endpoint_get_slot, NULL, "number of its slot", NULL},
    {"incarnation", endpoint_get_incarnation, NULL, "which life of the slot this is", NULL},
    {"region", endpoint_get_region, NULL, "the Region", NULL},
    {"server_gone", endpoint_get_server_gone, NULL, "whether the server's socket has ended", NULL},
    {"expelled", endpoint_get_expelled, NULL, "whether the state table calls this incarnation dead (D4)", NULL},
    {"closed", endpoint_get_closed, NULL, "whether close() was called", NULL},
    {0},
};

static PyType_Slot endpoint_slots[] = {
    {Py_tp_doc, "Endpoint(region, slot, incarnation): one process attached to the region."},
    {Py_tp_new, endpoint_new},
    {Py_tp_dealloc, endpoint_dealloc},
    {Py_tp_methods, endpoint_methods},
    {Py_tp_getset, endpoint_getters},
    {0},
};

PyType_Spec endpoint_spec = {"nahanni_compute._native.Endpoint", sizeof(Endpoint), 0, Py_TPFLAGS_DEFAULT, endpoint_slots};
