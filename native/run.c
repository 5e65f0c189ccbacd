/* The worker's item loop (B5), one range at a time, one thread of the process at a time under the GIL.
 *
 * B7: before each item, next < limit is asked of the cursor that the pump may lower. S7: after each status the owner is rung if
 * it sleeps for one of the items done. P4: a status that is there already stays.
 */
#include "arguments.h"
#include "bundle.h"

#define STRIDE_MAX 64
#define TINY_NS 1000
#define LONG_NS 4000
#define FENCE_NS 5000
#define SIGNALS_NS 1000000

typedef struct {
    Bundle *b;
    Running *running;
    char *cur;          /* two words of ours: bundle, item + 1; read after our death only (B11) */
    PyObject *callable; /* the function, or the loader of functions */
    u64 lo;
    u64 done; /* lo..done have a status */
    u64 began_ns;
    u64 budget_ns;
    u64 exceptions;
    u64 looked_ns; /* at the clock */
    u64 signals_ns;
    u64 since;  /* items since then */
    u64 stride; /* and how many there shall be */
} Run;

/* ---- exceptions of a task */

/* The exception that is set, taken, with its traceback. */
static PyObject *error_take(void)
{
    PyObject *type;
    PyObject *error;
    PyObject *traceback;
    PyErr_Fetch(&type, &error, &traceback);
    PyErr_NormalizeException(&type, &error, &traceback);
    if (traceback && error)
        PyException_SetTraceback(error, traceback);
    Py_XDECREF(traceback);
    Py_XDECREF(type);
    return error;
}

static PyObject *error_bytes(PyObject *error)
{
    PyObject *data = lent_call(lent.dump_exception, error);
    if (!data || PyBytes_Check(data))
        return data;
    PyErr_Format(PyExc_TypeError, "expected dump_exception to return bytes, saw %R", (PyObject *)Py_TYPE(data));
    Py_DECREF(data);
    return NULL;
}

/* Its dump failed, with an exception that is set: a plain one in its place. NULL only if not even that can be dumped. */
static PyObject *substitute_bytes(PyObject *error)
{
    PyObject *reason = error_take();
    PyObject *reason_type = PyObject_GetAttrString((PyObject *)Py_TYPE(reason), "__qualname__");
    PyObject *error_type = PyObject_GetAttrString((PyObject *)Py_TYPE(error), "__qualname__");
    PyErr_Clear();
    PyObject *text = PyUnicode_FromFormat("expected the exception of a task to travel, saw %S, whose dump raised %S: %S",
                                          error_type ? error_type : Py_None, reason_type ? reason_type : Py_None, reason);
    if (!text) { /* its __str__ raises as well */
        PyErr_Clear();
        text = PyUnicode_FromString("expected the exception of a task to travel, saw one that neither pickles nor says why");
    }
    PyObject *plain = text ? PyObject_CallFunctionObjArgs(PyExc_RuntimeError, text, NULL) : NULL;
    PyObject *data = plain ? error_bytes(plain) : NULL;
    Py_XDECREF(plain);
    Py_XDECREF(text);
    Py_XDECREF(error_type);
    Py_XDECREF(reason_type);
    Py_DECREF(reason);
    return data;
}

/* The exception that is set, as the outcome of the item. 0 if it cannot be stored, with another one set. */
static int error_put(Run *run, u64 index, u64 *word)
{
    PyObject *error = error_take();
    PyObject *data = error_bytes(error);
    if (!data)
        data = substitute_bytes(error);
    Py_DECREF(error);
    if (!data)
        return 0;
    int rc = bundle_usable(run->b) &&
             bytes_put(run->b, NC_KIND_EXC, PyBytes_AsString(data), (u64)PyBytes_Size(data), index, DIRECTION_STATUS, 0, word);
    Py_DECREF(data);
    run->exceptions++;
    return rc;
}

/* ---- one item */

/* args, or [args, kwargs] */
static PyObject *call_with(PyObject *function, PyObject *value)
{
    if (PyTuple_Check(value))
        return PyObject_Call(function, value, NULL);
    if (PyList_Check(value) && PyList_Size(value) == 2) {
        PyObject *args = PyList_GetItem(value, 0);
        PyObject *kwargs = PyList_GetItem(value, 1);
        if (PyTuple_Check(args) && PyDict_Check(kwargs))
            return PyObject_Call(function, args, kwargs);
    }
    return raise_corrupt("expected the arguments of a task, saw %R; whoever stored the item is broken", (PyObject *)Py_TYPE(value));
}

/* The callable for an id, a new reference; the last one is kept. */
static PyObject *function_of(Run *run, u64 id)
{
    Bundle *b = run->b;
    if (!b->callable || b->callable_id != id) {
        PyObject *made = PyObject_CallFunction(run->callable, "K", id);
        if (!made)
            return NULL;
        PyObject *before = b->callable;
        b->callable = made;
        b->callable_id = id;
        Py_INCREF(made);
        Py_XDECREF(before); /* last: it may run Python code */
        return made;
    }
    return Py_NewRef(b->callable);
}

static PyObject *call_own(Run *run, u64 item, u64 index)
{
    u64 id;
    PyObject *value = value_get(run->b, item, index, DIRECTION_ITEM, &id);
    PyObject *function = value ? function_of(run, id) : NULL;
    PyObject *result = function ? call_with(function, value) : NULL;
    Py_XDECREF(function);
    Py_XDECREF(value);
    return result;
}

static PyObject *call_shared(Run *run, u64 item, u64 index)
{
    PyObject *value = value_get(run->b, item, index, DIRECTION_ITEM, NULL);
    if (!value)
        return NULL;
    PyObject *result;
    if (!(run->b->flags & NC_BUNDLE_STAR))
        result = PyObject_CallFunctionObjArgs(run->callable, value, NULL);
    else if (PyTuple_Check(value))
        result = PyObject_Call(run->callable, value, NULL);
    else
        result = raise_corrupt("expected a tuple of arguments, saw %R; whoever stored the item is broken", (PyObject *)Py_TYPE(value));
    Py_DECREF(value);
    return result;
}

/* The status word of an item: its result, or what was raised. 0 with an exception: it cannot be stored. */
static int item_run(Run *run, u64 index, u64 *word)
{
    Bundle *b = run->b;
    u64 item = atomic_load_explicit(&b->items[index], memory_order_acquire);
    if (word_kind(item) == NC_KIND_CANCELLED) { /* B8: that is the outcome */
        *word = word_of(NC_KIND_CANCELLED, 0, 0);
        return 1;
    }
    PyObject *result = b->function ? call_shared(run, item, index) : call_own(run, item, index);
    if (!bundle_usable(b)) { /* the task closed the endpoint, or this is a fork of it: nothing here may be stored */
        Py_XDECREF(result);
        return 0;
    }
    int stored = result && value_put(b, result, index, DIRECTION_STATUS, 0, word);
    Py_XDECREF(result);
    if (stored)
        return 1;
    return bundle_usable(b) && error_put(run, index, word);
}

/* ---- the loop */

/* Often enough for the budget and for signals, and not so often that it costs: an item may take 20 ns, and so may this.
 * 1 if the owner must be looked at behind a fence (S7), -1 with what a signal handler raised. */
static int clock_look(Run *run)
{
    u64 now = now_ns();
    u64 span = now - run->looked_ns;
    if (span < TINY_NS * run->since) {
        if (run->stride < STRIDE_MAX)
            run->stride *= 2;
    } else if (span > LONG_NS * run->since) {
        run->stride = 1;
    }
    run->looked_ns = now;
    run->since = 0;
    if (now - run->signals_ns > SIGNALS_NS) {
        run->signals_ns = now;
        if (PyErr_CheckSignals() < 0)
            return -1;
    }
    return span > FENCE_NS;
}

/* 1: go on; 0: the budget is used up; -1 with an exception. */
static int item_finish(Run *run, u64 index, u64 word)
{
    a64 *status = &run->b->statuses[index];
    if (!atomic_load_explicit(status, memory_order_acquire)) /* P4 */
        atomic_store_explicit(status, word, memory_order_release);
    run->done = index + 1;
    int look = 0;
    if (++run->since >= run->stride)
        look = clock_look(run);
    if (look > 0)
        fence();
    bundle_tell(run->b, run->lo, run->done);
    if (look < 0)
        return -1;
    return run->looked_ns - run->began_ns <= run->budget_ns;
}

static int items_run(Run *run)
{
    u64 index;
    u64 word;
    while ((index = running_next(run->running)) != ~0ull) {
        store_release(run->cur + 8, index + 1);
        int rc = item_run(run, index, &word) && bundle_usable(run->b) ? item_finish(run, index, word) : -1;
        if (rc < 1)
            return rc;
    }
    return 0;
}

/* The pump looks at ranges under the lock, so it never sees half of one, nor the id of one with the cursor of the next. */
static int range_begin(Run *run, u64 range_id, u64 hi)
{
    Endpoint *e = run->b->endpoint;
    Running *r = run->running;
    pthread_mutex_lock(&e->lock);
    int is_free = !atomic_load_explicit(&r->began_ns, memory_order_relaxed);
    if (is_free) {
        r->range_id = range_id;
        r->bundle = run->b->offset;
        r->generation = run->b->generation;
        r->backed = 0;
        atomic_store_explicit(&r->began_ns, run->began_ns, memory_order_release);
        atomic_store(&r->cursor, run->lo << 32 | hi);
        pump_arm(e);
    }
    pthread_mutex_unlock(&e->lock);
    if (is_free) {
        store_release(run->cur, run->b->offset);
        return 1;
    }
    PyErr_SetString(PyExc_RuntimeError, "expected a thread number that is in no range, saw one that is: each executor thread has its own");
    return 0;
}

/* Returns the first index not begun. Nothing is stored where nothing may be: in a fork, or when the mapping may be gone. */
static u64 range_end(Run *run)
{
    Endpoint *e = run->b->endpoint;
    Running *r = run->running;
    if (e->forked) /* its lock may be held by a thread that is not here */
        return 0;
    if (!e->closed) {
        fence();
        if (run->done > run->lo)
            bundle_tell(run->b, run->lo, run->done);
        store_release(run->cur + 8, 0);
    }
    pthread_mutex_lock(&e->lock);
    u64 next = running_limit(r);
    atomic_store_explicit(&r->began_ns, 0, memory_order_release);
    pthread_mutex_unlock(&e->lock);
    return next;
}

static void alloc_set(Bundle *b, PyObject *alloc)
{
    if (alloc == Py_None || alloc == b->alloc)
        return;
    PyObject *before = b->alloc;
    b->alloc = Py_NewRef(alloc);
    Py_XDECREF(before);
}

/* What run() was asked for, checked. 0 with an exception. */
static int run_arguments(Run *run, PyObject *const *v, Py_ssize_t n, u64 *range_id, u64 *hi)
{
    Bundle *b = run->b;
    u64 thread;
    u64 range[2];
    if (n != 7 || !PyCallable_Check(v[4]) || (v[6] != Py_None && !PyCallable_Check(v[6]))) {
        PyErr_SetString(PyExc_TypeError, "expected thread, range_id, lo, hi, a callable, budget_ns, and alloc, a callable or None");
        return 0;
    }
    if (!number(v[0], &thread) || !number(v[1], range_id) || !bundle_range(b, v[2], v[3], range) || !number(v[5], &run->budget_ns))
        return 0;
    if (thread >= NC_CUR_THREADS) {
        PyErr_Format(PyExc_ValueError, "expected a thread number below %llu, saw %llu", NC_CUR_THREADS, thread);
        return 0;
    }
    run->running = &b->endpoint->running[thread];
    run->cur = b->endpoint->words + NC_SLOT_AT_CUR + 16 * thread;
    run->callable = v[4];
    run->lo = range[0];
    run->done = range[0];
    *hi = range[1];
    return bundle_usable(b);
}

PyObject *bundle_run(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Run run = {.b = (Bundle *)self, .stride = 1};
    u64 range_id;
    u64 hi;
    if (!run_arguments(&run, v, n, &range_id, &hi))
        return NULL;
    run.began_ns = now_ns();
    run.looked_ns = run.began_ns;
    run.signals_ns = run.began_ns;
    alloc_set(run.b, v[6]);
    if (!bundle_usable(run.b) || !range_begin(&run, range_id, hi)) /* what alloc was may have run code as it went */
        return NULL;
    int rc = items_run(&run);
    u64 next = range_end(&run);
    if (rc < 0)
        return NULL;
    return Py_BuildValue("KKK", next, now_ns() - run.began_ns, run.exceptions);
}
