/* Future: a bundle and an index. The status word is all the state there is (P3). */
#include "bundle.h"

Future *future_make(Bundle *b, u64 index)
{
    Future *f = PyObject_New(Future, FutureType);
    if (!f)
        return NULL;
    Py_INCREF((PyObject *)b);
    f->bundle = b;
    f->index = index;
    return f;
}

static PyObject *future_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"bundle", "index", NULL};
    PyObject *bundle;
    PyObject *at;
    u64 index;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO", names, &bundle, &at))
        return NULL;
    if (!PyObject_TypeCheck(bundle, BundleType)) {
        PyErr_Format(PyExc_TypeError, "expected a Bundle, saw %R", (PyObject *)Py_TYPE(bundle));
        return NULL;
    }
    return bundle_index((Bundle *)bundle, at, &index) ? (PyObject *)future_make((Bundle *)bundle, index) : NULL;
}

static void future_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    Py_DECREF((PyObject *)((Future *)self)->bundle);
    PyObject_Free(self);
    Py_DECREF(type);
}

static u64 future_look(const Future *f)
{
    return atomic_load_explicit(&f->bundle->statuses[f->index], memory_order_acquire);
}

/* The status word; waits for it. 0 with an exception. */
static u64 future_wait(Future *f, PyObject *timeout)
{
    if (!bundle_usable(f->bundle))
        return 0;
    u64 word = future_look(f);
    if (word)
        return word;
    PyObject *waited = PyObject_CallMethod((PyObject *)f->bundle, "wait_item", "KO", f->index, timeout);
    if (!waited)
        return 0;
    Py_DECREF(waited);
    if (!bundle_usable(f->bundle))
        return 0;
    word = future_look(f);
    if (!word)
        PyErr_Format(PyExc_TimeoutError, "expected item %llu to be done within %S s, saw no status: wait longer", f->index, timeout);
    return word;
}

/* One argument, by position or by name. NULL with an exception. */
static PyObject *timeout_argument(PyObject *const *v, Py_ssize_t n, PyObject *names)
{
    Py_ssize_t named = names ? PyTuple_Size(names) : 0;
    if (n + named == 0)
        return Py_None;
    if (n + named == 1 && (!named || PyUnicode_CompareWithASCIIString(PyTuple_GetItem(names, 0), "timeout") == 0))
        return v[0];
    PyErr_SetString(PyExc_TypeError, "expected no argument but `timeout`, in seconds");
    return NULL;
}

static PyObject *future_done(PyObject *self, PyObject *unused)
{
    Future *f = (Future *)self;
    return bundle_usable(f->bundle) ? PyBool_FromLong(future_look(f) != 0) : NULL;
}

static PyObject *future_result(PyObject *self, PyObject *const *v, Py_ssize_t n, PyObject *names)
{
    Future *f = (Future *)self;
    PyObject *timeout = timeout_argument(v, n, names);
    u64 word = timeout ? future_wait(f, timeout) : 0;
    return word ? value_get(f->bundle, word, f->index, DIRECTION_STATUS, NULL) : NULL;
}

static PyObject *future_exception(PyObject *self, PyObject *const *v, Py_ssize_t n, PyObject *names)
{
    Future *f = (Future *)self;
    PyObject *timeout = timeout_argument(v, n, names);
    u64 word = timeout ? future_wait(f, timeout) : 0;
    if (!word)
        return NULL;
    if (word_kind(word) == NC_KIND_CANCELLED) /* raised, as concurrent.futures does */
        return value_get(f->bundle, word, f->index, DIRECTION_STATUS, NULL);
    if (is_failure(word))
        return exception_get(f->bundle, word, f->index);
    Py_RETURN_NONE;
}

static PyObject *future_get_bundle(PyObject *self, void *closure)
{
    return Py_NewRef((PyObject *)((Future *)self)->bundle);
}

static PyObject *future_get_index(PyObject *self, void *closure)
{
    return PyLong_FromUnsignedLongLong(((Future *)self)->index);
}

static Py_hash_t future_hash(PyObject *self)
{
    const Future *f = (const Future *)self;
    u64 mixed = ((u64)(uintptr_t)f->bundle >> 4) * 1000003ull + f->index;
    return (Py_hash_t)(mixed & 0x7fffffffffffffffull); /* never -1 */
}

static PyObject *future_compare(PyObject *a, PyObject *b, int op)
{
    if (Py_TYPE(b) != FutureType || (op != Py_EQ && op != Py_NE))
        return Py_NewRef(Py_NotImplemented);
    int equal = ((Future *)a)->bundle == ((Future *)b)->bundle && ((Future *)a)->index == ((Future *)b)->index;
    return PyBool_FromLong(equal == (op == Py_EQ));
}

#define WITH_NAMES(name, function, doc) {name, (PyCFunction)(void *)function, METH_FASTCALL | METH_KEYWORDS, doc}
static PyMethodDef future_methods[] = {
    {"done", future_done, METH_NOARGS, "done() -> whether there is an outcome: a result, an exception, cancelled or lost. Never waits."},
    WITH_NAMES("result", future_result,
               "result(timeout=None) -> the value, decoded anew each time. Waits `timeout` seconds (TimeoutError), or for ever.\n"
               "Raises the task's own exception with the remote traceback as its cause, TaskCancelled, or WorkerDied."),
    WITH_NAMES("exception", future_exception,
               "exception(timeout=None) -> the task's exception, WorkerDied, or None if it has a result. Waits as result() does.\n"
               "Raises TaskCancelled if it was cancelled."),
    {0},
};

static PyGetSetDef future_getters[] = {
    {"bundle", future_get_bundle, NULL, "the bundle, which lives as long as any of its futures", NULL},
    {"index", future_get_index, NULL, "of the item in it", NULL},
    {0},
};

static PyType_Slot future_slots[] = {
    {Py_tp_doc, "The outcome of one task. Made by Client.submit and Client.map; equal if they are of the same task."},
    {Py_tp_new, future_new},
    {Py_tp_dealloc, future_dealloc},
    {Py_tp_methods, future_methods},
    {Py_tp_getset, future_getters},
    {Py_tp_hash, future_hash},
    {Py_tp_richcompare, future_compare},
    {0},
};

PyType_Spec future_spec = {"nahanni_compute._native.Future", sizeof(Future), 0, Py_TPFLAGS_DEFAULT, future_slots};
