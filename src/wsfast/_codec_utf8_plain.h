/* Text in plain C, for every processor: checking UTF-8, measuring, decoding and encoding it, one character at a time.
 *
 * The vector code of the other files leaves the rest to it, and the search for the place where something is wrong.
 */
#ifndef WSFAST_CODEC_UTF8_PLAIN_H
#define WSFAST_CODEC_UTF8_PLAIN_H

#include "_codec_bytes.h"

#if defined(__GNUC__) || defined(__clang__)
#define WSF_ALWAYS_INLINE inline __attribute__((always_inline)) /* the same code for another processor */
#else
#define WSF_ALWAYS_INLINE inline
#endif

/* What is known of UTF-8 that was checked: how many bytes and characters, and the largest byte, or one that tells as
 * much of the largest character. */
typedef struct {
    size_t bytes, length;
    uint8_t largest;
} wsf_checked;

/* Return the largest character that a str must be made for. */
static inline uint32_t wsf_utf8_widest(uint8_t largest)
{
    return largest < 0x80 ? 0x7F : largest < 0xC4 ? 0xFF : largest < 0xF0 ? 0xFFFF : 0x10FFFF;
}

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

enum { WSF_PART = 128 }; /* how many are added before a sum in a byte could be too large */

static inline size_t wsf_utf8_measure_plain(const uint8_t *s, size_t n, uint8_t *largest)
{
    size_t i = 0, length = 0;
    uint8_t most = 0;
    while (i < n) {
        const size_t end = n - i < WSF_PART ? n : i + WSF_PART;
        uint8_t sum = 0;
        for (; i < end; i++) {
            sum += (s[i] & 0xC0) != 0x80;
            most = s[i] > most ? s[i] : most;
        }
        length += sum;
    }
    *largest = most;
    return length;
}

#define WSF_UTF8_DECODE(NAME, TYPE)                                                                    \
    static inline void NAME(TYPE *out, const uint8_t *s, size_t n)                                     \
    {                                                                                                  \
        size_t i = 0, k;                                                                               \
        while (i < n) {                                                                                \
            uint32_t c = s[i];                                                                         \
            if (c < 0x80) {                                                                            \
                uint64_t word;                                                                         \
                for (; i + 8 <= n; i += 8) {                                                           \
                    memcpy(&word, s + i, 8);                                                           \
                    if (word & UINT64_C(0x8080808080808080))                                           \
                        break;                                                                         \
                    for (k = 0; k < 8; k++)                                                            \
                        *out++ = s[i + k];                                                             \
                }                                                                                      \
                while (i < n && s[i] < 0x80)                                                           \
                    *out++ = s[i++];                                                                   \
            } else if (c < 0xE0) {                                                                     \
                *out++ = (TYPE)((c & 0x1F) << 6 | (s[i + 1] & 0x3F));                                  \
                i += 2;                                                                                \
            } else if (c < 0xF0) {                                                                     \
                *out++ = (TYPE)((c & 0x0F) << 12 | (s[i + 1] & 0x3Fu) << 6 | (s[i + 2] & 0x3F));       \
                i += 3;                                                                                \
            } else {                                                                                   \
                *out++ = (TYPE)((c & 0x07) << 18 | (s[i + 1] & 0x3Fu) << 12 | (s[i + 2] & 0x3Fu) << 6  \
                                | (s[i + 3] & 0x3F));                                                  \
                i += 4;                                                                                \
            }                                                                                          \
        }                                                                                              \
    }
WSF_UTF8_DECODE(wsf_utf8_decode1, uint8_t)
WSF_UTF8_DECODE(wsf_utf8_decode2, uint16_t)
WSF_UTF8_DECODE(wsf_utf8_decode4, uint32_t)
#undef WSF_UTF8_DECODE

/* The compilers make vector code of it, since the sums are as wide as the characters. */
#define WSF_UTF8_LENGTH(NAME, TYPE)                                                                    \
    static WSF_ALWAYS_INLINE size_t NAME(const TYPE *s, size_t n)                                      \
    {                                                                                                  \
        size_t i = 0, k, length = n;                                                                   \
        TYPE sum, surrogates = 0;                                                                      \
        while (i < n) {                                                                                \
            const size_t end = n - i < WSF_PART ? n : i + WSF_PART;                                    \
            for (k = i, sum = 0; k < end; k++) {                                                       \
                sum += (TYPE)((s[k] >= 0x80) + (s[k] >= 0x800) + (s[k] >= 0x10000));                   \
                surrogates |= (s[k] & ~0x7FFu) == 0xD800;                                              \
            }                                                                                          \
            length += sum;                                                                             \
            i = end;                                                                                   \
        }                                                                                              \
        return surrogates ? SIZE_MAX : length;                                                         \
    }
#ifdef __clang__ /* which tells that narrow characters are never that large */
#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wtautological-constant-out-of-range-compare"
#endif
WSF_UTF8_LENGTH(wsf_utf8_length1, uint8_t)
WSF_UTF8_LENGTH(wsf_utf8_length2, uint16_t)
WSF_UTF8_LENGTH(wsf_utf8_length4, uint32_t)
#ifdef __clang__
#pragma clang diagnostic pop
#endif
#undef WSF_UTF8_LENGTH

static WSF_ALWAYS_INLINE size_t wsf_utf8_length_plain(const void *text, int width, size_t n)
{
    return width == 1 ? wsf_utf8_length1((const uint8_t *)text, n)
         : width == 2 ? wsf_utf8_length2((const uint16_t *)text, n) : wsf_utf8_length4((const uint32_t *)text, n);
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

#endif
