/* Bundle: the type, and the header in the region.
 *
 * B1: a block of the client's: header, item words, status words. Whoever opens it copies the header once, checks the copy, and
 * uses the copy. Methods: items.c (client writes), statuses.c (outcomes), run.c (worker).
 */
#include <stdarg.h>
#include <stddef.h>

#include "arguments.h"
#include "bundle.h"

#define CAPACITY_MAX 0xffffffffull /* the cursor of a range has 32 bits for an index */

/* ---- helpers of all methods */

PyObject *raise_corrupt(const char *format, ...)
{
    va_list v;
    va_start(v, format);
    PyErr_FormatV(lent.corrupt ? lent.corrupt : PyExc_ValueError, format, v);
    va_end(v);
    return NULL;
}

PyObject *raise_refused(const char *format, ...)
{
    va_list v;
    va_start(v, format);
    PyErr_FormatV(lent.refused ? lent.refused : PyExc_PermissionError, format, v);
    va_end(v);
    return NULL;
}

PyObject *lent_call(PyObject *lent_callable, PyObject *argument)
{
    if (lent_callable)
        return PyObject_CallFunctionObjArgs(lent_callable, argument, NULL);
    PyErr_SetString(PyExc_RuntimeError, "expected _native.configure() to be called first, saw that it was not: import nahanni_compute, "
                                        "not its core");
    return NULL;
}

int bundle_index(Bundle *b, PyObject *v, u64 *index)
{
    if (!number(v, index))
        return 0;
    if (*index < b->capacity)
        return 1;
    PyErr_Format(PyExc_IndexError, "expected an index below the bundle's capacity of %llu, saw %llu", b->capacity, *index);
    return 0;
}

int bundle_range(Bundle *b, PyObject *lo, PyObject *hi, u64 range[2])
{
    if (!number(lo, &range[0]) || !number(hi, &range[1]))
        return 0;
    if (range[0] <= range[1] && range[1] <= b->capacity)
        return 1;
    PyErr_Format(PyExc_IndexError, "expected a range inside the bundle's capacity of %llu, saw %llu to %llu", b->capacity, range[0],
                 range[1]);
    return 0;
}

/* ---- the header */

static u64 words_bytes(u64 capacity)
{
    return (capacity * 8 + 63) & ~63ull;
}

static u64 header_word(const Region *r, u64 offset, u64 at)
{
    return load_relaxed(r->base + offset + at);
}

static int words_fit(const Region *r, u64 offset, u64 capacity)
{
    return !(offset & 7) && heap_holds(r, offset, capacity * 8);
}

/* What the header says, copied into `b`; then checked there. */
static int header_read(Bundle *b)
{
    Region *r = b->endpoint->region;
    if ((b->offset & 63) || !heap_holds(r, b->offset, NC_BUNDLE_SIZE)) {
        raise_corrupt("expected a bundle in the heap, aligned to 64, saw %llu; whoever named it is broken", b->offset);
        return 0;
    }
    u64 magic = load_acquire(r->base + b->offset + NC_BUNDLE_AT_MAGIC);
    u64 generation = header_word(r, b->offset, NC_BUNDLE_AT_GENERATION);
    u64 items = header_word(r, b->offset, NC_BUNDLE_AT_ITEMS);
    u64 statuses = header_word(r, b->offset, NC_BUNDLE_AT_STATUSES);
    b->capacity = header_word(r, b->offset, NC_BUNDLE_AT_CAPACITY);
    b->owner = header_word(r, b->offset, NC_BUNDLE_AT_OWNER);
    b->function = header_word(r, b->offset, NC_BUNDLE_AT_FUNCTION);
    b->flags = header_word(r, b->offset, NC_BUNDLE_AT_FLAGS);
    if (magic != NC_BUNDLE_MAGIC || generation != b->generation) {
        raise_corrupt("expected generation %llu of the bundle at %llu, saw magic %llu, generation %llu; it was freed, "
                      "or its owner is broken",
                      b->generation, b->offset, magic, generation);
        return 0;
    }
    if (!b->capacity || b->capacity > CAPACITY_MAX || b->owner >= NC_SLOTS) {
        raise_corrupt("expected 1 to %llu items and an owner below %llu in the bundle at %llu, saw capacity %llu, owner %llu; its owner "
                      "is broken",
                      CAPACITY_MAX, NC_SLOTS, b->offset, b->capacity, b->owner);
        return 0;
    }
    if (!words_fit(r, items, b->capacity) || !words_fit(r, statuses, b->capacity) || items < b->offset + NC_BUNDLE_SIZE ||
        statuses < items + b->capacity * 8) {
        raise_corrupt("expected items and then statuses behind the header of the bundle at %llu, saw them at %llu and %llu, capacity "
                      "%llu; its owner is broken",
                      b->offset, items, statuses, b->capacity);
        return 0;
    }
    b->items = (a64 *)(r->base + items);
    b->statuses = (a64 *)(r->base + statuses);
    b->count = (a64 *)(r->base + b->offset + NC_BUNDLE_AT_COUNT);
    return 1;
}

/* C clears the statuses before OPEN; the magic is gone first and comes last. */
static void header_write(Endpoint *e, u64 offset, u64 generation, u64 capacity, u64 function, u64 flags)
{
    char *to = e->region->base + offset;
    u64 items = offset + NC_BUNDLE_SIZE;
    u64 statuses = items + words_bytes(capacity);
    store_release(to + NC_BUNDLE_AT_MAGIC, 0);
    store_release(to + NC_BUNDLE_AT_GENERATION, generation);
    store_relaxed(to + NC_BUNDLE_AT_CAPACITY, capacity);
    store_relaxed(to + NC_BUNDLE_AT_ITEMS, items);
    store_relaxed(to + NC_BUNDLE_AT_STATUSES, statuses);
    store_relaxed(to + NC_BUNDLE_AT_OWNER, e->slot);
    store_relaxed(to + NC_BUNDLE_AT_FUNCTION, function);
    store_relaxed(to + NC_BUNDLE_AT_FLAGS, flags);
    store_relaxed(to + NC_BUNDLE_AT_COUNT, 0);
    memset(e->region->base + statuses, 0, words_bytes(capacity));
    store_release(to + NC_BUNDLE_AT_MAGIC, NC_BUNDLE_MAGIC);
}

static int is_endpoint(PyObject *v)
{
    if (PyObject_TypeCheck(v, EndpointType))
        return endpoint_usable((Endpoint *)v);
    PyErr_Format(PyExc_TypeError, "expected an Endpoint, saw %R", (PyObject *)Py_TYPE(v));
    return 0;
}

static PyObject *bundle_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"endpoint", "offset", "generation", NULL};
    PyObject *endpoint;
    PyObject *parts[2];
    u64 name[2];
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OOO", names, &endpoint, &parts[0], &parts[1]))
        return NULL;
    if (!numbers(parts, 2, 2, name) || !is_endpoint(endpoint))
        return NULL;
    Bundle *b = object_new(type);
    if (!b)
        return NULL;
    b->endpoint = (Endpoint *)Py_NewRef(endpoint);
    b->offset = name[0];
    b->generation = name[1];
    if (!header_read(b))
        Py_CLEAR(b);
    return (PyObject *)b;
}

static PyObject *bundle_create(PyObject *type, PyObject *const *v, Py_ssize_t n)
{
    u64 a[5]; /* offset, generation, capacity, function id, flags */
    if (n != 6) {
        PyErr_Format(PyExc_TypeError, "expected 6 arguments, saw %zd", n);
        return NULL;
    }
    if (!numbers(v + 1, 5, 5, a) || !is_endpoint(v[0]))
        return NULL;
    Endpoint *e = (Endpoint *)v[0];
    if (!a[2] || a[2] > CAPACITY_MAX || (a[0] & 63) || !heap_holds(e->region, a[0], NC_BUNDLE_SIZE + 2 * words_bytes(a[2]))) {
        PyErr_Format(PyExc_ValueError, "expected a block in the heap, aligned to 64, with room for 1 to %llu items, saw %llu for %llu "
                                       "items", CAPACITY_MAX, a[0], a[2]);
        return NULL;
    }
    header_write(e, a[0], a[1], a[2], a[3], a[4]);
    return PyObject_CallFunction(type, "OKK", v[0], a[0], a[1]);
}

/* ---- the object */

static int bundle_traverse(PyObject *self, visitproc visit, void *arg)
{
    Bundle *b = (Bundle *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT((PyObject *)b->endpoint);
    Py_VISIT(b->alloc);
    Py_VISIT(b->callable);
    return 0;
}

/* The endpoint stays until the end: every method needs it. It leads back here only while it tracks us, and then we live. */
static int bundle_clear(PyObject *self)
{
    Bundle *b = (Bundle *)self;
    Py_CLEAR(b->alloc);
    Py_CLEAR(b->callable);
    return 0;
}

static void bundle_dealloc(PyObject *self)
{
    Bundle *b = (Bundle *)self;
    PyObject_GC_UnTrack(self);
    bundle_clear(self);
    Py_XDECREF((PyObject *)b->endpoint);
    PyMem_Free(b->scratch);
    object_free(self);
}

static PyObject *bundle_future(PyObject *self, PyObject *at)
{
    u64 index;
    return bundle_index((Bundle *)self, at, &index) ? (PyObject *)future_make((Bundle *)self, index) : NULL;
}

static PyObject *bundle_futures(PyObject *self, PyObject *const *v, Py_ssize_t n)
{
    u64 range[2];
    if (!numbers(v, n, 2, range) || !bundle_range((Bundle *)self, v[0], v[1], range))
        return NULL;
    PyObject *list = PyList_New((Py_ssize_t)(range[1] - range[0]));
    for (u64 i = range[0]; list && i < range[1]; i++) {
        Future *f = future_make((Bundle *)self, i);
        if (!f || PyList_SetItem(list, (Py_ssize_t)(i - range[0]), (PyObject *)f) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static PyObject *bundle_get_number(PyObject *self, void *at)
{
    u64 value;
    memcpy(&value, (char *)self + (uintptr_t)at, sizeof value);
    return PyLong_FromUnsignedLongLong(value);
}

static PyObject *bundle_weigh(PyObject *self, PyObject *bytes)
{
    u64 n;
    if (!number(bytes, &n))
        return NULL;
    ((Bundle *)self)->weight += n;
    Py_RETURN_NONE;
}

static PyObject *bundle_get_heavy(PyObject *self, void *closure)
{
    return PyBool_FromLong(bundle_is_heavy((Bundle *)self));
}

static PyObject *bundle_shut(PyObject *self, PyObject *unused)
{
    ((Bundle *)self)->shut = 1;
    Py_RETURN_NONE;
}

static PyObject *bundle_get_alloc(PyObject *self, void *closure)
{
    Bundle *b = (Bundle *)self;
    return Py_NewRef(b->alloc ? b->alloc : Py_None);
}

static int bundle_set_alloc(PyObject *self, PyObject *v, void *closure)
{
    Bundle *b = (Bundle *)self;
    if (v == Py_None)
        v = NULL;
    if (v && !PyCallable_Check(v)) {
        PyErr_SetString(PyExc_TypeError, "expected a callable alloc(bytes) -> (offset, bytes), or None");
        return -1;
    }
    PyObject *before = b->alloc;
    b->alloc = v ? Py_NewRef(v) : NULL;
    Py_XDECREF(before);
    return 0;
}

static PyMethodDef bundle_methods[] = {
    {"create", (PyCFunction)(void *)bundle_create, METH_FASTCALL | METH_CLASS,
     "create(endpoint, offset, generation, capacity, function_id, flags) -> bundle: lays out a block of ours (64-byte aligned, of\n"
     "bundle_bytes(capacity)), clears its statuses, stores the magic last (B1), and returns cls(endpoint, offset, generation).\n"
     "function_id 0: items carry their own. Nobody is told."},
    FASTCALL("fill", bundle_fill,
             "fill(iterator, maximum) -> items added, at most `maximum` and what there is room for. The count is published every 1024\n"
             "items and at the end (S5). What the iterator or an item raises propagates; items before it stay published, and `n` says\n"
             "how many. Rings nobody."),
    FASTCALL("append", bundle_append,
             "append(function_id, value) -> Future, or None if the bundle is full, or heavy (weigh). Publishes the count (S5), rings\n"
             "nobody. With per-item functions `value` is a tuple args, or a list [args, kwargs]; else function_id is the bundle's, or 0."),
    FASTCALL("ring", bundle_ring,
             "ring(keeper_slot, gap_ns) -> bool: S2, put off by S6. False: the keeper sleeps and a ring is owed, since this bundle rang\n"
             "less than gap_ns ago and owes fewer than 64; call again before any wait. gap_ns 0 puts nothing off."),
    {"shut", bundle_shut, METH_NOARGS, "shut(): no item is added from now on, by whatever thread; say CLOSE then."},
    {"weigh", bundle_weigh, METH_O,
     "weigh(bytes): it keeps so much more than its payloads. append() calls a bundle full that keeps more than 4 MiB."},
    {"future", bundle_future, METH_O, "future(index) -> Future; made on demand, equal however often it is."},
    FASTCALL("futures", bundle_futures, "futures(lo, hi) -> [Future]"),
    {"status", bundle_status, METH_O, "status(index) -> kind of its status word, KIND_UNSET (0) while it has none."},
    {"value", bundle_value, METH_O,
     "value(index) -> the result, decoded anew each time. Raises the task's exception, TaskCancelled or WorkerDied; LookupError if\n"
     "there is no status yet; RegionCorrupt or AccessRefused for what a broken endpoint stored."},
    FASTCALL("gather", bundle_gather,
             "gather(lo, hi, list, skip_errors=False) -> first index without a status, or hi. Appends the values before it. Raises at a\n"
             "failed item as value() does, or leaves it out. Never waits."),
    {"count", bundle_count, METH_NOARGS, "count() -> items that the owner has published, never more than the capacity (S5)."},
    FASTCALL("unset", bundle_unset, "unset(lo, hi) -> [(lo, hi)]: runs of items without a status at this moment."),
    {"lose", bundle_lose, METH_O,
     "lose(index): stores KIND_LOST if there is no status, and rings the owner if it waits for it. For the keeper, while nobody\n"
     "holds the item (M1b)."},
    FASTCALL("run", bundle_run,
             "run(thread, range_id, lo, hi, function, budget_ns, alloc) -> (next, ns, exceptions): the item loop (B5). Each of lo..hi is\n"
             "called and its status stored, until budget_ns is used up or the pump has given the rest back (B7); `next` is the first\n"
             "index not begun. In a bundle with per-item functions `function` is a loader: id -> callable. alloc(bytes) -> (offset,\n"
             "bytes) is asked for room for results, and says CHUNK, before a status refers to it (B4). Whatever a task raises is stored\n"
             "as its outcome. Raises only if an outcome cannot be stored (no room), a signal handler raises, or the endpoint closes or\n"
             "forks meanwhile: then unset(lo, hi) says what is left."),
    {0},
};

#define NUMBER(name, doc) {#name, bundle_get_number, NULL, doc, (void *)offsetof(Bundle, name)}
static PyGetSetDef bundle_getters[] = {
    NUMBER(offset, "of its block"),
    NUMBER(generation, "with the offset, its name"),
    NUMBER(capacity, "items there is room for"),
    NUMBER(owner, "slot of the client"),
    NUMBER(function, "function id, or 0: each item carries its own"),
    NUMBER(flags, "BUNDLE_*"),
    NUMBER(n, "client: items written; keeper: the count as Endpoint.counts() saw it last"),
    {"heavy", bundle_get_heavy, NULL, "whether it keeps so much that append() calls it full", NULL},
    {"alloc", bundle_get_alloc, bundle_set_alloc,
     "alloc(bytes) -> (offset, bytes): a block in an arena of this process, for payloads", NULL},
    {0},
};

static PyType_Slot bundle_slots[] = {
    {Py_tp_doc, "Bundle(endpoint, offset, generation): opens what an owner laid out. Copies its header once and checks the copy (B1);\n"
                "RegionCorrupt if it lies, or is of another generation."},
    {Py_tp_new, bundle_new},
    {Py_tp_dealloc, bundle_dealloc},
    {Py_tp_traverse, bundle_traverse},
    {Py_tp_clear, bundle_clear},
    {Py_tp_methods, bundle_methods},
    {Py_tp_getset, bundle_getters},
    {0},
};

PyType_Spec bundle_spec = {"nahanni_compute._native.Bundle", sizeof(Bundle), 0,
                           Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, bundle_slots};
