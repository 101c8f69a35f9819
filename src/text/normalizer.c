/* The normaliser: NFC by utf8proc, with a look first whether there is anything to do.
 *
 * Called for each stretch of text between added tokens, on any thread. */
#include "text/normalizer.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static mf_status open_node(mfi_normalizer *normalizer, const mfi_json *node, uint32_t depth,
                           mf_error *err)
{
    const char *type = mfi_json_str(mfi_json_get(node, "type"), NULL);
    if (!type)
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: no type");
    if (strcmp(type, "NFC") == 0) {
        normalizer->nfc = true;
        return MF_OK;
    }
    if (strcmp(type, "Sequence") != 0)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "normalizer: %s", type);
    if (depth == 8)
        return mfi_fail(err, MF_ERR_LIMIT, "normalizer: sequences nested too deeply");
    const mfi_json *list = mfi_json_get(node, "normalizers");
    if (mfi_json_typeof(list) != MFI_JSON_ARRAY)
        return mfi_fail(err, MF_ERR_FORMAT, "normalizer: Sequence without normalizers");
    for (size_t i = 0; i < mfi_json_len(list); i++)
        MFI_TRY(open_node(normalizer, mfi_json_at(list, i), depth + 1, err));
    return MF_OK;
}

mf_status mfi_normalizer_open(mfi_normalizer *normalizer, const mfi_json *node, mf_error *err)
{
    *normalizer = (mfi_normalizer){0};
    if (mfi_json_typeof(node) == MFI_JSON_NULL)
        return MF_OK;
    return open_node(normalizer, node, 0, err);
}

/* The next stretch at *p that NFC might change: from the last inert character in front of the
 * first one that is not, to the next inert one. False if there is none. */
static bool find_stretch(const char **p, const char *end, const char **stretch_end)
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

#define NFC       (UTF8PROC_COMPOSE | UTF8PROC_STABLE)
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
static mf_status put_nfc(const char *text, size_t len, mfi_buf *out, mf_error *err)
{
    uint32_t cp;
    int bound = 0;
    size_t n = 0, k = 0;
    for (size_t i = 0; i < len; i += mfi_utf8_decode(text + i, text + len, &cp)) {
        mfi_utf8_decode(text + i, text + len, &cp);
        n += (size_t)utf8proc_decompose_char((int32_t)cp, NULL, 0, NFC, &bound);
    }
    int32_t *points = malloc((2 * n + 1) * sizeof *points); /* the second half is for sorting */
    if (!points)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "normalising text: out of memory");
    for (size_t i = 0; i < len; i += mfi_utf8_decode(text + i, text + len, &cp)) {
        mfi_utf8_decode(text + i, text + len, &cp);
        k += (size_t)utf8proc_decompose_char((int32_t)cp, points + k, (utf8proc_ssize_t)(n - k),
                                             NFC, &bound);
    }
    MFI_ASSERT(k == n);
    for (size_t i = 0; i < n; i = k) {
        for (k = i + 1; k < n && combining_class(points[k]); k++)
            ;
        size_t first = i + (combining_class(points[i]) == 0);
        order_marks(points + first, points + n, k - first);
    }
    utf8proc_ssize_t bytes = utf8proc_reencode(points, (utf8proc_ssize_t)n, NFC);
    if (bytes >= 0)
        mfi_buf_append(out, points, (size_t)bytes);
    free(points);
    if (bytes < 0)
        return mfi_fail(err, MF_ERR_LIMIT, "normalising text: %s", utf8proc_errmsg(bytes));
    return MF_OK;
}

mf_status mfi_normalizer_run(const mfi_normalizer *normalizer, const char *text, size_t len,
                             mfi_buf *scratch, const char **out, size_t *out_len, mf_error *err)
{
    const char *p = text, *end = text + len, *stretch_end;
    *out = text;
    *out_len = len;
    if (!normalizer->nfc || !find_stretch(&p, end, &stretch_end))
        return MF_OK;
    const char *done = text;
    scratch->len = 0;
    do {
        mfi_buf_append(scratch, done, (size_t)(p - done));
        MFI_TRY(put_nfc(p, (size_t)(stretch_end - p), scratch, err));
        p = done = stretch_end;
    } while (find_stretch(&p, end, &stretch_end));
    mfi_buf_append(scratch, done, (size_t)(end - done));
    if (scratch->failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "normalising text: out of memory");
    *out = scratch->data;
    *out_len = scratch->len;
    return MF_OK;
}
