/* Text by AVX-512 with VBMI2: checking, measuring, decoding and encoding it in one pass each.
 *
 * Vector code does all characters of a block at once, whatever their lengths (Clausecker and Lemire, "Transcoding
 * Unicode Characters with AVX-512 Instructions", 2023): each byte of a decoded character is put together at the place
 * of its last byte in UTF-8, and what is not at such a place is squeezed out. Encoding puts the bytes of a character
 * into a lane of its own, at the end, and squeezes out what is in front. `vpcompressb` squeezes 64 bytes.
 *
 * The last number of `_mm512_ternarylogic_epi64` is a table of what it makes of three bits: 0xEA is (a & b) | c, 0xE4 is
 * c ? a : b, 0xCA is a ? b : c, 0xFE is a | b | c, 0xF8 is a | (b & c), 0xF6 is a | (b ^ c).
 */
#ifndef WSFAST_CODEC_UTF8_AVX512_H
#define WSFAST_CODEC_UTF8_AVX512_H

#include "_codec_utf8_avx2.h"

#ifdef WSF_AVX512
#define WSF_TARGET_AVX512 \
    __attribute__((target("avx2,bmi,bmi2,popcnt,avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2")))

/* Return a mask of the first n lanes, or of all of them. */
WSF_TARGET_AVX512 static inline uint64_t wsf_first(size_t n)
{
    return n < 64 ? _bzhi_u64(~UINT64_C(0), (unsigned)n) : ~UINT64_C(0);
}

/* Load up to 64 bytes of n characters. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE __m512i wsf_load_avx512(const uint8_t *s, size_t n, const int width)
{
    n *= (size_t)width;
    return n >= 64 ? _mm512_loadu_si512(s) : _mm512_maskz_loadu_epi8(wsf_first(n), s);
}

WSF_TARGET_AVX512 static inline __m512i wsf_back_avx512(__m512i before, __m512i block, int n)
{
    __m512i joint = _mm512_alignr_epi64(block, before, 6);
    return n == 1 ? _mm512_alignr_epi8(block, joint, 15)
         : n == 2 ? _mm512_alignr_epi8(block, joint, 14) : _mm512_alignr_epi8(block, joint, 13);
}

/* Whether a lead from 0xE0 on cannot have a second byte: E0 80-9F, ED A0-BF, F0 80-8F, F4 90-BF, F5-FF any. The last
 * five bits of the lead are the low bits of the place, and bits 4 and 5 of the second byte the high ones. */
#define WSF_FORBIDDEN(e0, ed, f0, f4) \
    e0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, ed, 0, 0, \
    f0, 0, 0, 0, f4, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80
static const uint8_t wsf_forbidden[128] = {
    WSF_FORBIDDEN(0x80, 0, 0x80, 0), WSF_FORBIDDEN(0x80, 0, 0, 0x80),
    WSF_FORBIDDEN(0, 0x80, 0, 0x80), WSF_FORBIDDEN(0, 0x80, 0, 0x80),
};
#undef WSF_FORBIDDEN

/* Check n bytes, of which the last may be those of an unfinished character, and tell of them; return whether they are
 * UTF-8. In what is computed for each byte the top bit is the answer, and the others are left as they come. */
WSF_TARGET_AVX512 static int wsf_utf8_check_avx512(const uint8_t *s, size_t n, wsf_checked *text)
{
    const __m512i zero = _mm512_setzero_si512(), low5 = _mm512_set1_epi8(0x1F);
    const __m512i to_c0 = _mm512_set1_epi8(0x40), to_e0 = _mm512_set1_epi8(0x60), to_f0 = _mm512_set1_epi8(0x70);
    const __m512i forbidden1 = _mm512_loadu_si512(wsf_forbidden), forbidden2 = _mm512_loadu_si512(wsf_forbidden + 64);
    __m512i block = wsf_load_avx512(s, n, 1), wrong = zero, largest = zero, least = _mm512_set1_epi8(-1);
    __m512i back1 = wsf_back_avx512(zero, block, 1);
    __m512i back2 = wsf_back_avx512(zero, block, 2);
    __m512i back3 = wsf_back_avx512(zero, block, 3);
    size_t i = 0, continuations = 0;
    while (1) {
        /* Leads become 0 to 0x3F, ASCII is above them, and continuations have the top bit. */
        const __m512i kinds = _mm512_adds_epi8(block, to_c0);
        const __m512i must = _mm512_ternarylogic_epi64( /* continue */
            _mm512_subs_epu8(back1, to_c0), _mm512_subs_epu8(back2, to_e0), _mm512_subs_epu8(back3, to_f0), 0xFE);
        const __m512i places = _mm512_ternarylogic_epi64(low5, back1, _mm512_add_epi8(block, block), 0xCA);
        const __m512i pairs = _mm512_permutex2var_epi8(forbidden1, places, forbidden2);
        const uint64_t continued = _mm512_movepi8_mask(kinds);
        wrong = _mm512_ternarylogic_epi64(wrong, must, kinds, 0xF6);
        wrong = _mm512_ternarylogic_epi64(wrong, pairs, _mm512_subs_epu8(back1, to_e0), 0xF8);
        largest = _mm512_max_epu8(largest, block);
        least = _mm512_min_epu8(least, kinds);
        continuations += (size_t)_mm_popcnt_u64(continued);
        if (!continued && !_mm512_movepi8_mask(block)) {
            for (; i + 192 <= n; i += 128)
                if (_mm512_movepi8_mask(
                        _mm512_or_si512(_mm512_loadu_si512(s + i + 64), _mm512_loadu_si512(s + i + 128))))
                    break;
        }
        i += 64;
        if (i >= n)
            break;
        block = wsf_load_avx512(s + i, n - i, 1);
        back1 = wsf_load_avx512(s + i - 1, n - i, 1);
        back2 = wsf_load_avx512(s + i - 2, n - i, 1);
        back3 = wsf_load_avx512(s + i - 3, n - i, 1);
    }
    text->bytes = n;
    text->length = n - continuations;
    text->largest = _mm512_cmpge_epu8_mask(largest, _mm512_set1_epi8((char)0xF0))   ? 0xF0
                    : _mm512_cmpge_epu8_mask(largest, _mm512_set1_epi8((char)0xC4)) ? 0xC4
                    : _mm512_movepi8_mask(largest)                                  ? 0x80 : 0;
    return !(_mm512_movepi8_mask(wrong) | _mm512_cmplt_epu8_mask(least, _mm512_set1_epi8(0xC2 - 0xC0)));
}

static const uint8_t wsf_numbers[32] = {
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
};

/* As above, all of it; without masks where there is room for what is written in vain. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE void
wsf_utf8_decode_blocks_avx512(uint8_t *out, const int width, const uint8_t *s, size_t n)
{
    const __m512i low2 = _mm512_set1_epi8(0x03), low4 = _mm512_set1_epi8(0x0F), low6 = _mm512_set1_epi8(0x3F);
    const __m512i lead = _mm512_set1_epi8((char)0xC0), zero = _mm512_setzero_si512();
    /* Where the bytes of the first characters are: the low one of each at its number, the high one 64 behind, and the
     * top one at the number again. */
    const __m512i numbers = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)wsf_numbers));
    const __m512i pairs = _mm512_or_si512(
        _mm512_or_si512(numbers, _mm512_slli_epi16(numbers, 8)), _mm512_set1_epi16(0x4000));
    const __m512i quads = _mm512_or_si512(
        _mm512_mullo_epi32(
            _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)wsf_numbers)), _mm512_set1_epi32(0x010101)),
        _mm512_set1_epi32(0x4000));
    const size_t most = width == 4 ? 4 : (size_t)width + 1; /* bytes of a character */
    size_t i, k;
    for (i = 0; i < n; i += 64) {
        const int room = i && n - i >= 64 * most;
        __m512i block, back1, back2, back3 = zero, low, high = zero, top = zero;
        uint64_t two, ends; /* at a last byte: the character has two bytes, or more */
        size_t count;
        if (room) {
            block = _mm512_loadu_si512(s + i);
            two = _mm512_movepi8_mask(block);
            if (!two) {
                for (k = 0; k < 64; k += 64 / (size_t)width, out += 64)
                    _mm512_storeu_si512(
                        out, width == 1   ? block
                             : width == 2 ? _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(s + i + k)))
                                          : _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(s + i + k))));
                continue;
            }
            ends = _mm512_cmpge_epi8_mask(_mm512_loadu_si512(s + i + 1), lead);
            back1 = _mm512_maskz_loadu_epi8(two, s + i - 1);
            back2 = _mm512_loadu_si512(s + i - 2);
            if (width > 2)
                back3 = _mm512_loadu_si512(s + i - 3);
        } else {
            const __m512i before = i ? _mm512_loadu_si512(s + i - 64) : zero;
            block = _mm512_maskz_loadu_epi8(wsf_first(n - i), s + i);
            two = _mm512_movepi8_mask(block);
            ends = wsf_first(n - i)
                   & _mm512_cmpge_epi8_mask(_mm512_maskz_loadu_epi8(wsf_first(n - i - 1), s + i + 1), lead);
            back1 = _mm512_maskz_mov_epi8(two, wsf_back_avx512(before, block, 1));
            back2 = wsf_back_avx512(before, block, 2);
            back3 = wsf_back_avx512(before, block, 3);
        }
        low = _mm512_ternarylogic_epi64(block, _mm512_slli_epi16(back1, 6), low6, 0xE4);
        low = _mm512_maskz_compress_epi8(ends, _mm512_mask_mov_epi8(block, two, low));
        if (width > 1) {
            back2 = _mm512_maskz_mov_epi8(_mm512_cmplt_epi8_mask(back1, lead), back2); /* there are three, or four */
            high = _mm512_ternarylogic_epi64(_mm512_srli_epi16(back1, 2), _mm512_slli_epi16(back2, 4), low4, 0xE4);
            high = _mm512_maskz_compress_epi8(ends, high);
        }
        if (width > 2) {
            const uint64_t four = _mm512_cmplt_epi8_mask(back2, lead);
            top = _mm512_and_si512(_mm512_slli_epi16(back3, 2), _mm512_set1_epi8(0x1C));
            top = _mm512_ternarylogic_epi64(_mm512_srli_epi16(back2, 4), top, low2, 0xE4);
            top = _mm512_maskz_compress_epi8(ends, _mm512_maskz_mov_epi8(four, top));
        }
        count = (size_t)_mm_popcnt_u64(ends);
        for (k = 0; k < count; k += 64 / (size_t)width) {
            const uint64_t there = wsf_first((count - k) * (size_t)width);
            __m512i lanes = low;
            if (width == 2) {
                lanes = _mm512_permutex2var_epi8(low, _mm512_add_epi8(pairs, _mm512_set1_epi8((char)k)), high);
            } else if (width == 4) {
                const __m512i from = _mm512_add_epi8(quads, _mm512_set1_epi8((char)k));
                lanes = _mm512_or_si512(
                    _mm512_maskz_permutex2var_epi8(UINT64_C(0x3333333333333333), low, from, high),
                    _mm512_maskz_permutexvar_epi8(UINT64_C(0x4444444444444444), from, top));
            }
            if (room)
                _mm512_storeu_si512(out + k * (size_t)width, lanes);
            else
                _mm512_mask_storeu_epi8(out + k * (size_t)width, there, lanes);
        }
        out += (size_t)width * count;
    }
}

WSF_TARGET_AVX512 static void wsf_utf8_decode_avx512(uint8_t *out, int width, const uint8_t *s, size_t n)
{
    if (width == 1)
        wsf_utf8_decode_blocks_avx512(out, 1, s, n);
    else if (width == 2)
        wsf_utf8_decode_blocks_avx512(out, 2, s, n);
    else
        wsf_utf8_decode_blocks_avx512(out, 4, s, n);
}

/* Surrogates are what is below 0x800 if the bits of 0xD800 are turned. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE size_t
wsf_utf8_length_blocks_avx512(const uint8_t *s, const int width, size_t n)
{
    __m512i least = _mm512_set1_epi8(-1);
    size_t i, length = n;
    if (width == 1) {
        for (i = 0; i < n; i += 64)
            length += (size_t)_mm_popcnt_u64(_mm512_movepi8_mask(wsf_load_avx512(s + i, n - i, 1)));
        return length;
    }
    for (i = 0; i < n; i += 32) {
        __m512i c = wsf_load_avx512(s + i * width, n - i, width);
        if (width == 4) {
            const __m512i d = wsf_load_avx512(s + i * width + 64, n - i > 16 ? n - i - 16 : 0, width);
            length += (size_t)_mm_popcnt_u32(
                (uint32_t)_mm512_cmpge_epu32_mask(c, _mm512_set1_epi32(0x10000)) << 16
                | _mm512_cmpge_epu32_mask(d, _mm512_set1_epi32(0x10000)));
            c = _mm512_packus_epi32(c, d); /* what is larger becomes 0xFFFF */
        }
        length += (size_t)_mm_popcnt_u64(
            (uint64_t)_mm512_cmpge_epu16_mask(c, _mm512_set1_epi16(0x80)) << 32
            | _mm512_cmpge_epu16_mask(c, _mm512_set1_epi16(0x800)));
        least = _mm512_min_epu16(least, _mm512_xor_si512(c, _mm512_set1_epi16((short)0xD800)));
    }
    return _mm512_cmplt_epu16_mask(least, _mm512_set1_epi16(0x800)) ? SIZE_MAX : length;
}

WSF_TARGET_AVX512 static size_t wsf_utf8_length_avx512(const void *text, int width, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    return width == 1 ? wsf_utf8_length_blocks_avx512(s, 1, n)
         : width == 2 ? wsf_utf8_length_blocks_avx512(s, 2, n) : wsf_utf8_length_blocks_avx512(s, 4, n);
}

/* Write the bytes of v that are set in `valid`, and others in vain if there is `room`; return behind them.
 * A store of all 64 bytes takes less than a masked one: text of 64 KiB is encoded in 3.6 to 6.6 us, not 5.1 to 7.9. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE uint8_t *
wsf_squeeze_avx512(uint8_t *out, __m512i v, uint64_t valid, const int room)
{
    const size_t count = (size_t)_mm_popcnt_u64(valid);
    v = _mm512_maskz_compress_epi8(valid, v);
    if (room)
        _mm512_storeu_si512(out, v);
    else
        _mm512_mask_storeu_epi8(out, wsf_first(count), v);
    return out + count;
}

/* As above, of 32 bytes, for which it takes half. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE uint8_t *
wsf_squeeze_half_avx512(uint8_t *out, __m256i v, uint32_t valid, const int room)
{
    const size_t count = (size_t)_mm_popcnt_u32(valid);
    v = _mm256_maskz_compress_epi8(valid, v);
    if (room)
        _mm256_storeu_si256((__m256i *)out, v);
    else
        _mm256_mask_storeu_epi8(out, (__mmask32)wsf_first(count), v);
    return out + count;
}

/* Where the three bytes of 32 characters are taken from: the first and the second from words, which have them in this
 * order, the last from others. And what each is at least, if it is there. */
#define WSF_FOUR(i) WSF_ONE(i), WSF_ONE(i + 1), WSF_ONE(i + 2), WSF_ONE(i + 3)
#define WSF_ALL \
    WSF_FOUR(0), WSF_FOUR(4), WSF_FOUR(8), WSF_FOUR(12), WSF_FOUR(16), WSF_FOUR(20), WSF_FOUR(24), WSF_FOUR(28)
#define WSF_ONE(i) 2 * (i) + 1, 2 * (i), 2 * (i) + 64
static const uint8_t wsf_threes[96] = {WSF_ALL};
#undef WSF_ONE
#define WSF_ONE(i) 0x80, 0x80, 0
static const uint8_t wsf_least[96] = {WSF_ALL};
#undef WSF_ONE
#undef WSF_ALL
#undef WSF_FOUR

typedef struct {
    __m512i two, three, low6, fields, tag, turn, shifts;
} wsf_constants;

/* Encode the first n of 32 characters below 0x10000. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE uint8_t *
wsf_utf8_words_avx512(uint8_t *out, __m512i c, const int width, size_t n, const int room, const wsf_constants *k)
{
    const uint32_t two = _mm512_cmpge_epu16_mask(c, k->two);
    const uint32_t three = width == 1 ? 0 : _mm512_cmpge_epu16_mask(c, k->three);
    const __m512i last = _mm512_mask_mov_epi16(c, two, _mm512_ternarylogic_epi64(c, k->low6, k->two, 0xEA));
    __m512i front, lanes;
    __m256i rest;
    if (!two) {
        _mm256_mask_storeu_epi8(out, (__mmask32)wsf_first(n), _mm512_cvtepi16_epi8(c));
        return out + n;
    }
    front = _mm512_ternarylogic_epi64(_mm512_multishift_epi64_epi8(k->shifts, c), k->fields, k->tag, 0xEA);
    if (!three) {
        lanes = _mm512_or_si512(_mm512_maskz_mov_epi16(two, front), _mm512_slli_epi16(last, 8));
        return wsf_squeeze_avx512(out, lanes, _mm512_cmpge_epu8_mask(lanes, k->two) & wsf_first(2 * n), room);
    }
    front = _mm512_maskz_mov_epi16(two, _mm512_mask_add_epi16(front, three, front, k->turn));
    lanes = _mm512_permutex2var_epi8(front, _mm512_loadu_si512(wsf_threes), last);
    out = wsf_squeeze_avx512(
        out, lanes, _mm512_cmpge_epu8_mask(lanes, _mm512_loadu_si512(wsf_least)) & wsf_first(3 * n), room);
    rest = _mm512_castsi512_si256(_mm512_permutex2var_epi8(
        front, _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)(wsf_threes + 64))), last));
    return wsf_squeeze_half_avx512(
        out, rest,
        _mm256_cmpge_epu8_mask(rest, _mm256_loadu_si256((const __m256i *)(wsf_least + 64)))
            & (uint32_t)wsf_first(3 * n < 64 ? 0 : 3 * n - 64),
        room);
}

/* Encode the first n of 16 characters. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE uint8_t *
wsf_utf8_lanes4_avx512(uint8_t *out, __m512i c, size_t n, const int room)
{
    const uint16_t two = _mm512_cmpge_epu32_mask(c, _mm512_set1_epi32(0x80));
    const uint16_t three = _mm512_cmpge_epu32_mask(c, _mm512_set1_epi32(0x800));
    const uint16_t four = _mm512_cmpge_epu32_mask(c, _mm512_set1_epi32(0x10000));
    __m512i tag, lanes;
    tag = _mm512_mask_mov_epi32(_mm512_set1_epi32((int)0x80C00000), three, _mm512_set1_epi32((int)0x8080E000));
    tag = _mm512_mask_mov_epi32(tag, four, _mm512_set1_epi32((int)0x808080F0));
    lanes = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x20262C3200060C12), c);
    lanes = _mm512_ternarylogic_epi64(lanes, _mm512_set1_epi8(0x3F), tag, 0xEA);
    lanes = _mm512_mask_mov_epi32(_mm512_slli_epi32(c, 24), two, lanes);
    return wsf_squeeze_avx512(
        out, lanes, _mm512_cmpge_epu8_mask(lanes, _mm512_set1_epi32(0x00808080)) & wsf_first(4 * n), room);
}

/* Encode the first n of 32 characters at s. */
WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE uint8_t *
wsf_utf8_encode_block_avx512(
    uint8_t *out, const uint8_t *s, const int width, size_t n, const int room, const wsf_constants *k)
{
    __m512i c;
    if (width == 4) {
        const size_t rest = n < 16 ? 0 : n - 16;
        out = wsf_utf8_lanes4_avx512(out, wsf_load_avx512(s, n, 4), n, room);
        return wsf_utf8_lanes4_avx512(out, wsf_load_avx512(s + 64, rest, 4), rest, room);
    }
    if (width == 1)
        c = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8((__mmask32)wsf_first(n), s));
    else
        c = wsf_load_avx512(s, n, 2);
    return wsf_utf8_words_avx512(out, c, width, n, room, k);
}

/* Keep a constant in a register: where a loop has branches, gcc would make it anew in each round, of an immediate.
 * Text of 64 KiB is encoded in 3.5 us, not 4.1. */
#define WSF_KEEP(constant) __asm__("" : "+v"(constant))

WSF_TARGET_AVX512 static WSF_ALWAYS_INLINE void
wsf_utf8_encode_blocks_avx512(uint8_t *out, const int width, const uint8_t *s, size_t n)
{
    wsf_constants k = {
        _mm512_set1_epi16(0x80), _mm512_set1_epi16(0x800), _mm512_set1_epi16(0x3F),
        _mm512_set1_epi16(0x0F3F),                 /* in a word the second byte, and the first above it */
        _mm512_set1_epi16(0xC0),                   /* what is the first of two */
        _mm512_set1_epi16((short)(0xE080 - 0xC0)), /* to what are the first two of three */
        _mm512_set1_epi64(0x3C362C261C160C06),     /* bits 6 and 12 of each word */
    };
    size_t i;
    WSF_KEEP(k.two);
    WSF_KEEP(k.three);
    WSF_KEEP(k.low6);
    WSF_KEEP(k.fields);
    WSF_KEEP(k.tag);
    WSF_KEEP(k.turn);
    WSF_KEEP(k.shifts);
    for (i = 0; i + 80 <= n; i += 32) /* behind the first 16, 64 leave room for what is written in vain */
        out = wsf_utf8_encode_block_avx512(out, s + i * width, width, 32, 1, &k);
    for (; i < n; i += 32)
        out = wsf_utf8_encode_block_avx512(out, s + i * width, width, n - i < 32 ? n - i : 32, 0, &k);
}

WSF_TARGET_AVX512 static void wsf_utf8_encode_avx512(uint8_t *out, const void *text, int width, size_t n)
{
    if (width == 1)
        wsf_utf8_encode_blocks_avx512(out, 1, (const uint8_t *)text, n);
    else if (width == 2)
        wsf_utf8_encode_blocks_avx512(out, 2, (const uint8_t *)text, n);
    else
        wsf_utf8_encode_blocks_avx512(out, 4, (const uint8_t *)text, n);
}
#endif

#endif
