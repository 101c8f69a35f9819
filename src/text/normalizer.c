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

/* True if the text is certainly NFC. The blocks listed have no combining class, no decomposition
 * but Hangul's, and no character that composes with one in front of it. */
static bool surely_nfc(const char *text, size_t len)
{
    const char *p = text, *end = text + len;
    while (p < end) {
        if ((unsigned char)*p < 0xcc) { /* up to U+02FF, or inside such a character */
            p++;
            continue;
        }
        uint32_t cp;
        p += mfi_utf8_decode(p, end, &cp);
        bool safe = (cp >= 0x0400 && cp <= 0x0482) || (cp >= 0x2010 && cp <= 0x2027) ||
                    (cp >= 0x3001 && cp <= 0x3029) || (cp >= 0x3041 && cp <= 0x3096) ||
                    (cp >= 0x30a0 && cp <= 0x30ff) || (cp >= 0x3400 && cp <= 0x9fff) ||
                    (cp >= 0xac00 && cp <= 0xd7a3) || (cp >= 0xff01 && cp <= 0xff60);
        if (!safe)
            return false;
    }
    return true;
}

mf_status mfi_normalizer_run(const mfi_normalizer *normalizer, const char *text, size_t len,
                             mfi_buf *scratch, const char **out, size_t *out_len, mf_error *err)
{
    *out = text;
    *out_len = len;
    if (!normalizer->nfc || surely_nfc(text, len))
        return MF_OK;
    utf8proc_uint8_t *nfc = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)len, &nfc,
                                      UTF8PROC_COMPOSE | UTF8PROC_STABLE);
    if (n < 0)
        return mfi_fail(err, n == UTF8PROC_ERROR_NOMEM ? MF_ERR_NO_MEMORY : MF_ERR_LIMIT,
                        "normalising text: %s", utf8proc_errmsg(n));
    mfi_buf_free(scratch);
    *scratch = (mfi_buf){.data = (char *)nfc, .len = (size_t)n, .cap = (size_t)n + 1};
    *out = scratch->data;
    *out_len = scratch->len;
    return MF_OK;
}
