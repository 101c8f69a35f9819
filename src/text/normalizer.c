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

static mf_status put_nfc(const char *text, size_t len, mfi_buf *out, mf_error *err)
{
    utf8proc_uint8_t *nfc = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &nfc,
                                      UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (n < 0)
        return mfi_fail(err, n == UTF8PROC_ERROR_NOMEM ? MF_ERR_NO_MEMORY : MF_ERR_LIMIT,
                        "normalising text: %s", utf8proc_errmsg(n));
    mfi_buf_append(out, nfc, (size_t)n);
    free(nfc);
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
