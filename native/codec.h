/* The codec: values of the plainest types as bytes, without running any code on the way back (B3).
 *
 *   N T F                        None, True, False
 *   i int64    d float64
 *   s u32 UTF-8    b u32 bytes
 *   t u32 values    l u32 values    D u32 (key, value)s       the number first
 *
 * Little-endian, nothing aligned. Exact types only: a subclass, an int beyond 64 bits, a string with surrogates, or a
 * container deeper than CODEC_DEPTH_MAX makes the whole value a pickle.
 *
 * In the region a payload is  [u64 length][u64 function id][u64 MAC] bytes:  the length if the word says LENGTH_LONG (it counts
 * what follows it), the id in an item that carries its own function, the MAC before a pickle.
 */
#ifndef NAHANNI_CODEC_H
#define NAHANNI_CODEC_H

#include "bundle.h"

#define CODEC_DEPTH_MAX 32

enum {
    TAG_NONE = 'N',
    TAG_TRUE = 'T',
    TAG_FALSE = 'F',
    TAG_INT = 'i',
    TAG_FLOAT = 'd',
    TAG_STR = 's',
    TAG_BYTES = 'b',
    TAG_TUPLE = 't',
    TAG_LIST = 'l',
    TAG_DICT = 'D',
};

/* An item that carries its own function is bound to that one, every other payload to its bundle's. */
static inline u64 mac_function(const Bundle *b, u64 function)
{
    return function ? function : b->function;
}

static inline u64 mac_of_payload(const Bundle *b, u64 kind, u64 index, u64 direction, u64 function, const char *bytes, u64 n)
{
    return mac_of(b->endpoint->region->key, b->generation, index, kind + direction, mac_function(b, function), bytes, n);
}

/* decode.c: bytes that are a copy already -> the value, a new reference */
PyObject *codec_decode(const char *bytes, u64 n);

/* payload.c: 0 with AccessRefused if the endpoint was opened without the cluster's key */
int bundle_keyed(const Bundle *b);

#endif
