/* JSON: what the scanner accepts and refuses, and that tree and cursor read the same from it. */
#include "fake/support.h"

#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "base/limits.h"

#define LIT(s) s, sizeof(s) - 1

typedef struct text_case {
    const char *text;
    size_t len;
} text_case;

static const text_case accepted[] = {
    {LIT("{}")},
    {LIT("[]")},
    {LIT(" [ ] ")},
    {LIT("\t\r\n{ }\t\r\n")},
    {LIT("null")},
    {LIT("true")},
    {LIT("false")},
    {LIT("0")},
    {LIT("-0")},
    {LIT("-0.0")},
    {LIT("7")},
    {LIT("123456789012")},
    {LIT("\"\"")},
    {LIT("\"x\"")},
    {LIT("[1,2,3]")},
    {LIT("[1 , 2\n,3]")},
    {LIT("[[],[[]],{}]")},
    {LIT("{\"a\":1}")},
    {LIT("{\"a\" : 1 , \"b\" : [ ] }")},
    {LIT("{\"a\":{\"a\":{\"a\":1}}}")},
    {LIT("[{\"a\":1},{\"a\":2}]")},
    {LIT("{\"\":0}")},
    {LIT("{\"a\":1,\"A\":2,\"aa\":3}")},
    {LIT("{\"a\\n\":1,\"an\":2}")},
    {LIT("9223372036854775807")},
    {LIT("-9223372036854775808")},
    {LIT("18446744073709551615")},
    {LIT("1.5")},
    {LIT("1e5")},
    {LIT("1E+5")},
    {LIT("1e-5")},
    {LIT("0e0")},
    {LIT("0.1e1")},
    {LIT("1e308")},
    {LIT("1.7976931348623157e308")},
    {LIT("-1.7976931348623157e+308")},
    {LIT("17976931348623157.00e292")},
    {LIT("0.00017976931348623157e312")},
    {LIT("1e-400")},
    {LIT("0e999999999999999999999999")},
    {LIT("0.0e400")},
    {LIT("123456789012345678901234567890.0")},
    {LIT("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"")},
    {LIT("\"\\u0041\\u00e9\\u20AC\"")},
    {LIT("\"\\ud83d\\ude00\"")},
    {LIT("\"\\u0000\"")},
    {LIT("\"\x7f\"")},
    {LIT("\"\xc3\xa9\"")},
    {LIT("\"\xe2\x82\xac\"")},
    {LIT("\"\xef\xbf\xbf\"")},
    {LIT("\"\xed\x9f\xbf\"")},
    {LIT("\"\xf0\x9f\x98\x80\"")},
    {LIT("\"\xf4\x8f\xbf\xbf\"")},
    {LIT("{\"\xc3\xa9\":1}")},
};

static const text_case refused[] = {
    {LIT("")},
    {LIT(" ")},
    {LIT("\xef\xbb\xbf{}")}, /* byte order mark */
    {LIT("\0")},
    {LIT("{}\0")},
    {LIT("nul")},
    {LIT("nulll")},
    {LIT("True")},
    {LIT("NaN")},
    {LIT("[NaN]")},
    {LIT("Infinity")},
    {LIT("-Infinity")},
    {LIT("[inf]")},
    {LIT("+1")},
    {LIT("01")},
    {LIT("-01")},
    {LIT("00")},
    {LIT("1.")},
    {LIT(".5")},
    {LIT("-")},
    {LIT("-.5")},
    {LIT("1e")},
    {LIT("1e+")},
    {LIT("1.e5")},
    {LIT("1.5.5")},
    {LIT("0x10")},
    {LIT("1 2")},
    {LIT("1,")},
    {LIT("18446744073709551616")},
    {LIT("-9223372036854775809")},
    {LIT("99999999999999999999999999")},
    {LIT("1e309")},
    {LIT("-1e309")},
    {LIT("1e999999999999999999999")},
    {LIT("1.7976931348623159e308")},
    {LIT("179769313486231590.0e291")},
    {LIT("0.001e312")},
    {LIT("\"")},
    {LIT("\"abc")},
    {LIT("\"\\\"")},
    {LIT("\"\\")},
    {LIT("\"\\x41\"")},
    {LIT("\"\\'\"")},
    {LIT("\"\\\0\"")},
    {LIT("'a'")},
    {LIT("\"\\u\"")},
    {LIT("\"\\u12\"")},
    {LIT("\"\\u123")},
    {LIT("\"\\u12g4\"")},
    {LIT("\"\\ud800\"")},
    {LIT("\"\\udc00\"")},
    {LIT("\"\\ud800\\u0041\"")},
    {LIT("\"\\ud800\\ud800\"")},
    {LIT("\"\\ud83dx\\ude00\"")},
    {LIT("\"\\ude00\\ud83d\"")},
    {LIT("\"\n\"")},
    {LIT("\"\t\"")},
    {LIT("\"a\0b\"")},
    {LIT("\"\x1f\"")},
    {LIT("\"\x80\"")},
    {LIT("\"\xbf\"")},
    {LIT("\"\xc0\x80\"")},
    {LIT("\"\xc1\xbf\"")},
    {LIT("\"\xc3\"")},
    {LIT("\"\xc3(\"")},
    {LIT("\"\xe0\x80\x80\"")},
    {LIT("\"\xe2\x82\"")},
    {LIT("\"\xed\xa0\x80\"")},
    {LIT("\"\xf0\x80\x80\x80\"")},
    {LIT("\"\xf0\x9f\x98\"")},
    {LIT("\"\xf4\x90\x80\x80\"")},
    {LIT("\"\xf5\x80\x80\x80\"")},
    {LIT("\"\xff\"")},
    {LIT("\"\xc3")},
    {LIT("[")},
    {LIT("]")},
    {LIT("[1")},
    {LIT("[1,")},
    {LIT("[1,]")},
    {LIT("[,1]")},
    {LIT("[1,,2]")},
    {LIT("[1 2]")},
    {LIT("[1}")},
    {LIT("[1:2]")},
    {LIT("{")},
    {LIT("}")},
    {LIT("{\"a\"")},
    {LIT("{\"a\":")},
    {LIT("{\"a\":1")},
    {LIT("{\"a\":1,")},
    {LIT("{\"a\":1,}")},
    {LIT("{,\"a\":1}")},
    {LIT("{\"a\" 1}")},
    {LIT("{\"a\":}")},
    {LIT("{\"a\":1]")},
    {LIT("{a:1}")},
    {LIT("{1:1}")},
    {LIT("{\"a\":1 \"b\":2}")},
    {LIT("{\"a\":1}}")},
    {LIT("{} {}")},
    {LIT("[]x")},
    {LIT("/* c */ 1")},
    {LIT("[1] // c")},
    {LIT("\v[]")},
    {LIT("{\"a\":1,\"a\":2}")},
    {LIT("{\"a\":1,\"b\":2,\"a\":1}")},
    {LIT("{\"a\":1,\"\\u0061\":2}")},
    {LIT("{\"\\u00e9\":1,\"\xc3\xa9\":2}")},
    {LIT("{\"\\ud83d\\ude00\":1,\"\xf0\x9f\x98\x80\":2}")},
    {LIT("{\"\":1,\"\":2}")},
    {LIT("{\"a\":{\"b\":1,\"b\":2}}")},
    {LIT("{\"a\":{\"b\":1,\"c\":2},\"a\":0}")},
    {LIT("[{\"a\":1,\"a\":2}]")},
    {LIT("{\"a\\u0000\":1}")},
};

/* Each text at the end of its own allocation, so that a sanitizer sees a read beyond it. */
static char *exact_copy(const char *text, size_t len)
{
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    if (len)
        memcpy(copy, text, len);
    return copy;
}

static void accepts(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(accepted); i++) {
        const text_case *t = &accepted[i];
        char *text = exact_copy(t->text, t->len);
        mf_error err = {0};
        if (mfi_json_scan(text, t->len, "t", &err) != MF_OK)
            fail_msg("refused %s: %s", t->text, err.message);
        mfi_json *root;
        if (mfi_json_parse(text, t->len, "t", &root, &err) != MF_OK)
            fail_msg("not parsed %s: %s", t->text, err.message);
        mfi_json_type span_type = mfi_json_span_type(mfi_json_root(text, t->len));
        if (strcmp(t->text, "-0") != 0) /* json-c makes it a float to keep its sign */
            assert_int_equal(span_type, mfi_json_typeof(root));
        mfi_json_free(&root);
        assert_null(root);
        free(text);
    }
}

static void refuses(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(refused); i++) {
        const text_case *t = &refused[i];
        char *text = exact_copy(t->text, t->len);
        mf_error err = {0};
        if (mfi_json_scan(text, t->len, "a/b.json", &err) != MF_ERR_FORMAT)
            fail_msg("accepted case %zu: %s", i, t->text);
        if (strncmp(err.message, "a/b.json: offset ", 17) != 0)
            fail_msg("message: %s", err.message);
        mfi_json *root = (mfi_json *)&err;
        assert_int_equal(mfi_json_parse(text, t->len, "t", &root, NULL), MF_ERR_FORMAT);
        assert_null(root);
        free(text);
    }
}

static void names_the_offset(void **state)
{
    (void)state;
    mf_error err;
    assert_int_equal(mfi_json_scan(LIT("{\"ab\": 1,\n \"ab\": 2}"), "f", &err), MF_ERR_FORMAT);
    assert_string_equal(err.message, "f: offset 11: duplicate key \"ab\"");
    assert_int_equal(mfi_json_scan(LIT("[1, 01]"), "f", &err), MF_ERR_FORMAT);
    assert_string_equal(err.message, "f: offset 4: number with a leading zero");
}

static char *nested(size_t depth, char open, char close, size_t *len)
{
    char *text = malloc(2 * depth);
    assert_non_null(text);
    memset(text, open, depth);
    memset(text + depth, close, depth);
    *len = 2 * depth;
    return text;
}

static void depth_is_bounded(void **state)
{
    (void)state;
    size_t len;
    mf_error err;
    char *text = nested(MFI_MAX_JSON_DEPTH, '[', ']', &len);
    mfi_json *root;
    mft_ok(mfi_json_parse(text, len, "t", &root, &err), &err);
    mfi_json_free(&root);
    free(text);
    text = nested(MFI_MAX_JSON_DEPTH + 1, '[', ']', &len);
    assert_int_equal(mfi_json_scan(text, len, "t", &err), MF_ERR_FORMAT);
    free(text);
    text = nested(10000000, '[', ']', &len);
    assert_int_equal(mfi_json_scan(text, len, "t", &err), MF_ERR_FORMAT);
    free(text);
    /* objects at the bound */
    mfi_buf buf = {0};
    for (int i = 0; i < MFI_MAX_JSON_DEPTH; i++)
        mfi_buf_str(&buf, "{\"k\":");
    mfi_buf_str(&buf, "1");
    for (int i = 0; i < MFI_MAX_JSON_DEPTH; i++)
        mfi_buf_str(&buf, "}");
    mft_ok(mfi_json_parse(buf.data, buf.len, "t", &root, &err), &err);
    mfi_json_free(&root);
    mfi_buf_free(&buf);
}

/* Keys of open and closed objects of many sizes; the set is checked by planting one duplicate. */
static void many_keys_in_linear_time(void **state)
{
    (void)state;
    mfi_buf buf = {0};
    const int n = 200000;
    mfi_buf_str(&buf, "{");
    for (int i = 0; i < n; i++)
        mfi_buf_fmt(&buf, "%s\"layers.%d.w\":{\"a\":0,\"b\":{\"a\":1}}", i ? "," : "", i);
    size_t len = buf.len;
    mfi_buf_str(&buf, "}");
    mf_error err;
    clock_t begin = clock();
    mft_ok(mfi_json_scan(buf.data, buf.len, "t", &err), &err);
    double s = (double)(clock() - begin) / CLOCKS_PER_SEC;
    if (s > 5) /* about 0.1 s; a quadratic scan takes minutes */
        fail_msg("%.1f s for %d keys", s, n);
    buf.len = len;
    mfi_buf_str(&buf, ",\"layers.77777.w\":0}");
    assert_int_equal(mfi_json_scan(buf.data, buf.len, "t", &err), MF_ERR_FORMAT);
    assert_non_null(strstr(err.message, "duplicate key \"layers.77777.w\""));
    mfi_buf_free(&buf);
}

static void tree_reads(void **state)
{
    (void)state;
    static const char text[] =
        "{\"z\":1,\"a\":-2.5,\"s\":\"h\\u00e9\\u0000x\",\"n\":null,\"b\":true,"
        "\"big\":18446744073709551615,\"min\":-9223372036854775808,\"max\":9223372036854775807,"
        "\"list\":[1,\"two\",[3]],\"o\":{\"k\":\"v\"},\"whole\":1.0}";
    mfi_json *root;
    mf_error err;
    mft_ok(mfi_json_parse(LIT(text), "t", &root, &err), &err);
    int64_t i = 0;
    double f = 0;
    bool b = false;
    assert_true(mfi_json_i64(mfi_json_get(root, "z"), &i));
    assert_int_equal(i, 1);
    assert_false(mfi_json_i64(mfi_json_get(root, "a"), &i));
    assert_true(mfi_json_f64(mfi_json_get(root, "a"), &f));
    assert_true(f == -2.5);
    assert_false(mfi_json_i64(mfi_json_get(root, "whole"), &i));
    size_t len = 0;
    const char *s = mfi_json_str(mfi_json_get(root, "s"), &len);
    assert_int_equal(len, 5);
    assert_memory_equal(s, "h\xc3\xa9\0x", 6);
    assert_null(mfi_json_str(mfi_json_get(root, "z"), &len));
    assert_true(mfi_json_has(root, "n"));
    assert_null(mfi_json_get(root, "n"));
    assert_false(mfi_json_has(root, "nope"));
    assert_true(mfi_json_bool(mfi_json_get(root, "b"), &b) && b);
    assert_false(mfi_json_i64(mfi_json_get(root, "big"), &i));
    assert_true(mfi_json_f64(mfi_json_get(root, "big"), &f));
    assert_true(f == 18446744073709551616.0);
    assert_true(mfi_json_i64(mfi_json_get(root, "min"), &i) && i == INT64_MIN);
    assert_true(mfi_json_i64(mfi_json_get(root, "max"), &i) && i == INT64_MAX);
    const mfi_json *list = mfi_json_get(root, "list");
    assert_int_equal(mfi_json_len(list), 3);
    assert_string_equal(mfi_json_str(mfi_json_at(list, 1), NULL), "two");
    assert_null(mfi_json_at(list, 3));
    assert_null(mfi_json_at(root, 0));
    assert_string_equal(mfi_json_str(mfi_json_get(mfi_json_get(root, "o"), "k"), NULL), "v");
    assert_null(mfi_json_get(mfi_json_get(mfi_json_get(root, "x"), "y"), "z"));
    static const char *const order[] = {"z",   "a",   "s",    "n", "b",    "big",
                                        "min", "max", "list", "o", "whole"};
    assert_int_equal(mfi_json_len(root), MFI_ARRAY_LEN(order));
    for (size_t m = MFI_ARRAY_LEN(order); m-- > 0;) { /* backwards: any order is as good */
        const char *key;
        const mfi_json *v = mfi_json_member(root, m, &key);
        assert_string_equal(key, order[m]);
        assert_ptr_equal(v, mfi_json_get(root, order[m]));
    }
    assert_null(mfi_json_member(root, MFI_ARRAY_LEN(order), NULL));
    mfi_json_free(&root);
}

/* Every pair of surrogates, escaped, as a key and as a value. */
static void tree_decodes_pairs(void **state)
{
    (void)state;
    mfi_buf text = {0};
    for (uint32_t cp = 0x10000; cp < 0x110000; cp += 61) {
        char utf8[5] = {(char)(0xf0 | cp >> 18), (char)(0x80 | (cp >> 12 & 0x3f)),
                        (char)(0x80 | (cp >> 6 & 0x3f)), (char)(0x80 | (cp & 0x3f)), 0};
        uint32_t high = 0xd800 + ((cp - 0x10000) >> 10), low = 0xdc00 + (cp & 0x3ff);
        text.len = 0;
        mfi_buf_fmt(&text, "[\"\\\\\\u%04x\\u%04X-\\n\",{\"\\u%04X\\u%04x\":\"\\u00e9\"}]", high,
                    low, high, low);
        mfi_json *root;
        mf_error err;
        mft_ok(mfi_json_parse(text.data, text.len, "t", &root, &err), &err);
        char want[16];
        snprintf(want, sizeof want, "\\%s-\n", utf8);
        assert_string_equal(mfi_json_str(mfi_json_at(root, 0), NULL), want);
        assert_string_equal(mfi_json_str(mfi_json_get(mfi_json_at(root, 1), utf8), NULL),
                            "\xc3\xa9");
        mfi_json_free(&root);
    }
    mfi_buf_free(&text);
}

/* NULL is JSON null everywhere. */
static void null_chains(void **state)
{
    (void)state;
    int64_t i;
    double f;
    bool b;
    const char *key;
    assert_int_equal(mfi_json_typeof(NULL), MFI_JSON_NULL);
    assert_null(mfi_json_get(NULL, "x"));
    assert_false(mfi_json_has(NULL, "x"));
    assert_int_equal(mfi_json_len(NULL), 0);
    assert_null(mfi_json_at(NULL, 0));
    assert_null(mfi_json_member(NULL, 0, &key));
    assert_null(mfi_json_str(NULL, NULL));
    assert_false(mfi_json_i64(NULL, &i) || mfi_json_f64(NULL, &f) || mfi_json_bool(NULL, &b));
    mfi_json *none = NULL;
    mfi_json_free(&none);
}

/* A tree and a cursor over the same text hold the same. */
static void same(const mfi_json *v, mfi_json_span span)
{
    mfi_json_type type = mfi_json_span_type(span);
    assert_int_equal(type, mfi_json_typeof(v));
    if (type == MFI_JSON_OBJECT) {
        mfi_json_iter it = mfi_json_span_iter(span);
        mfi_json_span k, value;
        size_t i = 0;
        while (mfi_json_object_next(&it, &k, &value)) {
            const char *key;
            const mfi_json *child = mfi_json_member(v, i++, &key);
            assert_true(mfi_json_span_is(k, key));
            same(child, value);
            assert_ptr_equal(mfi_json_span_get(span, key).text, value.text);
        }
        assert_int_equal(i, mfi_json_len(v));
    } else if (type == MFI_JSON_ARRAY) {
        mfi_json_iter it = mfi_json_span_iter(span);
        mfi_json_span value;
        size_t i = 0;
        while (mfi_json_array_next(&it, &value))
            same(mfi_json_at(v, i++), value);
        assert_int_equal(i, mfi_json_len(v));
    } else if (type == MFI_JSON_STRING) {
        size_t len;
        const char *s = mfi_json_str(v, &len);
        mfi_buf buf = {0};
        assert_true(mfi_json_span_str(span, &buf));
        assert_int_equal(buf.len, len);
        assert_memory_equal(buf.len ? buf.data : "", s, len);
        mfi_buf_free(&buf);
    } else if (type == MFI_JSON_INT) {
        int64_t a = 0, b = 0;
        assert_int_equal(mfi_json_i64(v, &a), mfi_json_span_i64(span, &b));
        assert_true(a == b);
    }
}

static void cursor_reads(void **state)
{
    (void)state;
    static const char text[] =
        " { \"a\" : [ ] , \"b\":[1,-2 , 18446744073709551615,-9223372036854775808,2.5,1e3] ,"
        "\"q\\\"]}\":\"}]\\\\\",\"\\u00e9\":{\"dtype\":\"BF16\",\"x\":{} },\"t\":true , \"n\":null,"
        "\"e\":\"\\ud83d\\ude00\\b\\f\\n\\r\\t\\/\\\\\\\"\\u20ac\",\"deep\":[[[{\"k\":[0]}]]]} ";
    mf_error err;
    mfi_json *root;
    mft_ok(mfi_json_parse(LIT(text), "t", &root, &err), &err);
    mfi_json_span span = mfi_json_root(LIT(text));
    assert_int_equal(span.text[span.len - 1], '}');
    same(root, span);
    mfi_json_free(&root);
    assert_null(mfi_json_span_get(span, "absent").text);
    assert_null(mfi_json_span_get(mfi_json_span_get(span, "b"), "a").text);
    mfi_json_span e = mfi_json_span_get(span, "\xc3\xa9");
    assert_true(mfi_json_span_is(mfi_json_span_get(e, "dtype"), "BF16"));
    assert_false(mfi_json_span_is(mfi_json_span_get(e, "dtype"), "BF1"));
    assert_false(mfi_json_span_is(mfi_json_span_get(e, "dtype"), "BF160"));
    assert_false(mfi_json_span_is(e, "x"));
    int64_t i;
    assert_false(mfi_json_span_i64(mfi_json_span_get(span, "e"), &i));
    assert_false(mfi_json_span_str(mfi_json_span_get(span, "t"), &(mfi_buf){0}));
    mft_ok(mfi_json_span_parse(e, &root, &err), &err);
    assert_string_equal(mfi_json_str(mfi_json_get(root, "dtype"), NULL), "BF16");
    mfi_json_free(&root);
}

static void parses_files(void **state)
{
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s/x.json", mft_tmpdir());
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs("{\"a\": 3}\n", f);
    fclose(f);
    mfi_json *root;
    mf_error err;
    mft_ok(mfi_json_parse_file(path, 9, &root, &err), &err);
    int64_t i;
    assert_true(mfi_json_i64(mfi_json_get(root, "a"), &i) && i == 3);
    mfi_json_free(&root);
    assert_int_equal(mfi_json_parse_file(path, 8, &root, &err), MF_ERR_LIMIT);
    assert_int_equal(mfi_json_parse_file(mft_tmpdir(), 8, &root, &err), MF_ERR_FORMAT);
    strcat(path, ".none");
    assert_int_equal(mfi_json_parse_file(path, 8, &root, &err), MF_ERR_FILE_MISSING);
    assert_non_null(strstr(err.message, "x.json.none"));
}

static void writes_strings(void **state)
{
    (void)state;
    char all[256];
    for (int i = 0; i < 128; i++)
        all[i] = (char)i;
    memcpy(all + 128, "\xc3\xa9\xf0\x9f\x98\x80", 6);
    mfi_buf buf = {0};
    mfi_json_put_str(&buf, all, 134);
    mfi_json *root;
    mf_error err;
    mft_ok(mfi_json_parse(buf.data, buf.len, "t", &root, &err), &err);
    size_t len;
    const char *s = mfi_json_str(root, &len);
    assert_int_equal(len, 134);
    assert_memory_equal(s, all, 134);
    mfi_json_free(&root);
    buf.len = 0;
    mfi_json_put_str(&buf, LIT("a\"\\\n\x01"));
    assert_string_equal(buf.data, "\"a\\\"\\\\\\n\\u0001\"");
    mfi_buf_free(&buf);
}

static void writes_numbers(void **state)
{
    (void)state;
    static const struct {
        double v;
        const char *text;
    } cases[] = {
        {0, "0"},
        {1, "1"},
        {-1.5, "-1.5"},
        {0.1, "0.1"},
        {100000, "100000"},
        {0.3, "0.3"},
        {0.1 + 0.2, "0.30000000000000004"},
        {5e-324, "5e-324"},
        {INFINITY, "null"},
        {NAN, "null"},
        {1.7976931348623157e308, "1.7976931348623157e+308"},
    };
    const char *locale = setlocale(LC_ALL, "de_DE.UTF-8"); /* where installed: a decimal comma */
    (void)locale;
    mfi_buf buf = {0};
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        buf.len = 0;
        mfi_json_put_f64(&buf, cases[i].v);
        assert_string_equal(buf.data, cases[i].text);
    }
    uint64_t seed = 42, bits = seed;
    for (int i = 0; i < 20000; i++) {
        bits = bits * 6364136223846793005u + 1442695040888963407u;
        uint64_t mixed = bits ^ bits >> 29;
        double v, back = 0;
        memcpy(&v, &mixed, sizeof v);
        if (!isfinite(v))
            continue;
        buf.len = 0;
        mfi_json_put_f64(&buf, v);
        mfi_json *root;
        mf_error err;
        mft_ok(mfi_json_parse(buf.data, buf.len, "t", &root, &err), &err);
        if (!mfi_json_f64(root, &back) || back != v)
            fail_msg("seed %d, step %d: %s", (int)seed, i, buf.data);
        mfi_json_free(&root);
    }
    mfi_buf_free(&buf);
    setlocale(LC_ALL, "C");
}

/* As tokenizer configurations have it: taken where asked for, and never for an integer that fits.
 */
static void integers_of_any_size(void **state)
{
    (void)state;
    static const char text[] =
        "{\"max\":1000000000000000019884624838656,\"low\":-99999999999999999999,"
        "\"edge\":-9223372036854775808,\"over\":9223372036854775808,\"n\":7}";
    mf_error err = {0};
    int64_t n = 0;
    assert_int_equal(mfi_json_scan(text, sizeof text - 1, "x", &err), MF_ERR_FORMAT);
    mft_ok(mfi_json_scan_any_int(text, sizeof text - 1, "x", &err), &err);
    mfi_json_span root = mfi_json_root(text, sizeof text - 1);
    assert_false(mfi_json_span_i64(mfi_json_span_get(root, "max"), &n));
    assert_false(mfi_json_span_i64(mfi_json_span_get(root, "low"), &n));
    assert_false(mfi_json_span_i64(mfi_json_span_get(root, "over"), &n));
    assert_true(mfi_json_span_i64(mfi_json_span_get(root, "edge"), &n) && n == INT64_MIN);
    assert_true(mfi_json_span_i64(mfi_json_span_get(root, "n"), &n) && n == 7);
    assert_int_equal(mfi_json_scan_any_int("01", 2, "x", &err), MF_ERR_FORMAT);
    assert_int_equal(mfi_json_scan_any_int("1e999", 5, "x", &err), MF_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(accepts),
        cmocka_unit_test(refuses),
        cmocka_unit_test(names_the_offset),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(many_keys_in_linear_time),
        cmocka_unit_test(tree_reads),
        cmocka_unit_test(tree_decodes_pairs),
        cmocka_unit_test(null_chains),
        cmocka_unit_test(cursor_reads),
        cmocka_unit_test(parses_files),
        cmocka_unit_test(writes_strings),
        cmocka_unit_test(writes_numbers),
        cmocka_unit_test(integers_of_any_size),
    };
    return mft_run(tests);
}
