/* Text by AVX2: checking, measuring, decoding and encoding it. _codec_utf8_tables.h says how. */
#ifndef WSFAST_CODEC_UTF8_AVX2_H
#define WSFAST_CODEC_UTF8_AVX2_H

#include "_codec_utf8_tables.h"

#ifdef WSF_AVX2
#define WSF_TARGET_AVX2 __attribute__((target("avx2,popcnt")))

WSF_TARGET_AVX2 static inline __m256i wsf_back_avx2(__m256i before, __m256i block, int n)
{
    __m256i joint = _mm256_permute2x128_si256(before, block, 0x21);
    return n == 1 ? _mm256_alignr_epi8(block, joint, 15)
         : n == 2 ? _mm256_alignr_epi8(block, joint, 14) : _mm256_alignr_epi8(block, joint, 13);
}

/* Return whether 32 bytes, with those before them, cannot be UTF-8; what is unfinished at their end is not seen. */
WSF_TARGET_AVX2 static WSF_ALWAYS_INLINE int wsf_utf8_wrong_avx2(__m256i before, __m256i block)
{
#define WSF_TABLE(table) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(table)))
    const __m256i first_high = WSF_TABLE(wsf_first_high), first_low = WSF_TABLE(wsf_first_low);
    const __m256i second_high = WSF_TABLE(wsf_second_high);
#undef WSF_TABLE
    const __m256i nibble = _mm256_set1_epi8(0x0F), top = _mm256_set1_epi8((char)0x80);
    const __m256i three = _mm256_set1_epi8(0xE0 - 0x80), four = _mm256_set1_epi8(0xF0 - 0x80);
    const __m256i back1 = wsf_back_avx2(before, block, 1);
    const __m256i pairs = _mm256_and_si256(
        _mm256_and_si256(
            _mm256_shuffle_epi8(first_high, _mm256_and_si256(_mm256_srli_epi16(back1, 4), nibble)),
            _mm256_shuffle_epi8(first_low, _mm256_and_si256(back1, nibble))),
        _mm256_shuffle_epi8(second_high, _mm256_and_si256(_mm256_srli_epi16(block, 4), nibble)));
    const __m256i must = _mm256_and_si256(
        _mm256_or_si256(
            _mm256_subs_epu8(wsf_back_avx2(before, block, 2), three),
            _mm256_subs_epu8(wsf_back_avx2(before, block, 3), four)),
        top);
    const __m256i wrong = _mm256_xor_si256(must, pairs);
    return !_mm256_testz_si256(wrong, wrong);
}

/* Return how many bytes, counted from a character's first byte, are UTF-8 but for an unfinished character at their end:
 * all, or a multiple of 32. */
WSF_TARGET_AVX2 static size_t wsf_utf8_blocks_avx2(const uint8_t *s, size_t n)
{
    __m256i before = _mm256_setzero_si256(), block;
    uint8_t rest[32] = {0};
    size_t i;
    for (i = 0; i + 32 <= n; i += 32) {
        block = _mm256_loadu_si256((const __m256i *)(s + i));
        if (wsf_utf8_wrong_avx2(before, block))
            return i;
        before = block;
        if (!_mm256_movemask_epi8(block)) {
            for (; i + 160 <= n; i += 128) {
                __m256i a = _mm256_loadu_si256((const __m256i *)(s + i + 32));
                __m256i b = _mm256_loadu_si256((const __m256i *)(s + i + 64));
                __m256i c = _mm256_loadu_si256((const __m256i *)(s + i + 96));
                __m256i d = _mm256_loadu_si256((const __m256i *)(s + i + 128));
                if (_mm256_movemask_epi8(_mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d))))
                    break;
            }
        }
    }
    if (i < n) {
        /* Zeros behind it tell that it is unfinished. */
        memcpy(rest, s + i, n - i);
        if (wsf_utf8_wrong_avx2(before, _mm256_loadu_si256((const __m256i *)rest)))
            return i;
    }
    return n;
}

WSF_TARGET_AVX2 static size_t wsf_utf8_measure_avx2(const uint8_t *s, size_t n, uint8_t *largest)
{
    const __m256i last = _mm256_set1_epi8((char)0xBF);
    __m256i most = _mm256_setzero_si256();
    uint8_t all[32], rest;
    size_t i, k, length = 0;
    for (i = 0; i + 32 <= n; i += 32) {
        const __m256i block = _mm256_loadu_si256((const __m256i *)(s + i));
        length += (size_t)_mm_popcnt_u32((unsigned)_mm256_movemask_epi8(_mm256_cmpgt_epi8(block, last)));
        most = _mm256_max_epu8(most, block);
    }
    length += wsf_utf8_measure_plain(s + i, n - i, &rest);
    _mm256_storeu_si256((__m256i *)all, most);
    for (k = 0; k < 32; k++)
        rest = all[k] > rest ? all[k] : rest;
    *largest = rest;
    return length;
}

/* Of 32 bytes, the eight from 8 * k on, in the low half. */
WSF_TARGET_AVX2 static WSF_ALWAYS_INLINE __m128i wsf_eight_avx2(__m256i v, int k)
{
    const __m128i half = k & 2 ? _mm256_extracti128_si256(v, 1) : _mm256_castsi256_si128(v);
    return k & 1 ? _mm_srli_si128(half, 8) : half;
}

/* Of eight bytes, those of a set in front. */
WSF_TARGET_AVX2 static WSF_ALWAYS_INLINE __m128i wsf_squeeze_avx2(__m128i eight, unsigned set)
{
    return _mm_shuffle_epi8(eight, _mm_loadl_epi64((const __m128i *)wsf_places[set]));
}

/* How many of the places in front of 8 * k are in a set of 32. */
WSF_TARGET_AVX2 static WSF_ALWAYS_INLINE unsigned wsf_before_avx2(unsigned set, int k)
{
    return (unsigned)_mm_popcnt_u32(set & ((1u << 8 * k) - 1));
}

/* Decode while there are 64 bytes, of which 32 leave room for what is written in vain; return how many are done.
 * At the last byte of each character stand the low, the high and the top byte of its number. */
WSF_TARGET_AVX2 static WSF_ALWAYS_INLINE size_t
wsf_utf8_decode_blocks_avx2(uint8_t **end, const int width, const uint8_t *s, size_t n)
{
    const __m256i low2 = _mm256_set1_epi8(0x03), low4 = _mm256_set1_epi8(0x0F), low6 = _mm256_set1_epi8(0x3F);
    const __m256i last = _mm256_set1_epi8((char)0xBF), zero = _mm256_setzero_si256();
    __m256i before = zero;
    uint8_t *out = *end;
    size_t i;
    int k;
    for (i = 0; i + 64 <= n; i += 32) {
        const __m256i block = _mm256_loadu_si256((const __m256i *)(s + i));
        __m256i back1, back2, low, high = zero, top = zero, more, pairs[2] = {zero, zero};
        unsigned places;
        if (!_mm256_movemask_epi8(block)) {
            for (k = 0; k < 32; k += 8) {
                const __m128i part = _mm_loadl_epi64((const __m128i *)(s + i + k));
                if (width == 1)
                    _mm_storel_epi64((__m128i *)out, part);
                else if (width == 2)
                    _mm_storeu_si128((__m128i *)out, _mm_cvtepu8_epi16(part));
                else
                    _mm256_storeu_si256((__m256i *)out, _mm256_cvtepu8_epi32(part));
                out += 8 * width;
            }
            before = block;
            continue;
        }
        back1 = wsf_back_avx2(before, block, 1);
        back2 = wsf_back_avx2(before, block, 2);
        places = (unsigned)_mm256_movemask_epi8(
            _mm256_cmpgt_epi8(_mm256_loadu_si256((const __m256i *)(s + i + 1)), last));
        low = _mm256_or_si256(_mm256_and_si256(block, low6), _mm256_andnot_si256(low6, _mm256_slli_epi16(back1, 6)));
        low = _mm256_blendv_epi8(block, low, block);
        if (width > 1) {
            more = _mm256_cmpgt_epi8(_mm256_set1_epi8((char)0xC0), back1); /* there are three bytes, or four */
            back2 = _mm256_and_si256(back2, more);
            high = _mm256_or_si256(
                _mm256_and_si256(_mm256_srli_epi16(back1, 2), low4),
                _mm256_andnot_si256(low4, _mm256_slli_epi16(back2, 4)));
            high = _mm256_blendv_epi8(zero, high, block);
            pairs[0] = _mm256_unpacklo_epi8(low, high);
            pairs[1] = _mm256_unpackhi_epi8(low, high);
        }
        if (width > 2) {
            const __m256i back3 = _mm256_slli_epi16(
                _mm256_and_si256(wsf_back_avx2(before, block, 3), _mm256_set1_epi8(0x07)), 2);
            top = _mm256_or_si256(_mm256_and_si256(_mm256_srli_epi16(back2, 4), low2), back3);
            more = _mm256_and_si256(more, _mm256_cmpgt_epi8(_mm256_set1_epi8((char)0xC0), back2));
            top = _mm256_blendv_epi8(zero, _mm256_and_si256(top, more), block);
        }
        for (k = 0; k < 4; k++) {
            const unsigned set = places >> 8 * k & 255;
            uint8_t *to = out + (size_t)width * wsf_before_avx2(places, k);
            if (width == 1) {
                _mm_storel_epi64((__m128i *)to, wsf_squeeze_avx2(wsf_eight_avx2(low, k), set));
            } else {
                const __m128i both = _mm_shuffle_epi8(
                    wsf_eight_avx2(pairs[k & 1], k & 2), _mm_loadu_si128((const __m128i *)wsf_pairs[set]));
                if (width == 2) {
                    _mm_storeu_si128((__m128i *)to, both);
                } else {
                    const __m128i c = _mm_cvtepu8_epi16(wsf_squeeze_avx2(wsf_eight_avx2(top, k), set));
                    _mm_storeu_si128((__m128i *)to, _mm_unpacklo_epi16(both, c));
                    _mm_storeu_si128((__m128i *)(to + 16), _mm_unpackhi_epi16(both, c));
                }
            }
        }
        out += (size_t)width * (unsigned)_mm_popcnt_u32(places);
        before = block;
    }
    *end = out;
    return wsf_utf8_boundary(s, i);
}

WSF_TARGET_AVX2 static size_t wsf_utf8_decode_avx2(uint8_t **out, int width, const uint8_t *s, size_t n)
{
    return width == 1 ? wsf_utf8_decode_blocks_avx2(out, 1, s, n)
         : width == 2 ? wsf_utf8_decode_blocks_avx2(out, 2, s, n) : wsf_utf8_decode_blocks_avx2(out, 4, s, n);
}

/* Return how many bytes n characters take in UTF-8, or SIZE_MAX if one is a surrogate.
 * Each takes a byte, and one more from 0x80, 0x800 and 0x10000 on: of a block, the comparisons with all three are packed
 * into one mask, whose bits are counted. */
WSF_TARGET_AVX2 static size_t wsf_utf8_length_avx2(const void *text, int width, size_t n)
{
    const uint8_t *s = (const uint8_t *)text;
    const size_t step = 32u / (unsigned)width;
    __m256i surrogates = _mm256_setzero_si256();
    size_t i, length = 0, rest;
    for (i = 0; i + step <= n; i += step) {
        const __m256i c = _mm256_loadu_si256((const __m256i *)(s + i * (unsigned)width));
        __m256i more = c;
        if (width == 2) {
            const __m256i two = _mm256_set1_epi16(0x80), three = _mm256_set1_epi16(0x800);
            more = _mm256_packs_epi16(
                _mm256_cmpeq_epi16(_mm256_max_epu16(c, two), c), _mm256_cmpeq_epi16(_mm256_max_epu16(c, three), c));
            surrogates = _mm256_or_si256(
                surrogates,
                _mm256_cmpeq_epi16(
                    _mm256_and_si256(c, _mm256_set1_epi16((short)0xF800)), _mm256_set1_epi16((short)0xD800)));
        } else if (width == 4) {
            more = _mm256_packs_epi16(
                _mm256_packs_epi32(
                    _mm256_cmpgt_epi32(c, _mm256_set1_epi32(0x7F)), _mm256_cmpgt_epi32(c, _mm256_set1_epi32(0x7FF))),
                _mm256_packs_epi32(_mm256_cmpgt_epi32(c, _mm256_set1_epi32(0xFFFF)), _mm256_setzero_si256()));
            surrogates = _mm256_or_si256(
                surrogates,
                _mm256_cmpeq_epi32(
                    _mm256_and_si256(c, _mm256_set1_epi32((int)0xFFFFF800)), _mm256_set1_epi32(0xD800)));
        }
        length += step + (size_t)_mm_popcnt_u32((unsigned)_mm256_movemask_epi8(more));
    }
    rest = wsf_utf8_length_plain(s + i * (unsigned)width, width, n - i);
    return rest == SIZE_MAX || !_mm256_testz_si256(surrogates, surrogates) ? SIZE_MAX : length + rest;
}

/* Write the bytes of lanes whose top bits are set in `valid`, and up to eight in vain; return behind them. */
WSF_TARGET_AVX2 static WSF_ALWAYS_INLINE uint8_t *wsf_write_lanes_avx2(uint8_t *out, __m256i lanes, __m256i valid)
{
    const unsigned places = (unsigned)_mm256_movemask_epi8(valid);
    int k;
    for (k = 0; k < 4; k++)
        _mm_storel_epi64(
            (__m128i *)(out + wsf_before_avx2(places, k)),
            wsf_squeeze_avx2(wsf_eight_avx2(lanes, k), places >> 8 * k & 255));
    return out + _mm_popcnt_u32(places);
}

/* Encode 16 characters below 0x800. */
WSF_TARGET_AVX2 static inline uint8_t *wsf_utf8_lanes2_avx2(uint8_t *out, __m256i c)
{
    const __m256i last = _mm256_slli_epi16(c, 8);
    const __m256i both = _mm256_or_si256(
        _mm256_or_si256(_mm256_and_si256(last, _mm256_set1_epi16(0x3F00)), _mm256_srli_epi16(c, 6)),
        _mm256_set1_epi16((short)0x80C0));
    const __m256i lanes = _mm256_blendv_epi8(last, both, _mm256_cmpgt_epi16(c, _mm256_set1_epi16(0x7F)));
    return wsf_write_lanes_avx2(out, lanes, _mm256_or_si256(lanes, _mm256_set1_epi16((short)0xFF00)));
}

/* Encode 8 characters. */
WSF_TARGET_AVX2 static inline uint8_t *wsf_utf8_lanes4_avx2(uint8_t *out, __m256i c)
{
    const __m256i last = _mm256_slli_epi32(c, 24);
    const __m256i two = _mm256_cmpgt_epi32(c, _mm256_set1_epi32(0x7F));
    const __m256i three = _mm256_cmpgt_epi32(c, _mm256_set1_epi32(0x7FF));
    const __m256i four = _mm256_cmpgt_epi32(c, _mm256_set1_epi32(0xFFFF));
    __m256i tag, lanes;
    tag = _mm256_blendv_epi8(
        _mm256_set1_epi32((int)0x80C00000), _mm256_set1_epi32((int)0x8080E000), three);
    tag = _mm256_blendv_epi8(tag, _mm256_set1_epi32((int)0x808080F0), four);
    lanes = _mm256_or_si256(
        _mm256_or_si256(
            _mm256_srli_epi32(c, 18), _mm256_and_si256(_mm256_srli_epi32(c, 4), _mm256_set1_epi32(0x3F00))),
        _mm256_or_si256(
            _mm256_and_si256(_mm256_slli_epi32(c, 10), _mm256_set1_epi32(0x3F0000)),
            _mm256_and_si256(last, _mm256_set1_epi32(0x3F000000))));
    lanes = _mm256_blendv_epi8(last, _mm256_or_si256(lanes, tag), two);
    return wsf_write_lanes_avx2(out, lanes, _mm256_or_si256(lanes, _mm256_set1_epi32((int)0xFF000000)));
}

/* Encode while there are 24 characters, of which 8 leave room for what is written in vain; return how many are done.
 * A block of ASCII is written as it is. */
WSF_TARGET_AVX2 static size_t wsf_utf8_encode_avx2(uint8_t **out, const void *text, int width, size_t n)
{
    uint8_t *to = *out;
    size_t i;
    if (width == 1) {
        const uint8_t *s = (const uint8_t *)text;
        for (i = 0; i + 24 <= n; i += 16) {
            const __m128i c = _mm_loadu_si128((const __m128i *)(s + i));
            if (_mm_movemask_epi8(c)) {
                to = wsf_utf8_lanes2_avx2(to, _mm256_cvtepu8_epi16(c));
            } else {
                _mm_storeu_si128((__m128i *)to, c);
                to += 16;
            }
        }
    } else if (width == 2) {
        const uint16_t *s = (const uint16_t *)text;
        for (i = 0; i + 24 <= n; i += 16) {
            const __m256i c = _mm256_loadu_si256((const __m256i *)(s + i));
            const __m128i first = _mm256_castsi256_si128(c), second = _mm256_extracti128_si256(c, 1);
            if (_mm256_testz_si256(c, _mm256_set1_epi16((short)0xFF80))) {
                _mm_storeu_si128((__m128i *)to, _mm_packus_epi16(first, second));
                to += 16;
            } else if (_mm256_testz_si256(c, _mm256_set1_epi16((short)0xF800))) {
                to = wsf_utf8_lanes2_avx2(to, c);
            } else {
                to = wsf_utf8_lanes4_avx2(to, _mm256_cvtepu16_epi32(first));
                to = wsf_utf8_lanes4_avx2(to, _mm256_cvtepu16_epi32(second));
            }
        }
    } else {
        const uint32_t *s = (const uint32_t *)text;
        for (i = 0; i + 24 <= n; i += 16) {
            const __m256i first = _mm256_loadu_si256((const __m256i *)(s + i));
            const __m256i second = _mm256_loadu_si256((const __m256i *)(s + i + 8));
            if (_mm256_testz_si256(_mm256_or_si256(first, second), _mm256_set1_epi32((int)0xFFFFFF80))) {
                /* The lanes of 128 bits are packed each for itself: four of the first, of the second, and so on. */
                const __m256i pairs = _mm256_permute4x64_epi64(_mm256_packus_epi32(first, second), 0xD8);
                _mm_storeu_si128(
                    (__m128i *)to,
                    _mm_packus_epi16(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
                to += 16;
            } else {
                to = wsf_utf8_lanes4_avx2(to, first);
                to = wsf_utf8_lanes4_avx2(to, second);
            }
        }
    }
    *out = to;
    return i;
}
#endif

#endif
