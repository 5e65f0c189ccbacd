/* The codec's bytes back into a value (codec.h). Nobody's bytes are trusted (decision 10): a bad tag, size or depth raises
 * RegionCorrupt, and no container is made larger than what the bytes can hold.
 *
 * The bytes are a private copy: payload.c made it.
 */
#include <string.h>

#include "codec.h"

typedef struct {
    const char *at;
    const char *end;
    u64 owed; /* values that containers have announced and that are still to come, each of a byte or more */
} Decoder;

static PyObject *truncated(void)
{
    return raise_corrupt("expected a value of the codec, saw its bytes end early; whoever stored it is broken");
}

/* The next n bytes, or NULL. What containers still owe is left out: so no size is believed that the payload cannot hold. */
static inline const char *decoder_take(Decoder *d, u64 n)
{
    if (n + d->owed > (u64)(d->end - d->at))
        return NULL;
    const char *from = d->at;
    d->at += n;
    return from;
}

static inline int take_number(Decoder *d, uint32_t *n)
{
    const char *from = decoder_take(d, 4);
    if (from)
        memcpy(n, from, 4);
    return from != NULL;
}

static PyObject *take_value(Decoder *d, int depth);

static PyObject *take_int(Decoder *d)
{
    int64_t v;
    const char *from = decoder_take(d, 8);
    if (!from)
        return truncated();
    memcpy(&v, from, 8);
    return PyLong_FromLongLong(v);
}

static PyObject *take_float(Decoder *d)
{
    double v;
    const char *from = decoder_take(d, 8);
    if (!from)
        return truncated();
    memcpy(&v, from, 8);
    return PyFloat_FromDouble(v);
}

static PyObject *take_str(Decoder *d)
{
    uint32_t n;
    const char *from = take_number(d, &n) ? decoder_take(d, n) : NULL;
    if (!from)
        return truncated();
    PyObject *value = PyUnicode_DecodeUTF8(from, n, NULL);
    if (!value && PyErr_ExceptionMatches(PyExc_UnicodeError)) {
        PyErr_Clear();
        return raise_corrupt("expected UTF-8 in a string of the codec, saw other bytes; whoever stored it is broken");
    }
    return value;
}

static PyObject *take_bytes(Decoder *d)
{
    uint32_t n;
    const char *from = take_number(d, &n) ? decoder_take(d, n) : NULL;
    return from ? PyBytes_FromStringAndSize(from, n) : truncated();
}

/* A container announces its values before memory is asked for. */
static int take_owed(Decoder *d, int per_element, uint32_t *n)
{
    if (!take_number(d, n) || (u64)*n * per_element + d->owed > (u64)(d->end - d->at))
        return 0;
    d->owed += (u64)*n * per_element;
    return 1;
}

static PyObject *take_owed_value(Decoder *d, int depth)
{
    d->owed--;
    return take_value(d, depth + 1);
}

static PyObject *take_tuple(Decoder *d, int depth)
{
    uint32_t n;
    if (!take_owed(d, 1, &n))
        return truncated();
    PyObject *tuple = PyTuple_New(n);
    for (uint32_t i = 0; tuple && i < n; i++) {
        PyObject *value = take_owed_value(d, depth);
        if (!value || PyTuple_SetItem(tuple, i, value) < 0)
            Py_CLEAR(tuple);
    }
    return tuple;
}

static PyObject *take_list(Decoder *d, int depth)
{
    uint32_t n;
    if (!take_owed(d, 1, &n))
        return truncated();
    PyObject *list = PyList_New(n);
    for (uint32_t i = 0; list && i < n; i++) {
        PyObject *value = take_owed_value(d, depth);
        if (!value || PyList_SetItem(list, i, value) < 0)
            Py_CLEAR(list);
    }
    return list;
}

static int take_pair(Decoder *d, int depth, PyObject *dict)
{
    PyObject *key = take_owed_value(d, depth);
    PyObject *value = key ? take_owed_value(d, depth) : NULL;
    int rc = value ? PyDict_SetItem(dict, key, value) : -1;
    if (value && rc < 0 && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Clear();
        raise_corrupt("expected keys of a dict that can be hashed, saw others; whoever stored it is broken");
    }
    Py_XDECREF(key);
    Py_XDECREF(value);
    return rc;
}

static PyObject *take_dict(Decoder *d, int depth)
{
    uint32_t n;
    if (!take_owed(d, 2, &n))
        return truncated();
    PyObject *dict = PyDict_New();
    for (uint32_t i = 0; dict && i < n; i++) {
        if (take_pair(d, depth, dict) < 0)
            Py_CLEAR(dict);
    }
    return dict;
}

static PyObject *take_container(Decoder *d, char tag, int depth)
{
    if (depth >= CODEC_DEPTH_MAX)
        return raise_corrupt("expected containers at most %d deep, saw deeper ones; whoever stored them is broken", CODEC_DEPTH_MAX);
    if (tag == TAG_TUPLE)
        return take_tuple(d, depth);
    return tag == TAG_LIST ? take_list(d, depth) : take_dict(d, depth);
}

static PyObject *take_value(Decoder *d, int depth)
{
    const char *tag = decoder_take(d, 1);
    if (!tag)
        return truncated();
    switch (*tag) {
    case TAG_INT:
        return take_int(d);
    case TAG_FLOAT:
        return take_float(d);
    case TAG_STR:
        return take_str(d);
    case TAG_BYTES:
        return take_bytes(d);
    case TAG_NONE:
        return Py_NewRef(Py_None);
    case TAG_TRUE:
        return Py_NewRef(Py_True);
    case TAG_FALSE:
        return Py_NewRef(Py_False);
    case TAG_TUPLE:
    case TAG_LIST:
    case TAG_DICT:
        return take_container(d, *tag, depth);
    }
    return raise_corrupt("expected a tag of the codec, saw byte %d; whoever stored it is broken", (int)(unsigned char)*tag);
}

PyObject *codec_decode(const char *bytes, u64 n)
{
    Decoder d = {bytes, bytes + n, 0};
    PyObject *value = take_value(&d, 0);
    if (value && d.at != d.end) {
        Py_DECREF(value);
        return raise_corrupt("expected one value of the codec, saw %zd bytes behind it; whoever stored it is broken", d.end - d.at);
    }
    return value;
}
