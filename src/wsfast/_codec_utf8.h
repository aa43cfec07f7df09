/* The loops over text of the codec: UTF-8 checking, UTF-8 encoding; as in _codec_bytes.h. */
#ifndef WSFAST_CODEC_UTF8_H
#define WSFAST_CODEC_UTF8_H

#include "_codec_bytes.h"

/* Do what wsf_utf8_check does, byte by byte. */
static inline int wsf_utf8_check_bytes(const uint8_t *s, size_t n, size_t *taken)
{
    size_t i = 0;
    while (i < n) {
        uint8_t first = s[i], low = 0x80, high = 0xBF;
        size_t need, k;
        if (first < 0x80) {
            uint64_t word;
            for (; i + 8 <= n; i += 8) {
                memcpy(&word, s + i, 8);
                if (word & UINT64_C(0x8080808080808080))
                    break;
            }
            while (i < n && s[i] < 0x80)
                i++;
            continue;
        }
        if (first < 0xC2) {
            *taken = i;
            return 1;
        } else if (first < 0xE0) {
            need = 1;
        } else if (first < 0xF0) {
            need = 2;
            if (first == 0xE0)
                low = 0xA0;
            else if (first == 0xED)
                high = 0x9F;
        } else if (first < 0xF5) {
            need = 3;
            if (first == 0xF0)
                low = 0x90;
            else if (first == 0xF4)
                high = 0x8F;
        } else {
            *taken = i;
            return 1;
        }
        for (k = 1; k <= need; k++) {
            if (i + k == n) {
                *taken = i;
                return 0;
            }
            if (s[i + k] < low || s[i + k] > high) {
                *taken = i;
                return 1;
            }
            low = 0x80;
            high = 0xBF;
        }
        i += need + 1;
    }
    *taken = i;
    return 0;
}

#ifdef WSF_AVX2
/* Return the end of the last whole character in front of `at`, where all before is UTF-8 but for an unfinished one. */
static inline size_t wsf_utf8_boundary(const uint8_t *s, size_t at)
{
    size_t k;
    for (k = 1; k <= 3 && k <= at; k++) {
        uint8_t byte = s[at - k];
        if (byte < 0x80)
            return at;
        if (byte >= 0xC0)
            return (byte >= 0xF0 ? 4u : byte >= 0xE0 ? 3u : 2u) > k ? at - k : at;
    }
    return at;
}

/* Return how many bytes, in blocks of 32 and counted from a character's first byte, are UTF-8 but for an unfinished
 * character at their end. The method is Keiser's and Lemire's ("Validating UTF-8 In Less Than One Instruction Per
 * Byte", 2021): three lookups by the halves of two adjacent bytes tell all errors of pairs, and where the second or
 * third byte behind a lead must continue it. 64 KiB of three-byte characters: 43 us byte by byte, 5 with it (Zen 4).
 */
__attribute__((target("avx2"))) static size_t wsf_utf8_blocks_avx2(const uint8_t *s, size_t n)
{
    enum {
        SHORT = 1,      /* a lead or ASCII where a lead must be continued */
        LONG = 2,       /* a continuation behind ASCII */
        OVERLONG_3 = 4, /* E0 80-9F */
        LARGE = 8,      /* F4 90-BF, F5-FF 90-BF */
        SURROGATE = 16, /* ED A0-BF */
        OVERLONG_2 = 32, /* C0, C1 */
        OVERLONG_4 = 64, /* F0 80-8F, and F5-FF 80-8F */
        CONTINUED = 128, /* two continuations: an error unless a lead of three or four is in front */
        CARRY = SHORT | LONG | CONTINUED
    };
#define WSF_BOTH(...) _mm256_setr_epi8(__VA_ARGS__, __VA_ARGS__)
    const __m256i first_high = WSF_BOTH(
        LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG,
        (char)CONTINUED, (char)CONTINUED, (char)CONTINUED, (char)CONTINUED,
        SHORT | OVERLONG_2, SHORT, SHORT | OVERLONG_3 | SURROGATE, SHORT | LARGE | OVERLONG_4);
    const __m256i first_low = WSF_BOTH(
        (char)(CARRY | OVERLONG_2 | OVERLONG_3 | OVERLONG_4), (char)(CARRY | OVERLONG_2), (char)CARRY, (char)CARRY,
        (char)(CARRY | LARGE), (char)(CARRY | LARGE | OVERLONG_4), (char)(CARRY | LARGE | OVERLONG_4),
        (char)(CARRY | LARGE | OVERLONG_4), (char)(CARRY | LARGE | OVERLONG_4), (char)(CARRY | LARGE | OVERLONG_4),
        (char)(CARRY | LARGE | OVERLONG_4), (char)(CARRY | LARGE | OVERLONG_4), (char)(CARRY | LARGE | OVERLONG_4),
        (char)(CARRY | LARGE | OVERLONG_4 | SURROGATE), (char)(CARRY | LARGE | OVERLONG_4),
        (char)(CARRY | LARGE | OVERLONG_4));
    const __m256i second_high = WSF_BOTH(
        SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT,
        (char)(LONG | OVERLONG_2 | CONTINUED | OVERLONG_3 | OVERLONG_4),
        (char)(LONG | OVERLONG_2 | CONTINUED | OVERLONG_3 | LARGE),
        (char)(LONG | OVERLONG_2 | CONTINUED | SURROGATE | LARGE),
        (char)(LONG | OVERLONG_2 | CONTINUED | SURROGATE | LARGE), SHORT, SHORT, SHORT, SHORT);
#undef WSF_BOTH
    const __m256i nibble = _mm256_set1_epi8(0x0F), top = _mm256_set1_epi8((char)0x80);
    const __m256i three = _mm256_set1_epi8(0xE0 - 0x80), four = _mm256_set1_epi8(0xF0 - 0x80);
    __m256i before = _mm256_setzero_si256();
    size_t i;
    for (i = 0; i + 32 <= n; i += 32) {
        __m256i block = _mm256_loadu_si256((const __m256i *)(s + i));
        __m256i joint = _mm256_permute2x128_si256(before, block, 0x21);
        __m256i back1 = _mm256_alignr_epi8(block, joint, 15);
        __m256i back2 = _mm256_alignr_epi8(block, joint, 14);
        __m256i back3 = _mm256_alignr_epi8(block, joint, 13);
        __m256i pairs = _mm256_and_si256(
            _mm256_and_si256(
                _mm256_shuffle_epi8(first_high, _mm256_and_si256(_mm256_srli_epi16(back1, 4), nibble)),
                _mm256_shuffle_epi8(first_low, _mm256_and_si256(back1, nibble))),
            _mm256_shuffle_epi8(second_high, _mm256_and_si256(_mm256_srli_epi16(block, 4), nibble)));
        __m256i must = _mm256_and_si256(
            _mm256_or_si256(_mm256_subs_epu8(back2, three), _mm256_subs_epu8(back3, four)), top);
        __m256i wrong = _mm256_xor_si256(must, pairs);
        if (!_mm256_testz_si256(wrong, wrong))
            break;
        before = block;
    }
    return i;
}
#endif

/* Check n bytes of UTF-8 (RFC 3629) and store in *taken how many of them are whole characters.
 * Returns 0 if the rest is empty or may be the start of a character, 1 if it cannot be. */
static inline int wsf_utf8_check(const uint8_t *s, size_t n, size_t *taken)
{
    size_t start = 0;
    int wrong;
#ifdef WSF_AVX2
    if (n >= WSF_AVX2 && wsf_has_avx2)
        start = wsf_utf8_boundary(s, wsf_utf8_blocks_avx2(s, n));
#endif
    wrong = wsf_utf8_check_bytes(s + start, n - start, taken);
    *taken += start;
    return wrong;
}

/* Bytes that n characters of width 1, 2 or 4 take in UTF-8, or SIZE_MAX if one is a surrogate. */
static inline size_t wsf_utf8_length(const void *text, int width, size_t n)
{
    size_t i, length = n;
    if (width == 1) {
        const uint8_t *s = (const uint8_t *)text;
        for (i = 0; i < n; i++)
            length += s[i] >> 7;
    } else if (width == 2) {
        const uint16_t *s = (const uint16_t *)text;
        size_t surrogates = 0;
        for (i = 0; i < n; i++) {
            length += (size_t)(s[i] >= 0x80) + (s[i] >= 0x800);
            surrogates += (s[i] & 0xF800) == 0xD800;
        }
        if (surrogates)
            return SIZE_MAX;
    } else {
        const uint32_t *s = (const uint32_t *)text;
        size_t surrogates = 0;
        for (i = 0; i < n; i++) {
            length += (size_t)(s[i] >= 0x80) + (s[i] >= 0x800) + (s[i] >= 0x10000);
            surrogates += (s[i] & 0xFFFFF800) == 0xD800;
        }
        if (surrogates)
            return SIZE_MAX;
    }
    return length;
}

#define WSF_UTF8_ENCODE(NAME, TYPE)                                       \
    static inline void NAME(uint8_t *out, const TYPE *s, size_t n)        \
    {                                                                     \
        size_t i;                                                         \
        for (i = 0; i < n; i++) {                                         \
            uint32_t c = s[i];                                            \
            if (c < 0x80) {                                               \
                *out++ = (uint8_t)c;                                      \
            } else if (c < 0x800) {                                       \
                *out++ = (uint8_t)(0xC0 | c >> 6);                        \
                *out++ = (uint8_t)(0x80 | (c & 0x3F));                    \
            } else if (c < 0x10000) {                                     \
                *out++ = (uint8_t)(0xE0 | c >> 12);                       \
                *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));               \
                *out++ = (uint8_t)(0x80 | (c & 0x3F));                    \
            } else {                                                      \
                *out++ = (uint8_t)(0xF0 | c >> 18);                       \
                *out++ = (uint8_t)(0x80 | (c >> 12 & 0x3F));              \
                *out++ = (uint8_t)(0x80 | (c >> 6 & 0x3F));               \
                *out++ = (uint8_t)(0x80 | (c & 0x3F));                    \
            }                                                             \
        }                                                                 \
    }
WSF_UTF8_ENCODE(wsf_utf8_encode1, uint8_t)
WSF_UTF8_ENCODE(wsf_utf8_encode2, uint16_t)
WSF_UTF8_ENCODE(wsf_utf8_encode4, uint32_t)
#undef WSF_UTF8_ENCODE

/* Encode n characters of width 1, 2 or 4, none a surrogate, in UTF-8. */
static inline void wsf_utf8_encode(uint8_t *out, const void *text, int width, size_t n)
{
    if (width == 1)
        wsf_utf8_encode1(out, (const uint8_t *)text, n);
    else if (width == 2)
        wsf_utf8_encode2(out, (const uint16_t *)text, n);
    else
        wsf_utf8_encode4(out, (const uint32_t *)text, n);
}

#endif
