/* Any bytes through a small tokenizer without normaliser: what is encoded decodes to itself, and
 * what is not UTF-8 is refused. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put_alphabet(mfi_buf *json)
{
    for (unsigned b = 0; b < 256; b++) {
        uint32_t cp = b <= 0x20 ? 0x100 + b : b >= 0x7f && b <= 0xa0 ? 0x121 + b - 0x7f : b;
        char utf8[4];
        if (b == 0xad)
            cp = 0x143;
        mfi_buf_str(json, cp == '"' || cp == '\\' ? "\"\\" : "\"");
        mfi_buf_append(json, utf8, mfi_utf8_encode(cp, utf8));
        mfi_buf_fmt(json, "\":%u,", b);
    }
}

static mf_tokenizer *make(void)
{
    mfi_buf json = {0};
    mf_error err;
    mf_tokenizer *t = calloc(1, sizeof *t);
    mfi_buf_str(&json, "{\"added_tokens\":[{\"id\":300,\"content\":\"<a>\",\"special\":true},"
                       "{\"id\":301,\"content\":\"<a><b>\",\"normalized\":true},"
                       "{\"id\":302,\"content\":\"wa\",\"single_word\":true}],"
                       "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":"
                       "\"Digits\"},{\"type\":\"ByteLevel\",\"add_prefix_space\":false}]},"
                       "\"decoder\":{\"type\":\"ByteLevel\"},"
                       "\"model\":{\"type\":\"BPE\",\"vocab\":{");
    put_alphabet(&json);
    mfi_buf_str(&json,
                "\"aa\":256,\"aaaa\":257,\"ab\":258,\"\\u0120a\":259,\"aab\":260,\"ba\":261},"
                "\"merges\":[\"a a\",\"a b\",\"aa aa\",\"\\u0120 a\",\"aa b\",\"b a\"]}}");
    if (!t || mfi_tokenizer_read(t, json.data, json.len, "built in", &err) != MF_OK)
        abort();
    mfi_buf_free(&json);
    return t;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mf_tokenizer *t;
    if (!t)
        t = make();
    int32_t *ids;
    size_t n;
    mf_error err;
    const char *text = (const char *)data;
    mf_status status = mf_tokenizer_encode(t, text, size, false, &ids, &n, &err);
    bool valid = mfi_utf8_check(text, size) == size;
    if (status != (valid ? MF_OK : MF_ERR_ARGUMENT))
        abort();
    if (!valid)
        return 0;
    mfi_buf back = {0};
    for (size_t i = 0; i < n; i++) {
        size_t len;
        const char *piece = mf_tokenizer_piece(t, ids[i], true, &len);
        mfi_buf_append(&back, piece, len);
    }
    if (back.len != size || (size && memcmp(back.data, text, size) != 0))
        abort();
    mfi_buf_free(&back);
    mf_free(ids);
    return 0;
}
