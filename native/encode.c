/* Values into words, their payloads into this process's own blocks (B2, B4).
 *
 * A value is encoded where it will lie. What finds no room is only counted; then `alloc` is asked for that many bytes and the
 * value is encoded again. Python code may run inside `alloc` and `dumps`, and nowhere else here: it may use this very bundle,
 * so `at` and `end` are looked up again after each.
 */
#include <string.h>

#include "codec.h"

#define STREAM_FROM 4096 /* below, an inlined memcpy; from here on copy_to_region decides */

typedef struct {
    char *at;
    u64 room;
    u64 n; /* bytes so far, with those that found no room */
} Encoder;

/* Where a payload goes: what is left of a block. Both ends are multiples of 8. */
typedef struct {
    u64 at;
    u64 end;
} Place;

enum { ENCODE_FAILED = -1, ENCODE_UNSUPPORTED = 0, ENCODE_DONE = 1 };

static inline char *encoder_take(Encoder *e, u64 n)
{
    char *to = e->n + n <= e->room ? e->at + e->n : NULL;
    e->n += n;
    return to;
}

static inline int put_tag(Encoder *e, char tag)
{
    char *to = encoder_take(e, 1);
    if (to)
        *to = tag;
    return ENCODE_DONE;
}

static inline int put_eight(Encoder *e, char tag, const void *eight)
{
    char *to = encoder_take(e, 9);
    if (to) {
        *to = tag;
        memcpy(to + 1, eight, 8);
    }
    return ENCODE_DONE;
}

static inline int put_number(Encoder *e, char tag, Py_ssize_t n)
{
    uint32_t number = (uint32_t)n;
    if ((u64)n != number)
        return ENCODE_UNSUPPORTED;
    char *to = encoder_take(e, 5);
    if (to) {
        *to = tag;
        memcpy(to + 1, &number, 4);
    }
    return ENCODE_DONE;
}

static int put_text(Encoder *e, char tag, const char *bytes, Py_ssize_t n)
{
    if (!put_number(e, tag, n))
        return ENCODE_UNSUPPORTED;
    char *to = encoder_take(e, (u64)n);
    if (to && n < STREAM_FROM)
        memcpy(to, bytes, (size_t)n);
    else if (to)
        copy_to_region(to, bytes, (u64)n);
    return ENCODE_DONE;
}

static int put_int(Encoder *e, PyObject *value)
{
    int overflow;
    long long v = PyLong_AsLongLongAndOverflow(value, &overflow);
    return overflow ? ENCODE_UNSUPPORTED : put_eight(e, TAG_INT, &v);
}

static int put_float(Encoder *e, PyObject *value)
{
    double v = PyFloat_AsDouble(value);
    return put_eight(e, TAG_FLOAT, &v);
}

static int put_str(Encoder *e, PyObject *value)
{
    Py_ssize_t n;
    const char *bytes = PyUnicode_AsUTF8AndSize(value, &n);
    if (bytes)
        return put_text(e, TAG_STR, bytes, n);
    if (!PyErr_ExceptionMatches(PyExc_UnicodeError))
        return ENCODE_FAILED;
    PyErr_Clear(); /* surrogates */
    return ENCODE_UNSUPPORTED;
}

static int put_bytes(Encoder *e, PyObject *value)
{
    char *bytes;
    Py_ssize_t n;
    if (PyBytes_AsStringAndSize(value, &bytes, &n) < 0)
        return ENCODE_FAILED;
    return put_text(e, TAG_BYTES, bytes, n);
}

static int put_value(Encoder *e, PyObject *value, int depth);

static int put_tuple(Encoder *e, PyObject *value, int depth)
{
    Py_ssize_t n = PyTuple_Size(value);
    int rc = put_number(e, TAG_TUPLE, n);
    for (Py_ssize_t i = 0; i < n && rc == ENCODE_DONE; i++)
        rc = put_value(e, PyTuple_GetItem(value, i), depth + 1);
    return rc;
}

static int put_list(Encoder *e, PyObject *value, int depth)
{
    Py_ssize_t n = PyList_Size(value);
    int rc = put_number(e, TAG_LIST, n);
    for (Py_ssize_t i = 0; i < n && rc == ENCODE_DONE; i++)
        rc = put_value(e, PyList_GetItem(value, i), depth + 1);
    return rc;
}

static int put_dict(Encoder *e, PyObject *value, int depth)
{
    PyObject *key;
    PyObject *element;
    Py_ssize_t position = 0;
    int rc = put_number(e, TAG_DICT, PyDict_Size(value));
    while (rc == ENCODE_DONE && PyDict_Next(value, &position, &key, &element)) {
        rc = put_value(e, key, depth + 1);
        if (rc == ENCODE_DONE)
            rc = put_value(e, element, depth + 1);
    }
    return rc;
}

static int put_value(Encoder *e, PyObject *value, int depth)
{
    PyTypeObject *type = Py_TYPE(value);
    if (type == &PyLong_Type)
        return put_int(e, value);
    if (type == &PyFloat_Type)
        return put_float(e, value);
    if (type == &PyUnicode_Type)
        return put_str(e, value);
    if (type == &PyBytes_Type)
        return put_bytes(e, value);
    if (value == Py_None)
        return put_tag(e, TAG_NONE);
    if (value == Py_True)
        return put_tag(e, TAG_TRUE);
    if (value == Py_False)
        return put_tag(e, TAG_FALSE);
    if (depth >= CODEC_DEPTH_MAX)
        return ENCODE_UNSUPPORTED;
    if (type == &PyTuple_Type)
        return put_tuple(e, value, depth);
    if (type == &PyList_Type)
        return put_list(e, value, depth);
    if (type == &PyDict_Type)
        return put_dict(e, value, depth);
    return ENCODE_UNSUPPORTED;
}

/* ---- places */

static Place place_left(const Bundle *b)
{
    Place place = {b->at, b->end};
    return place;
}

static u64 place_room(const Place *place)
{
    return place->end - place->at;
}

/* A block of at least `need` bytes from `alloc`, which may say CHUNK: that is before any status (B4). */
static int place_ask(Bundle *b, u64 need, Place *place)
{
    unsigned long long offset;
    unsigned long long bytes;
    if (!b->alloc) {
        PyErr_Format(PyExc_RuntimeError, "expected `alloc` to be set before payloads are written, saw none for %llu bytes", need);
        return 0;
    }
    PyObject *alloc = Py_NewRef(b->alloc); /* whoever runs inside may set another */
    PyObject *block = PyObject_CallFunction(alloc, "K", (need + 7) & ~7ull);
    Py_DECREF(alloc);
    if (!block)
        return 0;
    if (!PyTuple_Check(block)) {
        PyErr_SetString(PyExc_TypeError, "expected `alloc` to return (offset, bytes)");
        Py_DECREF(block);
        return 0;
    }
    int parsed = PyArg_ParseTuple(block, "KK", &offset, &bytes);
    Py_DECREF(block);
    if (!parsed || !bundle_usable(b))
        return 0;
    if (!heap_holds(b->endpoint->region, offset, bytes) || offset + bytes > 1ull << 40) {
        PyErr_Format(PyExc_ValueError, "expected `alloc` to return a block inside the heap, saw %llu bytes at %llu", bytes, offset);
        return 0;
    }
    b->weight += bytes;
    place->at = (offset + 7) & ~7ull;
    place->end = (offset + bytes) & ~7ull;
    if (place->end < place->at || place_room(place) < need) {
        PyErr_Format(PyExc_ValueError, "expected `alloc` to return at least %llu bytes, saw %llu", need, bytes);
        return 0;
    }
    return 1;
}

/* Bytes [place->at, next) are taken. Of two blocks that are begun the one with more room stays. */
static void place_taken(Bundle *b, const Place *place, u64 next)
{
    next = (next + 7) & ~7ull;
    if (place->end != b->end && place->end - next <= b->end - b->at)
        return;
    b->at = next;
    b->end = place->end;
}

/* What stands before the bytes of a payload, and its word. */
static char *head_put(char *to, u64 length, u64 function)
{
    if (length >= NC_LENGTH_LONG) {
        memcpy(to, &length, 8);
        to += 8;
    }
    if (function) {
        memcpy(to, &function, 8);
        to += 8;
    }
    return to;
}

static u64 long_head(u64 length)
{
    return length >= NC_LENGTH_LONG ? 8 : 0;
}

static u64 payload_word(u64 kind, u64 length, u64 offset)
{
    return word_of(kind, length < NC_LENGTH_LONG ? length : NC_LENGTH_LONG, offset);
}

/* ---- values */

static int codec_put(Bundle *b, PyObject *value, u64 function, u64 *word)
{
    Place place = place_left(b);
    u64 function_head = function ? 8 : 0;
    u64 before = PyBytes_CheckExact(value) ? long_head((u64)PyBytes_Size(value)) : 0; /* a guess: else all is copied twice */
    for (;;) {
        u64 room = place_room(&place);
        u64 head = before + function_head;
        Encoder e = {b->endpoint->region->base + place.at + head, room > head ? room - head : 0, 0};
        int rc = put_value(&e, value, 0);
        if (rc != ENCODE_DONE)
            return rc;
        u64 length = function_head + e.n;
        if (e.n <= e.room && before == long_head(length)) {
            head_put(b->endpoint->region->base + place.at, length, function);
            *word = payload_word(NC_KIND_CODEC, length, place.at);
            place_taken(b, &place, place.at + before + length);
            return ENCODE_DONE;
        }
        before = long_head(length);
        if (before + length > room && !place_ask(b, before + length, &place))
            return ENCODE_FAILED;
    }
}

static int inline_word(PyObject *value, u64 *word)
{
    if (PyLong_CheckExact(value)) {
        int overflow;
        long long v = PyLong_AsLongLongAndOverflow(value, &overflow);
        *word = word_of_int(v);
        return !overflow && word_int(*word) == v;
    }
    if (value == Py_None)
        *word = word_of(NC_KIND_CONST, 0, CONST_NONE);
    else if (value == Py_True)
        *word = word_of(NC_KIND_CONST, 0, CONST_TRUE);
    else if (value == Py_False)
        *word = word_of(NC_KIND_CONST, 0, CONST_FALSE);
    else
        return 0;
    return 1;
}

static int pickle_put(Bundle *b, PyObject *value, u64 index, u64 direction, u64 function, u64 *word)
{
    char *bytes;
    Py_ssize_t n;
    PyObject *data = lent_call(lent.dumps, value);
    if (!data)
        return 0;
    int rc = bundle_usable(b) && PyBytes_AsStringAndSize(data, &bytes, &n) == 0 &&
             bytes_put(b, NC_KIND_PICKLE, bytes, (u64)n, index, direction, function, word);
    Py_DECREF(data);
    return rc;
}

int value_put(Bundle *b, PyObject *value, u64 index, u64 direction, u64 function, u64 *word)
{
    if (!function && inline_word(value, word))
        return 1;
    int rc = codec_put(b, value, function, word);
    if (rc != ENCODE_UNSUPPORTED)
        return rc == ENCODE_DONE;
    return pickle_put(b, value, index, direction, function, word);
}

int bytes_put(Bundle *b, u64 kind, const char *bytes, u64 n, u64 index, u64 direction, u64 function, u64 *word)
{
    Place place = place_left(b);
    u64 length = (function ? 8 : 0) + 8 + n;
    u64 need = long_head(length) + length;
    if (!bundle_keyed(b))
        return 0;
    if (place_room(&place) < need && !place_ask(b, need, &place))
        return 0;
    u64 mac = mac_of_payload(b, kind, index, direction, function, bytes, n);
    char *to = head_put(b->endpoint->region->base + place.at, length, function);
    memcpy(to, &mac, 8);
    copy_to_region(to + 8, bytes, n);
    *word = payload_word(kind, length, place.at);
    place_taken(b, &place, place.at + need);
    return 1;
}
