/* Region: the mapping, its bounds, and the key. Knows no sockets and no tasks. */
#ifndef NAHANNI_REGION_H
#define NAHANNI_REGION_H

#include "python.h"
#include "words.h"

typedef struct {
    PyObject_HEAD
    Py_buffer view; /* holds the mmap */
    char *base;
    u64 size;
    int keyed;
    uint8_t key[16];
} Region;

extern PyTypeObject *RegionType;

static inline int region_holds(const Region *r, u64 offset, u64 bytes)
{
    return offset <= r->size && bytes <= r->size - offset;
}

/* Payloads lie in the heap and nowhere else. */
static inline int heap_holds(const Region *r, u64 offset, u64 bytes)
{
    return offset >= NC_HEAP && region_holds(r, offset, bytes);
}

static inline char *slot_words(const Region *r, u64 slot)
{
    return r->base + NC_SLOT_TABLE + slot * NC_SLOT_SIZE;
}

/* M4: ordinary stores below 256 KiB, streaming ones with an sfence before return above. copy.c */
void copy_to_region(char *to, const char *from, u64 bytes);

/* SipHash-2-4 over five words and a payload (B3). mac.c */
u64 mac_of(const uint8_t key[16], u64 generation, u64 index, u64 kind, u64 function, const void *bytes, u64 n);

#endif
