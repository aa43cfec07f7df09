/* Text by NEON, which every 64-bit Arm has: checking, measuring, decoding and encoding it. _codec_utf8_tables.h says
 * how. */
#ifndef WSFAST_CODEC_UTF8_NEON_H
#define WSFAST_CODEC_UTF8_NEON_H

#include "_codec_utf8_tables.h"

#ifdef WSF_NEON
/* Return what is not zero where 16 bytes, with those before them, cannot be UTF-8; what is unfinished at their end is
 * not seen. */
static WSF_ALWAYS_INLINE uint8x16_t wsf_utf8_wrong_neon(uint8x16_t before, uint8x16_t block)
{
    const uint8x16_t first_high = vld1q_u8(wsf_first_high), first_low = vld1q_u8(wsf_first_low);
    const uint8x16_t second_high = vld1q_u8(wsf_second_high);
    const uint8x16_t back1 = vextq_u8(before, block, 15);
    const uint8x16_t pairs = vandq_u8(
        vandq_u8(
            vqtbl1q_u8(first_high, vshrq_n_u8(back1, 4)), vqtbl1q_u8(first_low, vandq_u8(back1, vdupq_n_u8(0x0F)))),
        vqtbl1q_u8(second_high, vshrq_n_u8(block, 4)));
    const uint8x16_t must = vorrq_u8(
        vqsubq_u8(vextq_u8(before, block, 14), vdupq_n_u8(0xE0 - 0x80)),
        vqsubq_u8(vextq_u8(before, block, 13), vdupq_n_u8(0xF0 - 0x80)));
    return veorq_u8(vandq_u8(must, vdupq_n_u8(0x80)), pairs);
}

/* Return whether 64 bytes are ASCII. */
static WSF_ALWAYS_INLINE int wsf_ascii_neon(const uint8_t *s)
{
    const uint8x16_t first = vorrq_u8(vld1q_u8(s), vld1q_u8(s + 16));
    const uint8x16_t second = vorrq_u8(vld1q_u8(s + 32), vld1q_u8(s + 48));
    return vmaxvq_u8(vorrq_u8(first, second)) < 0x80;
}

/* Return how many bytes, counted from a character's first byte, are UTF-8 but for an unfinished character at their end:
 * all, or a multiple of 64. */
static size_t wsf_utf8_blocks_neon(const uint8_t *s, size_t n)
{
    uint8x16_t before = vdupq_n_u8(0), a, b, c, d, wrong;
    uint8_t rest[64] = {0};
    size_t i;
    for (i = 0; i < n; i += 64) {
        const uint8_t *at = s + i;
        if (n - i < 64) {
            /* Zeros behind it tell that it is unfinished. */
            memcpy(rest, at, n - i);
            at = rest;
        }
        a = vld1q_u8(at);
        b = vld1q_u8(at + 16);
        c = vld1q_u8(at + 32);
        d = vld1q_u8(at + 48);
        wrong = vorrq_u8(
            vorrq_u8(wsf_utf8_wrong_neon(before, a), wsf_utf8_wrong_neon(a, b)),
            vorrq_u8(wsf_utf8_wrong_neon(b, c), wsf_utf8_wrong_neon(c, d)));
        if (vmaxvq_u8(wrong))
            return i;
        before = d;
        if (vmaxvq_u8(d) < 0x80)
            while (i + 128 <= n && wsf_ascii_neon(s + i + 64))
                i += 64;
    }
    return n;
}

static size_t wsf_utf8_measure_neon(const uint8_t *s, size_t n, uint8_t *largest)
{
    const int8x16_t last = vdupq_n_s8((int8_t)0xBF);
    uint8x16_t most = vdupq_n_u8(0), count;
    uint8_t rest, in_blocks;
    size_t i = 0, k, length = 0;
    while (i + 64 <= n) {
        const size_t end = n - i < 63 * 64 ? n & ~(size_t)63 : i + 63 * 64; /* then a count in a byte is full */
        for (count = vdupq_n_u8(0); i < end; i += 64) {
            for (k = 0; k < 64; k += 16) {
                const uint8x16_t block = vld1q_u8(s + i + k);
                count = vsubq_u8(count, vcgtq_s8(vreinterpretq_s8_u8(block), last));
                most = vmaxq_u8(most, block);
            }
        }
        length += vaddlvq_u8(count);
    }
    length += wsf_utf8_measure_plain(s + i, n - i, &rest);
    in_blocks = vmaxvq_u8(most);
    *largest = rest > in_blocks ? rest : in_blocks;
    return length;
}

/* Of 16 places that are all ones or zeros, the sets of the first and the last eight. */
static WSF_ALWAYS_INLINE void wsf_sets_neon(uint8x16_t places, unsigned sets[2])
{
    static const uint8_t bits[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t each = vandq_u8(places, vld1q_u8(bits));
    sets[0] = vaddv_u8(vget_low_u8(each));
    sets[1] = vaddv_u8(vget_high_u8(each));
}

/* Of eight bytes, those of a set in front. */
static WSF_ALWAYS_INLINE uint8x8_t wsf_squeeze_neon(uint8x8_t eight, unsigned set)
{
    return vtbl1_u8(eight, vld1_u8(wsf_places[set]));
}

/* Decode while there are 48 bytes, of which 32 leave room for what is written in vain; return how many are done.
 * At the last byte of each character stand the low, the high and the top byte of its number. */
static WSF_ALWAYS_INLINE size_t wsf_utf8_decode_blocks_neon(uint8_t **end, const int width, const uint8_t *s, size_t n)
{
    const uint8x16_t zero = vdupq_n_u8(0);
    uint8x16_t before = zero;
    uint8_t *out = *end;
    size_t i;
    int k;
    for (i = 0; i + 48 <= n; i += 16) {
        const uint8x16_t block = vld1q_u8(s + i);
        uint8x16_t back1, back2, continued, more, low, high = zero, top = zero;
        uint8x8_t halves[2];
        uint8x16_t pairs[2];
        unsigned sets[2];
        if (vmaxvq_u8(block) < 0x80) {
            if (width == 1) {
                vst1q_u8(out, block);
            } else {
                const uint16x8_t both[2] = {vmovl_u8(vget_low_u8(block)), vmovl_high_u8(block)};
                for (k = 0; k < 2; k++) {
                    if (width == 2) {
                        vst1q_u16((uint16_t *)out + 8 * k, both[k]);
                    } else {
                        vst1q_u32((uint32_t *)out + 8 * k, vmovl_u16(vget_low_u16(both[k])));
                        vst1q_u32((uint32_t *)out + 8 * k + 4, vmovl_high_u16(both[k]));
                    }
                }
            }
            out += 16 * width;
            before = block;
            continue;
        }
        back1 = vextq_u8(before, block, 15);
        back2 = vextq_u8(before, block, 14);
        continued = vcgeq_u8(block, vdupq_n_u8(0x80));
        /* Where the next byte continues nothing, a character ends. */
        wsf_sets_neon(
            vcgtq_s8(vreinterpretq_s8_u8(vld1q_u8(s + i + 1)), vdupq_n_s8((int8_t)0xBF)), sets);
        low = vbslq_u8(continued, vsliq_n_u8(block, back1, 6), block);
        if (width == 1) {
            halves[0] = vget_low_u8(low);
            halves[1] = vget_high_u8(low);
        } else {
            more = vcltq_u8(back1, vdupq_n_u8(0xC0)); /* there are three bytes, or four */
            back2 = vandq_u8(back2, more);
            high = vandq_u8(vsliq_n_u8(vshrq_n_u8(back1, 2), back2, 4), continued);
            pairs[0] = vzip1q_u8(low, high);
            pairs[1] = vzip2q_u8(low, high);
            if (width > 2) {
                const uint8x16_t back3 = vandq_u8(vextq_u8(before, block, 13), vdupq_n_u8(0x07));
                more = vandq_u8(vandq_u8(more, continued), vcltq_u8(back2, vdupq_n_u8(0xC0)));
                top = vandq_u8(vsliq_n_u8(vshrq_n_u8(back2, 4), back3, 2), more);
                halves[0] = vget_low_u8(top);
                halves[1] = vget_high_u8(top);
            }
        }
        for (k = 0; k < 2; k++) {
            if (width == 1) {
                vst1_u8(out, wsf_squeeze_neon(halves[k], sets[k]));
            } else {
                const uint8x16_t both = vqtbl1q_u8(pairs[k], vld1q_u8(wsf_pairs[sets[k]]));
                if (width == 2) {
                    vst1q_u8(out, both);
                } else {
                    const uint16x8_t c = vmovl_u8(wsf_squeeze_neon(halves[k], sets[k]));
                    vst1q_u16((uint16_t *)out, vzip1q_u16(vreinterpretq_u16_u8(both), c));
                    vst1q_u16((uint16_t *)out + 8, vzip2q_u16(vreinterpretq_u16_u8(both), c));
                }
            }
            out += width * __builtin_popcount(sets[k]);
        }
        before = block;
    }
    *end = out;
    return wsf_utf8_boundary(s, i);
}

static size_t wsf_utf8_decode_neon(uint8_t **out, int width, const uint8_t *s, size_t n)
{
    return width == 1 ? wsf_utf8_decode_blocks_neon(out, 1, s, n)
         : width == 2 ? wsf_utf8_decode_blocks_neon(out, 2, s, n) : wsf_utf8_decode_blocks_neon(out, 4, s, n);
}

/* Write the bytes of lanes that are in `valid`, and up to eight in vain; return behind them. */
static WSF_ALWAYS_INLINE uint8_t *wsf_write_lanes_neon(uint8_t *out, uint8x16_t lanes, uint8x16_t valid)
{
    unsigned sets[2];
    wsf_sets_neon(valid, sets);
    vst1_u8(out, wsf_squeeze_neon(vget_low_u8(lanes), sets[0]));
    out += __builtin_popcount(sets[0]);
    vst1_u8(out, wsf_squeeze_neon(vget_high_u8(lanes), sets[1]));
    return out + __builtin_popcount(sets[1]);
}

/* Encode 8 characters below 0x800. */
static inline uint8_t *wsf_utf8_lanes2_neon(uint8_t *out, uint16x8_t c)
{
    const uint16x8_t last = vshlq_n_u16(c, 8);
    const uint16x8_t both = vorrq_u16(
        vorrq_u16(vandq_u16(last, vdupq_n_u16(0x3F00)), vshrq_n_u16(c, 6)), vdupq_n_u16(0x80C0));
    const uint16x8_t two = vcgtq_u16(c, vdupq_n_u16(0x7F));
    return wsf_write_lanes_neon(
        out, vreinterpretq_u8_u16(vbslq_u16(two, both, last)),
        vreinterpretq_u8_u16(vorrq_u16(two, vdupq_n_u16(0xFF00))));
}

/* Encode 4 characters. */
static inline uint8_t *wsf_utf8_lanes4_neon(uint8_t *out, uint32x4_t c)
{
    const uint32x4_t last = vshlq_n_u32(c, 24);
    const uint32x4_t two = vcgtq_u32(c, vdupq_n_u32(0x7F)), three = vcgtq_u32(c, vdupq_n_u32(0x7FF));
    const uint32x4_t four = vcgtq_u32(c, vdupq_n_u32(0xFFFF));
    uint32x4_t tag, lanes, valid;
    tag = vbslq_u32(three, vdupq_n_u32(0x8080E000), vdupq_n_u32(0x80C00000));
    tag = vbslq_u32(four, vdupq_n_u32(0x808080F0), tag);
    lanes = vorrq_u32(
        vorrq_u32(vshrq_n_u32(c, 18), vandq_u32(vshrq_n_u32(c, 4), vdupq_n_u32(0x3F00))),
        vorrq_u32(
            vandq_u32(vshlq_n_u32(c, 10), vdupq_n_u32(0x3F0000)), vandq_u32(last, vdupq_n_u32(0x3F000000))));
    lanes = vbslq_u32(two, vorrq_u32(lanes, tag), last);
    valid = vorrq_u32(
        vorrq_u32(vdupq_n_u32(0xFF000000), vandq_u32(two, vdupq_n_u32(0x00FF0000))),
        vorrq_u32(vandq_u32(three, vdupq_n_u32(0x0000FF00)), vandq_u32(four, vdupq_n_u32(0x000000FF))));
    return wsf_write_lanes_neon(out, vreinterpretq_u8_u32(lanes), vreinterpretq_u8_u32(valid));
}

/* Encode while there are 24 characters, of which 8 leave room for what is written in vain; return how many are done.
 * A block of ASCII is written as it is. */
static size_t wsf_utf8_encode_neon(uint8_t **out, const void *text, int width, size_t n)
{
    uint8_t *to = *out;
    size_t i;
    if (width == 1) {
        const uint8_t *s = (const uint8_t *)text;
        for (i = 0; i + 24 <= n; i += 16) {
            const uint8x16_t c = vld1q_u8(s + i);
            if (vmaxvq_u8(c) >= 0x80) {
                to = wsf_utf8_lanes2_neon(to, vmovl_u8(vget_low_u8(c)));
                to = wsf_utf8_lanes2_neon(to, vmovl_high_u8(c));
            } else {
                vst1q_u8(to, c);
                to += 16;
            }
        }
    } else if (width == 2) {
        const uint16_t *s = (const uint16_t *)text;
        for (i = 0; i + 16 <= n; i += 8) {
            const uint16x8_t c = vld1q_u16(s + i);
            const uint16_t most = vmaxvq_u16(c);
            if (most < 0x80) {
                vst1_u8(to, vmovn_u16(c));
                to += 8;
            } else if (most < 0x800) {
                to = wsf_utf8_lanes2_neon(to, c);
            } else {
                to = wsf_utf8_lanes4_neon(to, vmovl_u16(vget_low_u16(c)));
                to = wsf_utf8_lanes4_neon(to, vmovl_high_u16(c));
            }
        }
    } else {
        const uint32_t *s = (const uint32_t *)text;
        for (i = 0; i + 16 <= n; i += 8) {
            const uint32x4_t first = vld1q_u32(s + i), second = vld1q_u32(s + i + 4);
            if (vmaxvq_u32(vorrq_u32(first, second)) < 0x80) {
                vst1_u8(to, vmovn_u16(vcombine_u16(vmovn_u32(first), vmovn_u32(second))));
                to += 8;
            } else {
                to = wsf_utf8_lanes4_neon(to, first);
                to = wsf_utf8_lanes4_neon(to, second);
            }
        }
    }
    *out = to;
    return i;
}
#endif

#endif
