/* The streaming detokeniser: holds back what may still become a character.
 *
 * Owned by whoever streams text (a session's generate call, a test); one stream, one thread. Knows
 * bytes only, not tokens. */
#include "text/detok.h"

#include <string.h>

static const char replacement[] = "\xef\xbf\xbd"; /* U+FFFD */

/* True if `b` may follow the n_held bytes held, by Unicode's table of well-formed sequences (3-7). */
static bool may_follow(const mfi_detok *detok, unsigned char b)
{
    if (detok->n_held == 1) {
        switch (detok->held[0]) {
        case 0xe0:
            return b >= 0xa0 && b <= 0xbf;
        case 0xed:
            return b >= 0x80 && b <= 0x9f;
        case 0xf0:
            return b >= 0x90 && b <= 0xbf;
        case 0xf4:
            return b >= 0x80 && b <= 0x8f;
        default:
            break;
        }
    }
    return (b & 0xc0) == 0x80;
}

static uint32_t sequence_len(unsigned char lead)
{
    if (lead < 0xc2 || lead > 0xf4)
        return 0;
    return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

static void push_byte(mfi_detok *detok, unsigned char b, mfi_buf *out)
{
    if (detok->n_held) {
        if (may_follow(detok, b)) {
            detok->held[detok->n_held++] = b;
            if (detok->n_held == sequence_len(detok->held[0])) {
                mfi_buf_append(out, detok->held, detok->n_held);
                detok->n_held = 0;
            }
            return;
        }
        mfi_buf_append(out, replacement, 3);
        detok->n_held = 0;
    }
    if (b < 0x80)
        mfi_buf_append(out, &b, 1);
    else if (sequence_len(b))
        detok->held[detok->n_held++] = b;
    else
        mfi_buf_append(out, replacement, 3);
}

void mfi_detok_push(mfi_detok *detok, const char *bytes, size_t len, mfi_buf *out)
{
    size_t i = 0;
    while (i < len) {
        size_t start = i;
        if (!detok->n_held) {
            while (i < len && (unsigned char)bytes[i] < 0x80)
                i++;
            if (i > start)
                mfi_buf_append(out, bytes + start, i - start);
        }
        if (i < len)
            push_byte(detok, (unsigned char)bytes[i++], out);
    }
}

void mfi_detok_end(mfi_detok *detok, mfi_buf *out)
{
    if (detok->n_held)
        mfi_buf_append(out, replacement, 3);
    detok->n_held = 0;
}
