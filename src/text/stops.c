/* Stop strings; see stops.h. Owned by one generation, on its thread; knows no tokens.
 *
 * Every string is searched for by the method of Knuth, Morris and Pratt, a byte at a time, so that
 * no cut of the text can matter. What the longest begun match covers is held back. Strings are
 * valid UTF-8 and so is the text: matches begin and end at characters, and so does what is held. */
#include "text/stops.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

typedef struct stop_text {
    char *text;         /* [len] */
    uint32_t *fallback; /* [len]: the longest proper border of text[0..i] */
    uint32_t len, at;   /* at: bytes matched */
} stop_text;

struct mfi_stops {
    stop_text *all; /* [n] */
    size_t n;
    char *held; /* [longest] */
    size_t n_held, which;
    bool done;
};

static uint32_t step(const stop_text *s, uint32_t at, char byte)
{
    while (at && s->text[at] != byte)
        at = s->fallback[at - 1];
    return at + (s->text[at] == byte);
}

static mf_status open_text(stop_text *s, const char *text, mf_error *err)
{
    size_t len = text ? strnlen(text, MFI_MAX_STOP_BYTES + 1) : 0;
    if (!len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "a stop string is empty");
    if (len > MFI_MAX_STOP_BYTES)
        return mfi_fail(err, MF_ERR_LIMIT, "a stop string has more than %d bytes",
                        MFI_MAX_STOP_BYTES);
    size_t good = mfi_utf8_check(text, len);
    if (good != len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "a stop string is not UTF-8 at offset %zu", good);
    s->text = malloc(len);
    s->fallback = calloc(len, sizeof *s->fallback);
    if (!s->text || !s->fallback)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for stop strings");
    memcpy(s->text, text, len);
    s->len = (uint32_t)len;
    for (uint32_t i = 1; i < s->len; i++)
        s->fallback[i] = step(s, s->fallback[i - 1], s->text[i]);
    return MF_OK;
}

static mf_status open_texts(mfi_stops *s, const char *const *texts, size_t n, mf_error *err)
{
    size_t longest = 0;
    s->all = calloc(n, sizeof *s->all);
    if (!s->all)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for stop strings");
    s->n = n;
    for (size_t i = 0; i < n; i++) {
        MFI_TRY(open_text(&s->all[i], texts[i], err));
        longest = MFI_MAX(longest, s->all[i].len);
    }
    s->held = malloc(longest);
    return s->held ? MF_OK : mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for stop strings");
}

mf_status mfi_stops_open(mfi_stops **stops, const char *const *texts, size_t n, mf_error *err)
{
    if (!texts || !n)
        return mfi_fail(err, MF_ERR_ARGUMENT, "no stop strings");
    if (n > MFI_MAX_STOPS)
        return mfi_fail(err, MF_ERR_LIMIT, "%zu stop strings: at most %d", n, MFI_MAX_STOPS);
    *stops = calloc(1, sizeof **stops);
    if (!*stops)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for stop strings");
    mf_status status = open_texts(*stops, texts, n, err);
    if (status != MF_OK)
        mfi_stops_close(stops);
    return status;
}

void mfi_stops_close(mfi_stops **stops)
{
    mfi_stops *s = *stops;
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++) {
        free(s->all[i].text);
        free(s->all[i].fallback);
    }
    free(s->all);
    free(s->held);
    free(s);
    *stops = NULL;
}

/* One byte. Held afterwards is what the longest begun match covers. */
static void take(mfi_stops *s, char byte, mfi_buf *out)
{
    uint32_t complete = 0, keep = 0;
    for (size_t i = 0; i < s->n; i++) {
        stop_text *t = &s->all[i];
        t->at = step(t, t->at, byte);
        keep = MFI_MAX(keep, t->at);
        if (t->at == t->len && t->len > complete) {
            complete = t->len;
            s->which = i;
        }
    }
    if (complete) { /* the bytes before it that are held are shown */
        mfi_buf_append(out, s->held, s->n_held + 1 - complete);
        s->n_held = 0;
        s->done = true;
        return;
    }
    size_t n_out = MFI_MIN(s->n_held, s->n_held + 1 - keep);
    mfi_buf_append(out, s->held, n_out);
    s->n_held -= n_out;
    memmove(s->held, s->held + n_out, s->n_held);
    if (keep)
        s->held[s->n_held++] = byte;
    else
        mfi_buf_append(out, &byte, 1);
}

bool mfi_stops_push(mfi_stops *s, const char *bytes, size_t len, mfi_buf *out)
{
    for (size_t i = 0; i < len && !s->done; i++)
        take(s, bytes[i], out);
    return s->done;
}

size_t mfi_stops_which(const mfi_stops *s)
{
    return s->which;
}

void mfi_stops_end(mfi_stops *s, mfi_buf *out)
{
    mfi_buf_append(out, s->held, s->n_held);
    s->n_held = 0;
}
