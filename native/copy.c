/* Streaming copy into the region.
 *
 * M4: non-temporal stores are not in order, even on x86: the sfence stands inside this function, before it returns.
 * They pay where the copy is larger than what a cache would keep of it: 1.5 times memcpy on one thread (notes on
 * performance). Below that, and elsewhere, memcpy.
 */
#include <string.h>

#include "region.h"

#define STREAM_FROM (256u << 10)

#if defined(__x86_64__)
#include <immintrin.h>

static void copy_streaming(char *to, const char *from, u64 bytes)
{
    u64 lead = (64 - ((uintptr_t)to & 63)) & 63;
    memcpy(to, from, lead);
    to += lead;
    from += lead;
    bytes -= lead;
    for (u64 lines = bytes / 64; lines; lines--) {
        __m128i a = _mm_loadu_si128((const __m128i *)from);
        __m128i b = _mm_loadu_si128((const __m128i *)(from + 16));
        __m128i c = _mm_loadu_si128((const __m128i *)(from + 32));
        __m128i d = _mm_loadu_si128((const __m128i *)(from + 48));
        _mm_stream_si128((__m128i *)to, a);
        _mm_stream_si128((__m128i *)(to + 16), b);
        _mm_stream_si128((__m128i *)(to + 32), c);
        _mm_stream_si128((__m128i *)(to + 48), d);
        from += 64;
        to += 64;
    }
    memcpy(to, from, bytes % 64);
    _mm_sfence();
}
#endif

void copy_to_region(char *to, const char *from, u64 bytes)
{
#if defined(__x86_64__)
    if (bytes >= STREAM_FROM) {
        copy_streaming(to, from, bytes);
        return;
    }
#endif
    memcpy(to, from, bytes);
}
