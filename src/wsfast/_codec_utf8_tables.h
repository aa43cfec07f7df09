/* What the loops over text by vectors share: how they check, how they squeeze, and where a character ends.
 *
 * Of a block, all characters are done at once, whatever their lengths. Each byte of a decoded character is put together
 * at the place of its last byte in UTF-8, and what is not at such a place is squeezed out; encoding puts the bytes of a
 * character into a lane of its own, at the end, and squeezes out what is in front. A shuffle squeezes 8 places, by a
 * table of which of them remain.
 */
#ifndef WSFAST_CODEC_UTF8_TABLES_H
#define WSFAST_CODEC_UTF8_TABLES_H

#include "_codec_utf8_plain.h"

#if defined(WSF_AVX2) || defined(WSF_NEON)
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

/* The method is Keiser's and Lemire's ("Validating UTF-8 In Less Than One Instruction Per Byte", 2021): three lookups
 * by the halves of two adjacent bytes tell all errors of pairs, and where the second or third byte behind a lead must
 * continue it. */
enum {
    WSF_TOO_SHORT = 1,   /* a lead or ASCII where a lead must be continued */
    WSF_TOO_LONG = 2,    /* a continuation behind ASCII */
    WSF_OVERLONG_3 = 4,  /* E0 80-9F */
    WSF_LARGE = 8,       /* F4 90-BF, F5-FF 90-BF */
    WSF_SURROGATE = 16,  /* ED A0-BF */
    WSF_OVERLONG_2 = 32, /* C0, C1 */
    WSF_OVERLONG_4 = 64, /* F0 80-8F, and F5-FF 80-8F */
    WSF_CONTINUED = 128, /* two continuations: an error unless a lead of three or four is in front */
    WSF_CARRY = WSF_TOO_SHORT | WSF_TOO_LONG | WSF_CONTINUED,
    WSF_BEYOND = WSF_CARRY | WSF_LARGE | WSF_OVERLONG_4
};
static const uint8_t wsf_first_high[16] = {
    WSF_TOO_LONG, WSF_TOO_LONG, WSF_TOO_LONG, WSF_TOO_LONG, WSF_TOO_LONG, WSF_TOO_LONG, WSF_TOO_LONG, WSF_TOO_LONG,
    WSF_CONTINUED, WSF_CONTINUED, WSF_CONTINUED, WSF_CONTINUED,
    WSF_TOO_SHORT | WSF_OVERLONG_2, WSF_TOO_SHORT, WSF_TOO_SHORT | WSF_OVERLONG_3 | WSF_SURROGATE,
    WSF_TOO_SHORT | WSF_LARGE | WSF_OVERLONG_4,
};
static const uint8_t wsf_first_low[16] = {
    WSF_CARRY | WSF_OVERLONG_2 | WSF_OVERLONG_3 | WSF_OVERLONG_4, WSF_CARRY | WSF_OVERLONG_2, WSF_CARRY, WSF_CARRY,
    WSF_CARRY | WSF_LARGE, WSF_BEYOND, WSF_BEYOND, WSF_BEYOND, WSF_BEYOND, WSF_BEYOND, WSF_BEYOND, WSF_BEYOND,
    WSF_BEYOND, WSF_BEYOND | WSF_SURROGATE, WSF_BEYOND, WSF_BEYOND,
};
static const uint8_t wsf_second_high[16] = {
    WSF_TOO_SHORT, WSF_TOO_SHORT, WSF_TOO_SHORT, WSF_TOO_SHORT,
    WSF_TOO_SHORT, WSF_TOO_SHORT, WSF_TOO_SHORT, WSF_TOO_SHORT,
    WSF_TOO_LONG | WSF_OVERLONG_2 | WSF_CONTINUED | WSF_OVERLONG_3 | WSF_OVERLONG_4,
    WSF_TOO_LONG | WSF_OVERLONG_2 | WSF_CONTINUED | WSF_OVERLONG_3 | WSF_LARGE,
    WSF_TOO_LONG | WSF_OVERLONG_2 | WSF_CONTINUED | WSF_SURROGATE | WSF_LARGE,
    WSF_TOO_LONG | WSF_OVERLONG_2 | WSF_CONTINUED | WSF_SURROGATE | WSF_LARGE,
    WSF_TOO_SHORT, WSF_TOO_SHORT, WSF_TOO_SHORT, WSF_TOO_SHORT,
};

/* For each set of 8 places, those that are in it, in order: of bytes, and of pairs of bytes. `wsf_choose` fills them. */
static uint8_t wsf_places[256][8], wsf_pairs[256][16];

static void wsf_fill_places(void)
{
    unsigned set, place;
    for (set = 0; set < 256; set++) {
        uint8_t *byte = wsf_places[set], *pair = wsf_pairs[set];
        for (place = 0; place < 8; place++) {
            if (set >> place & 1) {
                *byte++ = (uint8_t)place;
                *pair++ = (uint8_t)(2 * place);
                *pair++ = (uint8_t)(2 * place + 1);
            }
        }
    }
}
#endif

#endif
