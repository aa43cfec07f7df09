/* The loops over bytes of the codec: masking, and what is chosen for this processor. _codec_utf8.h has those of text.
 *
 * Plain C for the baseline of the platform, and vector code, chosen at run time, where it was measured to pay. Nothing
 * here allocates, fails by exception, or touches a Python object; lengths are checked by the callers in _codec.pyx.
 */
#ifndef WSFAST_CODEC_BYTES_H
#define WSFAST_CODEC_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#include <immintrin.h>
#endif
#if (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__) && defined(__AARCH64EL__)
#define WSF_NEON
#include <arm_neon.h>
#endif

#if defined(__GNUC__) || defined(__clang__)
#define WSF_BLOCKS 64
/* The compilers do not vectorise a loop over words that may be written where they are read, hence the types.
 * Measured in place on 4 KiB and 1 MiB (gcc 12, AMD EPYC): words 25 and 27 GB/s, SSE2 53 and 46, AVX2 98 and 65. */
typedef uint64_t wsf_wide16 __attribute__((vector_size(16)));
typedef uint64_t wsf_wide32 __attribute__((vector_size(32)));

#define WSF_MASK_BLOCKS(NAME, ATTRIBUTES, TYPE, SAME)                                                         \
    ATTRIBUTES static uint64_t NAME(uint8_t *dst, const uint8_t *src, size_t n, uint64_t wide)                \
    {                                                                                                         \
        const TYPE key = SAME(wide);                                                                          \
        TYPE seen = SAME(0), a, b, c, d;                                                                      \
        uint64_t all[sizeof(TYPE) / 8], any = 0;                                                              \
        size_t i, k;                                                                                          \
        for (i = 0; i < n; i += 4 * sizeof(TYPE)) {                                                           \
            memcpy(&a, src + i, sizeof(TYPE));                                                                \
            memcpy(&b, src + i + sizeof(TYPE), sizeof(TYPE));                                                 \
            memcpy(&c, src + i + 2 * sizeof(TYPE), sizeof(TYPE));                                             \
            memcpy(&d, src + i + 3 * sizeof(TYPE), sizeof(TYPE));                                             \
            a ^= key;                                                                                         \
            b ^= key;                                                                                         \
            c ^= key;                                                                                         \
            d ^= key;                                                                                         \
            memcpy(dst + i, &a, sizeof(TYPE));                                                                \
            memcpy(dst + i + sizeof(TYPE), &b, sizeof(TYPE));                                                 \
            memcpy(dst + i + 2 * sizeof(TYPE), &c, sizeof(TYPE));                                             \
            memcpy(dst + i + 3 * sizeof(TYPE), &d, sizeof(TYPE));                                             \
            seen |= (a | b) | (c | d);                                                                        \
        }                                                                                                     \
        memcpy(all, &seen, sizeof(TYPE));                                                                     \
        for (k = 0; k < sizeof(TYPE) / 8; k++)                                                                \
            any |= all[k];                                                                                    \
        return any;                                                                                           \
    }
#define WSF_TWICE(x) {x, x}
#define WSF_FOUR_TIMES(x) {x, x, x, x}
WSF_MASK_BLOCKS(wsf_mask_blocks, , wsf_wide16, WSF_TWICE)
#if defined(__x86_64__)
#define WSF_AVX2 128
#define WSF_LONG 4096 /* from which on it pays to align the blocks: 1 MiB in place 55 GB/s without, 87 with (Zen 4) */
WSF_MASK_BLOCKS(wsf_mask_blocks_avx2, __attribute__((target("avx2"))), wsf_wide32, WSF_FOUR_TIMES)
#endif
#undef WSF_MASK_BLOCKS
#undef WSF_TWICE
#undef WSF_FOUR_TIMES
#endif

#if defined(WSF_AVX2) && (defined(__clang__) ? __clang_major__ >= 7 : __GNUC__ >= 9)
#define WSF_AVX512 64
#endif

enum { WSF_PLAIN, WSF_HAS_AVX2, WSF_HAS_AVX512, WSF_HAS_NEON = WSF_HAS_AVX2 }; /* of a processor, each has the next */

static int wsf_level = WSF_PLAIN; /* set by `wsf_choose` */

/* XOR n bytes with a four-byte key from its first byte on (RFC 6455, 5.3), dst == src allowed.
 * Returns an OR of all bytes written: its top bits are clear if all of them are ASCII. */
static inline uint64_t wsf_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4])
{
    uint64_t wide, word, seen = 0;
    size_t i = 0;
#ifdef WSF_AVX2
    size_t blocks;
#endif
    memcpy(&wide, key, 4);
    memcpy((uint8_t *)&wide + 4, key, 4);
#ifdef WSF_AVX2
    if (n >= WSF_AVX2 && wsf_level >= WSF_HAS_AVX2) {
        if (n >= WSF_LONG && !((uintptr_t)dst & 7)) {
            /* Objects' memory is aligned to 16 bytes: every other store would touch two cache lines. */
            for (; (uintptr_t)(dst + i) & 31; i += 8) {
                memcpy(&word, src + i, 8);
                word ^= wide;
                memcpy(dst + i, &word, 8);
                seen |= word;
            }
        }
        blocks = (n - i) & ~(size_t)(WSF_AVX2 - 1);
        seen |= wsf_mask_blocks_avx2(dst + i, src + i, blocks, wide);
        i += blocks;
    } else
#endif
#ifdef WSF_BLOCKS
    if (n >= WSF_BLOCKS) {
        i = n & ~(size_t)(WSF_BLOCKS - 1);
        seen = wsf_mask_blocks(dst, src, i, wide);
    }
#endif
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, src + i, 8);
        word ^= wide;
        memcpy(dst + i, &word, 8);
        seen |= word;
    }
    for (; i < n; i++) {
        uint8_t byte = src[i] ^ key[i & 3];
        dst[i] = byte;
        seen |= byte;
    }
    return seen;
}

/* Return an OR of n bytes: its top bits are clear if all of them are ASCII. */
static inline uint64_t wsf_any(const uint8_t *s, size_t n)
{
    uint64_t word, seen = 0;
    size_t i = 0;
#ifdef WSF_BLOCKS
    wsf_wide16 all = {0, 0}, a, b, c, d;
    for (; i + WSF_BLOCKS <= n; i += WSF_BLOCKS) {
        memcpy(&a, s + i, 16);
        memcpy(&b, s + i + 16, 16);
        memcpy(&c, s + i + 32, 16);
        memcpy(&d, s + i + 48, 16);
        all |= (a | b) | (c | d);
    }
    seen = all[0] | all[1];
#endif
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, s + i, 8);
        seen |= word;
    }
    for (; i < n; i++)
        seen |= s[i];
    return seen;
}

/* Turn the key so that it fits what follows n masked bytes. */
static inline void wsf_turn_key(uint8_t key[4], size_t n)
{
    uint8_t old[4];
    size_t i;
    memcpy(old, key, 4);
    for (i = 0; i < 4; i++)
        key[i] = old[(i + n) & 3];
}

#endif
