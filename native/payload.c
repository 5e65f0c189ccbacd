/* Words into values (B2, B3). Nobody's bytes are trusted (decision 10).
 *
 * The word is a copy already. Its kind and span are checked; the payload is copied out of the region, once; the copy is decoded,
 * or its MAC is compared and it is unpickled. What is wrong raises RegionCorrupt, a wrong MAC AccessRefused.
 */
#include <string.h>

#include "codec.h"

#define SMALL_MAX 128u /* below, a copy on the stack is cheaper than the scratch buffer */
#define SCRATCH_MIN 4096u
#define SCRATCH_KEPT_MAX (1u << 20)
#define STRAIGHT_FROM 4096u /* bytes objects of this size are made from the region in one copy */

typedef struct {
    const char *from; /* in the region: copied, then looked at */
    u64 n;
} Payload;

/* The copy is complete when this returns, and the compiler does not look at the region again for what was copied. */
static inline void copy_out(void *to, const char *from, u64 n)
{
    memcpy(to, from, n);
    atomic_signal_fence(memory_order_seq_cst);
}

static int payload_find(Bundle *b, u64 word, Payload *p)
{
    Region *r = b->endpoint->region;
    u64 offset = word_offset(word);
    u64 n = word_length(word);
    if (n == NC_LENGTH_LONG) {
        if ((offset & 7) || !heap_holds(r, offset, 8)) {
            raise_corrupt("expected a payload inside the heap, saw one at %llu; whoever stored the word is broken", offset);
            return 0;
        }
        n = load_acquire(r->base + offset);
        offset += 8;
    }
    if (!heap_holds(r, offset, n)) {
        raise_corrupt("expected a payload inside the heap, saw %llu bytes at %llu; whoever stored the word is broken", n, offset);
        return 0;
    }
    p->from = r->base + offset;
    p->n = n;
    b->weight += n;
    return 1;
}

static int payload_take(Payload *p, u64 *word)
{
    if (p->n < 8) {
        raise_corrupt("expected 8 bytes or more before a payload, saw %llu; whoever stored it is broken", p->n);
        return 0;
    }
    copy_out(word, p->from, 8);
    p->from += 8;
    p->n -= 8;
    return 1;
}

/* Taken out of the bundle while it is used: a finalizer may run in between, and read another item. */
static char *scratch_take(Bundle *b, u64 need, u64 *room)
{
    char *scratch = b->scratch;
    *room = b->scratch_room;
    b->scratch = NULL;
    b->scratch_room = 0;
    if (scratch && *room >= need)
        return scratch;
    PyMem_Free(scratch);
    *room = SCRATCH_MIN;
    while (*room < need)
        *room *= 2;
    scratch = PyMem_Malloc(*room);
    if (!scratch)
        PyErr_NoMemory();
    return scratch;
}

static void scratch_give(Bundle *b, char *scratch, u64 room)
{
    if (b->scratch || room > SCRATCH_KEPT_MAX) {
        PyMem_Free(scratch);
        return;
    }
    b->scratch = scratch;
    b->scratch_room = room;
}

static PyObject *bytes_straight(const Payload *p)
{
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)p->n);
    if (bytes)
        copy_out(PyBytes_AsString(bytes), p->from, p->n);
    return bytes;
}

/* A large bytes object by itself: nothing in it is looked at, so it needs no scratch. NULL without an exception: it is not. */
static PyObject *codec_straight(const Payload *p)
{
    char head[5];
    uint32_t n;
    if (p->n < STRAIGHT_FROM)
        return NULL;
    copy_out(head, p->from, 5);
    memcpy(&n, head + 1, 4);
    if (head[0] != TAG_BYTES || n != p->n - 5)
        return NULL;
    Payload inner = {p->from + 5, n};
    return bytes_straight(&inner);
}

static PyObject *codec_get(Bundle *b, const Payload *p)
{
    u64 room;
    if (p->n <= SMALL_MAX) {
        char small[SMALL_MAX];
        copy_out(small, p->from, p->n);
        return codec_decode(small, p->n);
    }
    PyObject *value = codec_straight(p);
    if (value || PyErr_Occurred())
        return value;
    char *scratch = scratch_take(b, p->n, &room);
    if (!scratch)
        return NULL;
    copy_out(scratch, p->from, p->n);
    value = codec_decode(scratch, p->n);
    scratch_give(b, scratch, room);
    return value;
}

/* The bytes under a MAC, copied out, and right. */
static PyObject *sealed_get(Bundle *b, Payload *p, u64 kind, u64 index, u64 direction, u64 function)
{
    u64 mac;
    if (!bundle_keyed(b) || !payload_take(p, &mac))
        return NULL;
    PyObject *bytes = bytes_straight(p);
    if (!bytes || mac == mac_of_payload(b, kind, index, direction, function, PyBytes_AsString(bytes), p->n))
        return bytes;
    Py_DECREF(bytes);
    return raise_refused("expected bytes under the cluster's key (bundle %llu, generation %llu, item %llu), saw a wrong MAC, and did not "
                         "unpickle them: an endpoint has another key, or is not to be trusted; compare the key files of all members",
                         b->offset, b->generation, index);
}

int bundle_keyed(const Bundle *b)
{
    if (b->endpoint->region->keyed)
        return 1;
    raise_refused("expected the cluster's key to pickle or unpickle with, saw none: open the endpoint with a key file");
    return 0;
}

/* ---- words */

static PyObject *bad_word(u64 word)
{
    return raise_corrupt("expected an item or status word, saw kind %llu (word %llu); whoever stored it is broken", word_kind(word), word);
}

static PyObject *const_get(u64 word)
{
    if (word == word_of(NC_KIND_CONST, 0, CONST_NONE))
        return Py_NewRef(Py_None);
    if (word == word_of(NC_KIND_CONST, 0, CONST_TRUE))
        return Py_NewRef(Py_True);
    if (word == word_of(NC_KIND_CONST, 0, CONST_FALSE))
        return Py_NewRef(Py_False);
    return bad_word(word);
}

static PyObject *payload_get(Bundle *b, u64 word, u64 index, u64 direction, u64 *function)
{
    Payload p;
    u64 id = 0;
    if (!payload_find(b, word, &p))
        return NULL;
    if (function) {
        if (!payload_take(&p, &id))
            return NULL;
        *function = id;
    }
    if (word_kind(word) == NC_KIND_CODEC)
        return codec_get(b, &p);
    PyObject *bytes = sealed_get(b, &p, NC_KIND_PICKLE, index, direction, id);
    PyObject *value = bytes ? lent_call(lent.loads, bytes) : NULL;
    Py_XDECREF(bytes);
    return value;
}

static PyObject *raised_get(Bundle *b, u64 word, u64 index)
{
    Payload p;
    PyObject *bytes = payload_find(b, word, &p) ? sealed_get(b, &p, NC_KIND_EXC, index, DIRECTION_STATUS, 0) : NULL;
    PyObject *error = bytes ? lent_call(lent.load_exception, bytes) : NULL;
    Py_XDECREF(bytes);
    if (error && !PyExceptionInstance_Check(error)) {
        PyErr_Format(PyExc_TypeError, "expected load_exception to return an exception, saw %R", (PyObject *)Py_TYPE(error));
        Py_CLEAR(error);
    }
    return error;
}

PyObject *exception_get(Bundle *b, u64 word, u64 index)
{
    if (word_kind(word) == NC_KIND_EXC)
        return raised_get(b, word, index);
    PyObject *text;
    PyObject *type;
    if (word_kind(word) == NC_KIND_CANCELLED) {
        type = lent.cancelled;
        text = PyUnicode_FromFormat("expected item %llu to run, saw it cancelled before a worker began it", index);
    } else {
        type = lent.lost;
        text = PyUnicode_FromFormat("expected a result of item %llu, saw the workers that ran it die", index);
    }
    PyObject *error = text ? lent_call(type, text) : NULL;
    Py_XDECREF(text);
    return error;
}

static PyObject *outcome_raise(Bundle *b, u64 word, u64 index)
{
    PyObject *error = exception_get(b, word, index);
    if (error)
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    Py_XDECREF(error);
    return NULL;
}

PyObject *value_get(Bundle *b, u64 word, u64 index, u64 direction, u64 *function)
{
    switch (word_kind(word)) {
    case NC_KIND_INT:
        return function ? bad_word(word) : PyLong_FromLongLong(word_int(word));
    case NC_KIND_CONST:
        return function ? bad_word(word) : const_get(word);
    case NC_KIND_CODEC:
    case NC_KIND_PICKLE:
        return payload_get(b, word, index, direction, function);
    case NC_KIND_EXC:
    case NC_KIND_CANCELLED:
    case NC_KIND_LOST:
        return direction == DIRECTION_STATUS ? outcome_raise(b, word, index) : bad_word(word);
    }
    return bad_word(word);
}
