/* The loops over text of the codec, and the choice among those that this processor has.
 *
 *                 plain C                  AVX2, NEON                AVX-512 VBMI2
 *     check       wsf_utf8_check_bytes     wsf_utf8_blocks_...       wsf_utf8_check_avx512
 *     measure     wsf_utf8_measure_plain   wsf_utf8_measure_...      within the check
 *     decode      wsf_utf8_decode1, 2, 4   wsf_utf8_decode_...       wsf_utf8_decode_avx512
 *     length      wsf_utf8_length_plain    wsf_utf8_length_avx2      wsf_utf8_length_avx512
 *     encode      wsf_utf8_encode1, 2, 4   wsf_utf8_encode_...       wsf_utf8_encode_avx512
 *
 * What decodes takes UTF-8 that was checked; what encodes takes text without surrogates. Memory is neither read nor
 * written beyond the lengths that are given.
 */
#ifndef WSFAST_CODEC_UTF8_H
#define WSFAST_CODEC_UTF8_H

#include "_codec_utf8_plain.h"
#include "_codec_utf8_avx2.h"
#include "_codec_utf8_avx512.h"
#include "_codec_utf8_neon.h"

/* Choose the best of the levels that the processor has, up to `most`, and return it; once, before anything else. */
static int wsf_choose(int most)
{
    int level = WSF_PLAIN;
#ifdef WSF_AVX2
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt")) {
        level = WSF_HAS_AVX2;
        wsf_fill_places();
    }
#endif
#ifdef WSF_AVX512
    if (level == WSF_HAS_AVX2 && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("avx512bw")
        && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi")
        && __builtin_cpu_supports("avx512vbmi2"))
        level = WSF_HAS_AVX512;
#endif
#ifdef WSF_NEON
    level = WSF_HAS_NEON;
    wsf_fill_places();
#endif
    wsf_level = level < most ? level : most;
    return wsf_level;
}

/* Count the characters of n bytes of UTF-8, and store the largest byte. */
static inline size_t wsf_utf8_measure(const uint8_t *s, size_t n, uint8_t *largest)
{
#ifdef WSF_AVX2
    if (wsf_level >= WSF_HAS_AVX2)
        return wsf_utf8_measure_avx2(s, n, largest);
#endif
#ifdef WSF_NEON
    if (wsf_level >= WSF_HAS_NEON)
        return wsf_utf8_measure_neon(s, n, largest);
#endif
    return wsf_utf8_measure_plain(s, n, largest);
}

/* Check n bytes of UTF-8 (RFC 3629) and tell of those that are whole characters.
 * Returns 0 if the rest is empty or may be the start of a character, 1 if it cannot be. */
static inline int wsf_utf8_check(const uint8_t *s, size_t n, wsf_checked *text)
{
    size_t start = 0, taken;
    int wrong;
#ifdef WSF_AVX512
    if (wsf_level >= WSF_HAS_AVX512) {
        /* Where something is wrong, what follows finds the place. */
        const size_t end = wsf_utf8_boundary(s, n);
        if (wsf_utf8_check_avx512(s, end, text) && wsf_utf8_boundary(s, end) == end
            && !wsf_utf8_check_bytes(s + end, n - end, &taken))
            return 0;
    }
#endif
#ifdef WSF_AVX2
    if (n >= 16 && wsf_level >= WSF_HAS_AVX2)
        start = wsf_utf8_boundary(s, wsf_utf8_blocks_avx2(s, n));
#endif
#ifdef WSF_NEON
    if (n >= 16 && wsf_level >= WSF_HAS_NEON)
        start = wsf_utf8_boundary(s, wsf_utf8_blocks_neon(s, n));
#endif
    wrong = wsf_utf8_check_bytes(s + start, n - start, &taken);
    text->bytes = start + taken;
    text->length = wsf_utf8_measure(s, text->bytes, &text->largest);
    return wrong;
}

/* Whether to check n bytes and then decode them is faster than CPython's decoder, which does both at once. */
static inline int wsf_utf8_pays(size_t n)
{
    return wsf_level > WSF_PLAIN || n <= 64;
}

/* Decode n bytes of UTF-8 into as many characters of width 1, 2 or 4 as it has, all of which fit. */
static inline void wsf_utf8_decode(void *text, int width, const uint8_t *s, size_t n)
{
    uint8_t *out = (uint8_t *)text;
    size_t done = 0;
#ifdef WSF_AVX512
    if (wsf_level >= WSF_HAS_AVX512) {
        wsf_utf8_decode_avx512(out, width, s, n);
        return;
    }
#endif
#ifdef WSF_AVX2
    if (wsf_level >= WSF_HAS_AVX2)
        done = wsf_utf8_decode_avx2(&out, width, s, n);
#endif
#ifdef WSF_NEON
    if (wsf_level >= WSF_HAS_NEON)
        done = wsf_utf8_decode_neon(&out, width, s, n);
#endif
    if (width == 1)
        wsf_utf8_decode1(out, s + done, n - done);
    else if (width == 2)
        wsf_utf8_decode2((uint16_t *)out, s + done, n - done);
    else
        wsf_utf8_decode4((uint32_t *)out, s + done, n - done);
}

/* Bytes that n characters of width 1, 2 or 4 take in UTF-8, or SIZE_MAX if one is a surrogate. */
static inline size_t wsf_utf8_length(const void *text, int width, size_t n)
{
#ifdef WSF_AVX512
    if (wsf_level >= WSF_HAS_AVX512)
        return wsf_utf8_length_avx512(text, width, n);
#endif
#ifdef WSF_AVX2
    if (wsf_level >= WSF_HAS_AVX2)
        return wsf_utf8_length_avx2(text, width, n);
#endif
    return wsf_utf8_length_plain(text, width, n);
}

/* Encode n characters of width 1, 2 or 4, none a surrogate, in UTF-8. */
static inline void wsf_utf8_encode(uint8_t *out, const void *text, int width, size_t n)
{
    size_t done = 0;
#ifdef WSF_AVX512
    if (wsf_level >= WSF_HAS_AVX512) {
        wsf_utf8_encode_avx512(out, text, width, n);
        return;
    }
#endif
#ifdef WSF_AVX2
    if (wsf_level >= WSF_HAS_AVX2)
        done = wsf_utf8_encode_avx2(&out, text, width, n);
#endif
#ifdef WSF_NEON
    if (wsf_level >= WSF_HAS_NEON)
        done = wsf_utf8_encode_neon(&out, text, width, n);
#endif
    if (width == 1)
        wsf_utf8_encode1(out, (const uint8_t *)text + done, n - done);
    else if (width == 2)
        wsf_utf8_encode2(out, (const uint16_t *)text + done, n - done);
    else
        wsf_utf8_encode4(out, (const uint32_t *)text + done, n - done);
}

#endif
