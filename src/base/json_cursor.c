/* The JSON cursor: walks text that mfi_json_scan let through, without building anything. Used at
 * open for headers of many megabytes, on any thread. It trusts the text: on text that was not
 * scanned its answers mean nothing. */
#include "base/json.h"
#include "base/json_text.h"

static const char *skip_space(const char *p, const char *end)
{
    while (p < end && (*p == ' ' || *p == '\n' || *p == '\t' || *p == '\r'))
        p++;
    return p;
}

/* p at the opening quote; returns what follows the closing one. */
static const char *skip_string(const char *p, const char *end)
{
    for (p++; p < end && *p != '"'; p++) {
        if (*p == '\\')
            p++;
    }
    return p < end ? p + 1 : end;
}

static const char *skip_value(const char *p, const char *end)
{
    if (p < end && *p == '"')
        return skip_string(p, end);
    if (p < end && (*p == '{' || *p == '[')) {
        size_t depth = 0;
        while (p < end) {
            if (*p == '"') {
                p = skip_string(p, end);
                continue;
            }
            if (*p == '{' || *p == '[')
                depth++;
            else if ((*p == '}' || *p == ']') && --depth == 0)
                return p + 1;
            p++;
        }
        return end;
    }
    while (p < end && !strchr(",]} \n\t\r", *p))
        p++;
    return p;
}

mfi_json_span mfi_json_root(const char *text, size_t len)
{
    const char *p = skip_space(text, text + len);
    return (mfi_json_span){p, (size_t)(skip_value(p, text + len) - p)};
}

mfi_json_type mfi_json_span_type(mfi_json_span v)
{
    if (v.len == 0)
        return MFI_JSON_NULL;
    switch (v.text[0]) {
    case '{':
        return MFI_JSON_OBJECT;
    case '[':
        return MFI_JSON_ARRAY;
    case '"':
        return MFI_JSON_STRING;
    case 't':
    case 'f':
        return MFI_JSON_BOOL;
    case 'n':
        return MFI_JSON_NULL;
    }
    for (size_t i = 0; i < v.len; i++) {
        if (v.text[i] == '.' || v.text[i] == 'e' || v.text[i] == 'E')
            return MFI_JSON_FLOAT;
    }
    return MFI_JSON_INT;
}

mfi_json_iter mfi_json_span_iter(mfi_json_span v)
{
    MFI_ASSERT(v.len >= 2 && (v.text[0] == '{' || v.text[0] == '['));
    const char *end = v.text + v.len - 1; /* without the bracket */
    return (mfi_json_iter){skip_space(v.text + 1, end), end};
}

bool mfi_json_array_next(mfi_json_iter *it, mfi_json_span *value)
{
    const char *p = it->p;
    if (p >= it->end)
        return false;
    const char *after = skip_value(p, it->end);
    *value = (mfi_json_span){p, (size_t)(after - p)};
    after = skip_space(after, it->end);
    if (after < it->end) /* a comma */
        after = skip_space(after + 1, it->end);
    it->p = after;
    return true;
}

bool mfi_json_object_next(mfi_json_iter *it, mfi_json_span *key, mfi_json_span *value)
{
    const char *p = it->p;
    if (p >= it->end)
        return false;
    const char *after = skip_string(p, it->end);
    *key = (mfi_json_span){p, (size_t)(after - p)};
    after = skip_space(after, it->end);
    if (after < it->end) /* the colon */
        after = skip_space(after + 1, it->end);
    it->p = after;
    return mfi_json_array_next(it, value);
}

bool mfi_json_span_is(mfi_json_span v, const char *str)
{
    if (v.len < 2 || v.text[0] != '"')
        return false;
    size_t len = strlen(str), at = 0;
    const char *p = v.text + 1, *end = v.text + v.len - 1;
    while (p < end) {
        char out[4];
        size_t n = mfi_json_unescape(&p, out);
        if (n > len - at || memcmp(str + at, out, n) != 0)
            return false;
        at += n;
    }
    return at == len;
}

mfi_json_span mfi_json_span_get(mfi_json_span object, const char *key)
{
    if (mfi_json_span_type(object) == MFI_JSON_OBJECT) {
        mfi_json_iter it = mfi_json_span_iter(object);
        mfi_json_span k, value;
        while (mfi_json_object_next(&it, &k, &value)) {
            if (mfi_json_span_is(k, key))
                return value;
        }
    }
    return (mfi_json_span){NULL, 0};
}

bool mfi_json_span_i64(mfi_json_span v, int64_t *out)
{
    if (v.len == 0 || mfi_json_span_type(v) != MFI_JSON_INT)
        return false;
    bool negative = v.text[0] == '-';
    uint64_t n = 0;
    for (size_t i = negative; i < v.len; i++)
        if (__builtin_mul_overflow(n, (uint64_t)10, &n) ||
            __builtin_add_overflow(n, (uint64_t)(v.text[i] - '0'), &n))
            return false;
    if (n > (uint64_t)INT64_MAX + negative)
        return false;
    *out = negative ? (int64_t)(0 - n) : (int64_t)n;
    return true;
}

bool mfi_json_span_str(mfi_json_span v, mfi_buf *out)
{
    if (v.len < 2 || v.text[0] != '"')
        return false;
    const char *p = v.text + 1, *end = v.text + v.len - 1;
    while (p < end) {
        const char *plain = memchr(p, '\\', (size_t)(end - p));
        if (!plain)
            plain = end;
        mfi_buf_append(out, p, (size_t)(plain - p));
        p = plain;
        if (p < end) {
            char bytes[4];
            size_t n = mfi_json_unescape(&p, bytes);
            mfi_buf_append(out, bytes, n);
        }
    }
    return true;
}
