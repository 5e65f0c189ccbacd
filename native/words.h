/* Words: how they are loaded and stored, and what an item or status word says.
 *
 * M2: a publishing word is 8 bytes, aligned, stored with release and loaded with acquire.
 * M3: no decision is safe because of a fence; it may save a wake-up (S1, S2, S7).
 * B2: kind:4 | len:20 | off:40, or kind:4 | signed:60. One word, never two.
 */
#ifndef NAHANNI_WORDS_H
#define NAHANNI_WORDS_H

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

#include "layout.h"

typedef uint64_t u64;
typedef _Atomic uint64_t a64;

static inline u64 load_acquire(const void *p)
{
    return atomic_load_explicit((const a64 *)p, memory_order_acquire);
}

static inline u64 load_relaxed(const void *p)
{
    return atomic_load_explicit((const a64 *)p, memory_order_relaxed);
}

static inline void store_release(void *p, u64 v)
{
    atomic_store_explicit((a64 *)p, v, memory_order_release);
}

static inline void store_relaxed(void *p, u64 v)
{
    atomic_store_explicit((a64 *)p, v, memory_order_relaxed);
}

static inline void fence(void)
{
    atomic_thread_fence(memory_order_seq_cst);
}

/* This process's own clock. Never compared with another kernel's (decision 3b). */
static inline u64 now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (u64)t.tv_sec * 1000000000ull + (u64)t.tv_nsec;
}

enum { CONST_NONE, CONST_TRUE, CONST_FALSE };

static inline u64 word_of(u64 kind, u64 length, u64 offset)
{
    return kind | length << 4 | offset << 24;
}

static inline u64 word_of_int(int64_t v)
{
    return NC_KIND_INT | (u64)v << 4;
}

static inline u64 word_kind(u64 w)
{
    return w & 15;
}

static inline u64 word_length(u64 w)
{
    return w >> 4 & NC_LENGTH_LONG;
}

static inline u64 word_offset(u64 w)
{
    return w >> 24;
}

static inline int64_t word_int(u64 w)
{
    return (int64_t)w >> 4;
}

#endif
