/* Unicode normalisation by utf8proc, with a look first whether there is anything to do, and case.
 *
 * Called by the normaliser, on any thread; holds no state. Text is cut where nothing joins, so that
 * a document without anything to do is only read. utf8proc takes U+11A7 for a final consonant of
 * Hangul syllables, which by the standard begin at U+11A8, and drops it; nothing is cut so that it
 * stands behind a syllable. */
#include "text/forms.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#define NOT_A_FINAL 0x11a7

/* The next stretch at *p that NFC might change: from the last inert character in front of the
 * first one that is not, to the next inert one. False if there is none. */
static bool find_inert_stretch(const char **p, const char *end, const char **stretch_end)
{
    const char *q = *p, *last = q;
    uint32_t cp;
    for (;;) {
        /* Up to U+02FF everything is inert. */
        while (q < end && (unsigned char)*q < 0xcc)
            q++;
        if (q == end)
            return false;
        last = q;
        q += mfi_utf8_decode(q, end, &cp);
        if (!mfi_unicode_is_inert(cp))
            break;
    }
    if (last > *p)
        last -= mfi_utf8_decode_before(*p, last, &cp);
    while (q < end) {
        size_t n = mfi_utf8_decode(q, end, &cp);
        if (mfi_unicode_is_inert(cp))
            break;
        q += n;
    }
    *p = last;
    *stretch_end = q;
    return true;
}

/* The same for the other forms, for which ASCII is all that is known to be left alone. */
static bool find_foreign_stretch(const char **p, const char *end, const char **stretch_end)
{
    const char *q = *p, *last;
    uint32_t cp;
    while (q < end && (unsigned char)*q < 0x80)
        q++;
    if (q == end)
        return false;
    last = q > *p ? q - 1 : q;
    q += mfi_utf8_decode(q, end, &cp);
    while (q < end && (unsigned char)*q >= 0x80) {
        size_t n = mfi_utf8_decode(q, end, &cp);
        if (cp == NOT_A_FINAL)
            break;
        q += n;
    }
    *p = last;
    *stretch_end = q;
    return true;
}

#define FEW_MARKS 16

static uint8_t combining_class(int32_t cp)
{
    return (uint8_t)utf8proc_get_property(cp)->combining_class;
}

/* Sorts a run of marks by combining class, stably: insertion while few, else counting, so that a
 * hostile run of a million marks stays linear. */
static void order_marks(int32_t *marks, int32_t *copy, size_t n)
{
    if (n <= FEW_MARKS) {
        for (size_t i = 1; i < n; i++) {
            int32_t mark = marks[i];
            size_t k = i;
            for (; k && combining_class(marks[k - 1]) > combining_class(mark); k--)
                marks[k] = marks[k - 1];
            marks[k] = mark;
        }
        return;
    }
    size_t at[257] = {0};
    for (size_t i = 0; i < n; i++)
        at[combining_class(marks[i]) + 1]++;
    for (size_t c = 1; c < 257; c++)
        at[c] += at[c - 1];
    memcpy(copy, marks, n * sizeof *marks);
    for (size_t i = 0; i < n; i++)
        marks[at[combining_class(copy[i])]++] = copy[i];
}

/* utf8proc_map would do all of it, but orders marks by bubbling. */
static mf_status put_stretch(utf8proc_option_t options, const char *text, size_t len, mfi_buf *out,
                             mf_error *err)
{
    uint32_t cp;
    int bound = 0;
    size_t n = 0, k = 0;
    for (size_t i = 0; i < len; i += mfi_utf8_decode(text + i, text + len, &cp)) {
        mfi_utf8_decode(text + i, text + len, &cp);
        n += (size_t)utf8proc_decompose_char((int32_t)cp, NULL, 0, options, &bound);
    }
    int32_t *points = malloc((2 * n + 1) * sizeof *points); /* the second half is for sorting */
    if (!points)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "normalising text: out of memory");
    for (size_t i = 0; i < len; i += mfi_utf8_decode(text + i, text + len, &cp)) {
        mfi_utf8_decode(text + i, text + len, &cp);
        k += (size_t)utf8proc_decompose_char((int32_t)cp, points + k, (utf8proc_ssize_t)(n - k),
                                             options, &bound);
    }
    MFI_ASSERT(k == n);
    for (size_t i = 0; i < n; i = k) {
        for (k = i + 1; k < n && combining_class(points[k]); k++)
            ;
        size_t first = i + (combining_class(points[i]) == 0);
        order_marks(points + first, points + n, k - first);
    }
    utf8proc_ssize_t bytes = utf8proc_reencode(points, (utf8proc_ssize_t)n, options);
    if (bytes >= 0)
        mfi_buf_append(out, points, (size_t)bytes);
    free(points);
    if (bytes < 0)
        return mfi_fail(err, MF_ERR_LIMIT, "normalising text: %s", utf8proc_errmsg(bytes));
    return MF_OK;
}

mf_status mfi_form_put(mfi_form form, const char *text, size_t len, mfi_buf *out, bool *changed,
                       mf_error *err)
{
    static const utf8proc_option_t options[] = {
        [MFI_FORM_NFC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE,
        [MFI_FORM_NFD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE,
        [MFI_FORM_NFKC] = UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT,
        [MFI_FORM_NFKD] = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT,
    };
    bool (*find)(const char **, const char *, const char **) =
        form == MFI_FORM_NFC ? find_inert_stretch : find_foreign_stretch;
    const char *p = text, *end = text + len, *stretch_end, *done = text;
    *changed = find(&p, end, &stretch_end);
    if (!*changed)
        return MF_OK;
    do {
        mfi_buf_append(out, done, (size_t)(p - done));
        MFI_TRY(put_stretch(options[form], p, (size_t)(stretch_end - p), out, err));
        p = done = stretch_end;
    } while (find(&p, end, &stretch_end));
    mfi_buf_append(out, done, (size_t)(end - done));
    return MF_OK;
}

void mfi_lowercase_put(const char *text, size_t len, mfi_buf *out)
{
    const char *p = text, *end = text + len;
    while (p < end) {
        uint32_t cp;
        char utf8[4];
        p += mfi_utf8_decode(p, end, &cp);
        if (cp == 0x130) { /* the one character that becomes two everywhere */
            mfi_buf_append(out, "i\xcc\x87", 3);
            continue;
        }
        cp = (uint32_t)utf8proc_tolower((int32_t)cp);
        mfi_buf_append(out, utf8, mfi_utf8_encode(cp, utf8));
    }
}
