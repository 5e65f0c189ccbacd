/* What stands in the status words: the client and the keeper look at outcomes here, and the keeper stores LOST.
 *
 * B2: each is one word, copied once; what it names is whole and does not change (P2).
 */
#include "arguments.h"
#include "bundle.h"

static inline u64 status_load(const Bundle *b, u64 index)
{
    return atomic_load_explicit(&b->statuses[index], memory_order_acquire);
}

PyObject *bundle_status(PyObject *self, PyObject *at)
{
    Bundle *b = (Bundle *)self;
    u64 index;
    if (!bundle_usable(b) || !bundle_index(b, at, &index))
        return NULL;
    return PyLong_FromUnsignedLongLong(word_kind(status_load(b, index)));
}

PyObject *bundle_value(PyObject *self, PyObject *at)
{
    Bundle *b = (Bundle *)self;
    u64 index;
    if (!bundle_usable(b) || !bundle_index(b, at, &index))
        return NULL;
    u64 word = status_load(b, index);
    if (word)
        return value_get(b, word, index, DIRECTION_STATUS, NULL);
    PyErr_Format(PyExc_LookupError, "expected item %llu to have a status, saw none yet: wait for it first", index);
    return NULL;
}

static int gather_one(Bundle *b, u64 word, u64 index, PyObject *into)
{
    PyObject *value = value_get(b, word, index, DIRECTION_STATUS, NULL);
    if (!value)
        return -1;
    int rc = PyList_Append(into, value);
    Py_DECREF(value);
    return rc;
}

PyObject *bundle_gather(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Bundle *b = (Bundle *)self;
    u64 range[2];
    if (n < 3 || n > 4 || !PyList_Check(v[2])) {
        PyErr_SetString(PyExc_TypeError, "expected lo, hi, a list, and perhaps skip_errors");
        return NULL;
    }
    int skip_errors = n > 3 ? PyObject_IsTrue(v[3]) : 0;
    if (skip_errors < 0 || !bundle_range(b, v[0], v[1], range))
        return NULL;
    u64 index = range[0];
    for (; index < range[1]; index++) {
        if (!bundle_usable(b))
            return NULL;
        u64 word = status_load(b, index);
        if (!word)
            break;
        if (skip_errors && is_failure(word))
            continue;
        if (gather_one(b, word, index, v[2]) < 0)
            return NULL;
    }
    return PyLong_FromUnsignedLongLong(index);
}

PyObject *bundle_count(PyObject *self, PyObject *unused)
{
    Bundle *b = (Bundle *)self;
    if (!bundle_usable(b))
        return NULL;
    u64 n = atomic_load_explicit(b->count, memory_order_acquire);
    return PyLong_FromUnsignedLongLong(n < b->capacity ? n : b->capacity);
}

static int run_append(PyObject *list, u64 lo, u64 hi)
{
    PyObject *run = Py_BuildValue("KK", lo, hi);
    int rc = run ? PyList_Append(list, run) : -1;
    Py_XDECREF(run);
    return rc;
}

PyObject *bundle_unset(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    Bundle *b = (Bundle *)self;
    u64 range[2];
    if (!numbers(v, n, 2, range) || !bundle_usable(b) || !bundle_range(b, v[0], v[1], range))
        return NULL;
    PyObject *list = PyList_New(0);
    u64 lo = range[0];
    while (list && lo < range[1]) {
        while (lo < range[1] && status_load(b, lo))
            lo++;
        u64 hi = lo;
        while (hi < range[1] && !status_load(b, hi))
            hi++;
        if (lo < hi && run_append(list, lo, hi) < 0)
            Py_CLEAR(list);
        lo = hi;
    }
    return list;
}

PyObject *bundle_lose(PyObject *self, PyObject *at)
{
    Bundle *b = (Bundle *)self;
    u64 index;
    if (!bundle_usable(b) || !bundle_index(b, at, &index))
        return NULL;
    if (!status_load(b, index)) {
        atomic_store_explicit(&b->statuses[index], word_of(NC_KIND_LOST, 0, 0), memory_order_release);
        fence();
        bundle_tell(b, index, index + 1);
    }
    Py_RETURN_NONE;
}
