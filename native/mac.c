/* The keyed MAC over bytes that lead to unpickling (B3): SipHash-2-4, by Aumasson and Bernstein.
 *
 * The message is five words (generation, index, kind, function, length) and then the payload, so that bytes which are right in
 * one place are wrong in every other (decision 10): replayed, spliced, cut, or turned from a result into an argument.
 * Always over bytes that nobody else can write: the reader copies them out of the region first.
 */
#include <string.h>

#include "region.h"

typedef struct {
    u64 a;
    u64 b;
    u64 c;
    u64 d;
} State;

static inline u64 rotated(u64 x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static inline void sip_round(State *s)
{
    s->a += s->b;
    s->b = rotated(s->b, 13) ^ s->a;
    s->a = rotated(s->a, 32);
    s->c += s->d;
    s->d = rotated(s->d, 16) ^ s->c;
    s->a += s->d;
    s->d = rotated(s->d, 21) ^ s->a;
    s->c += s->b;
    s->b = rotated(s->b, 17) ^ s->c;
    s->c = rotated(s->c, 32);
}

static inline void absorb(State *s, u64 word)
{
    s->d ^= word;
    sip_round(s);
    sip_round(s);
    s->a ^= word;
}

static inline u64 word_at(const uint8_t *bytes)
{
    u64 word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

u64 mac_of(const uint8_t key[16], u64 generation, u64 index, u64 kind, u64 function, const void *bytes, u64 n)
{
    const uint8_t *at = bytes;
    u64 k0 = word_at(key);
    u64 k1 = word_at(key + 8);
    State s = {k0 ^ 0x736f6d6570736575ull, k1 ^ 0x646f72616e646f6dull, k0 ^ 0x6c7967656e657261ull, k1 ^ 0x7465646279746573ull};
    u64 last = (40 + n) << 56; /* SipHash ends with the length of its message, modulo 256 */
    absorb(&s, generation);
    absorb(&s, index);
    absorb(&s, kind);
    absorb(&s, function);
    absorb(&s, n);
    for (; n >= 8; n -= 8) {
        absorb(&s, word_at(at));
        at += 8;
    }
    for (u64 i = 0; i < n; i++)
        last |= (u64)at[i] << 8 * i;
    absorb(&s, last);
    s.c ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.a ^ s.b ^ s.c ^ s.d;
}
