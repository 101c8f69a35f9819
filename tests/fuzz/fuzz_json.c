/* Any bytes: what the scanner lets through must parse, read the same by tree and by cursor, and be
 * whole; what it refuses must have a message. */
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void same(const mfi_json *v, mfi_json_span span)
{
    mfi_json_type type = mfi_json_span_type(span);
    check(span.len > 0);
    if (type == MFI_JSON_OBJECT) {
        mfi_json_iter it = mfi_json_span_iter(span);
        mfi_json_span k, value;
        size_t i = 0;
        while (mfi_json_object_next(&it, &k, &value)) {
            const char *key;
            const mfi_json *child = mfi_json_member(v, i++, &key);
            check(mfi_json_span_is(k, key));
            same(child, value);
        }
        check(i == mfi_json_len(v));
    } else if (type == MFI_JSON_ARRAY) {
        mfi_json_iter it = mfi_json_span_iter(span);
        mfi_json_span value;
        size_t i = 0;
        while (mfi_json_array_next(&it, &value))
            same(mfi_json_at(v, i++), value);
        check(i == mfi_json_len(v));
    } else if (type == MFI_JSON_STRING) {
        size_t len;
        const char *s = mfi_json_str(v, &len);
        mfi_buf buf = {0};
        check(s && mfi_json_span_str(span, &buf) && buf.len == len);
        check(len == 0 || memcmp(buf.data, s, len) == 0);
        /* written and read again it is the same string */
        mfi_buf out = {0};
        mfi_json_put_str(&out, s, len);
        check(mfi_json_scan(out.data, out.len, "again", NULL) == MF_OK);
        buf.len = 0;
        check(mfi_json_span_str(mfi_json_root(out.data, out.len), &buf) && buf.len == len);
        check(len == 0 || memcmp(buf.data, s, len) == 0);
        mfi_buf_free(&out);
        mfi_buf_free(&buf);
    } else if (type == MFI_JSON_INT) {
        int64_t a, b;
        if (mfi_json_typeof(v) == MFI_JSON_INT && mfi_json_i64(v, &a))
            check(mfi_json_span_i64(span, &b) && a == b);
    } else if (type == MFI_JSON_FLOAT) {
        double f;
        check(mfi_json_f64(v, &f) && f - f == 0); /* finite */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    mf_error err = {0};
    mfi_json *root = NULL;
    mf_status status = mfi_json_parse(text, size, "fuzz", &root, &err);
    if (status == MF_OK) {
        same(root, mfi_json_root(text, size));
        mfi_json_free(&root);
    } else {
        check(status == MF_ERR_FORMAT && err.message[0] && !root);
    }
    return 0;
}
