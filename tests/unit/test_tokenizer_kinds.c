/* Small tokenizers of many kinds against Hugging Face's (tests/data/tokenizers.jsonl), spans, and
 * that hostile text takes time in proportion to its length. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/json.h"
#include "fake/text.h"
#include "text/detok.h"
#include "text/tokenizer.h"
#include "text/tokenizer_int.h"

/* ---- against Hugging Face ---- */

static void check_ids(const mf_tokenizer *t, const char *text, size_t len, bool special,
                      const mfi_json *want, size_t line)
{
    int32_t *ids;
    size_t n;
    mf_error err;
    mft_ok(mf_tokenizer_encode(t, text, len, special, &ids, &n, &err), &err);
    if (!mft_same_ids(want, ids, n)) {
        mfi_buf got = {0};
        for (size_t i = 0; i < n; i++)
            mfi_buf_fmt(&got, " %d", ids[i]);
        fail_msg("tokenizer %zu, \"%s\":%s", line, text, got.data ? got.data : " nothing");
    }
    mf_free(ids);
}

static void check_decoded(const mf_tokenizer *t, const mfi_json *ids, const mfi_json *want,
                          size_t line)
{
    mfi_buf out = {0};
    mfi_detok detok = {0};
    uint32_t strip = mfi_tokenizer_strip(t, -1);
    for (size_t i = 0; i < mfi_json_len(ids); i++) {
        int64_t id = -1;
        size_t len;
        mfi_json_i64(mfi_json_at(ids, i), &id);
        const char *piece = mfi_tokenizer_show(t, (int32_t)id, true, &strip, &len);
        mfi_detok_push(&detok, piece, len, &out);
    }
    mfi_detok_end(&detok, &out);
    size_t len;
    const char *text = mfi_json_str(want, &len);
    if (text && (out.len != len || (len && memcmp(out.data, text, len) != 0)))
        fail_msg("tokenizer %zu: decoded to \"%s\", not \"%s\"", line, out.data ? out.data : "",
                 text);
    mfi_buf_free(&out);
}

static void as_hugging_face(void **state)
{
    (void)state;
    FILE *f = fopen(MF_SOURCE_DIR "/tests/data/tokenizers.jsonl", "rb");
    assert_non_null(f);
    char *line = NULL;
    size_t cap = 0, n_lines = 0;
    for (ssize_t len; (len = getline(&line, &cap, f)) > 0;) {
        mfi_json *root = NULL;
        mf_error err;
        n_lines++;
        mft_ok(mfi_json_parse(line, (size_t)len - (line[len - 1] == '\n'), "line", &root, &err),
               &err);
        mfi_buf json = {0};
        mfi_json_put(&json, mfi_json_get(root, "tokenizer"));
        mf_tokenizer *t = calloc(1, sizeof *t);
        mft_ok(mfi_tokenizer_read(t, json.data, json.len, "tokenizer", &err), &err);
        const mfi_json *cases = mfi_json_get(root, "cases");
        assert_true(mfi_json_len(cases) >= 30);
        for (size_t i = 0; i < mfi_json_len(cases); i++) {
            const mfi_json *c = mfi_json_at(cases, i);
            size_t text_len;
            const char *text = mfi_json_str(mfi_json_at(c, 0), &text_len);
            check_ids(t, text, text_len, false, mfi_json_at(c, 1), n_lines);
            check_ids(t, text, text_len, true, mfi_json_at(c, 2), n_lines);
            check_decoded(t, mfi_json_at(c, 1), mfi_json_at(c, 3), n_lines);
        }
        mf_tokenizer_close(&t);
        mfi_buf_free(&json);
        mfi_json_free(&root);
    }
    assert_int_equal(n_lines, 20);
    free(line);
    fclose(f);
}

/* The texts are those of Hugging Face's tokenizers 0.23.3: where text begins a token loses all of
 * its marks, but no space of its own. */
static void metaspace_shows_the_first_token(void **state)
{
    (void)state;
    static const char json[] =
        "{\"decoder\": {\"type\": \"Metaspace\", \"replacement\": \"\xe2\x96\x81\", "
        "\"prepend_scheme\": \"always\"}, \"model\": {\"type\": \"BPE\", \"vocab\": {\" \": 0, "
        "\"\xe2\x96\x81"
        "a\": 1, \"a\xe2\x96\x81"
        "b\": 2, \"\xe2\x96\x81\xe2\x96\x81\": 3, "
        "\"c\": 4}, \"merges\": []}}";
    static const struct {
        const char *ids, *text;
    } cases[] = {
        {"[0,4]", " c"},     {"[1,1]", "a a"},     {"[2,2]", "aba b"},
        {"[3,3,1]", "   a"}, {"[4,0,2]", "c a b"},
    };
    mf_tokenizer *t = calloc(1, sizeof *t);
    mf_error err;
    mft_ok(mfi_tokenizer_read(t, json, sizeof json - 1, "tokenizer", &err), &err);
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mfi_buf both = {0};
        mfi_json *root = NULL;
        mfi_buf_fmt(&both, "{\"ids\": %s, \"text\": \"%s\"}", cases[i].ids, cases[i].text);
        mft_ok(mfi_json_parse(both.data, both.len, "case", &root, &err), &err);
        check_decoded(t, mfi_json_get(root, "ids"), mfi_json_get(root, "text"), i);
        mfi_json_free(&root);
        mfi_buf_free(&both);
    }
    mf_tokenizer_close(&t);
}

/* What needs the text as a whole can't be shown token by token. */
static void decoders_of_the_whole_are_refused(void **state)
{
#define METASPACE(scheme)                                                                          \
    "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"prepend_scheme\": \"" scheme "\"}, "
#define STRIP "{\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}"
    static const struct {
        const char *decoders;
        bool ok;
    } cases[] = {
        {METASPACE("always") "{\"type\": \"Fuse\"}", true},
        {METASPACE("never") "{\"type\": \"Fuse\"}, " STRIP, true},
        {METASPACE("always") "{\"type\": \"Fuse\"}, " STRIP, false},
        {METASPACE("always") METASPACE("never") "{\"type\": \"Fuse\"}", false},
        {"{\"type\": \"Fuse\"}, " STRIP, true},
        {"{\"type\": \"Fuse\"}, " STRIP ", " STRIP, false},
    };
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mfi_buf json = {0};
        mf_error err;
        mf_tokenizer *t = calloc(1, sizeof *t);
        mfi_buf_fmt(&json,
                    "{\"decoder\": {\"type\": \"Sequence\", \"decoders\": [%s]}, "
                    "\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []}}",
                    cases[i].decoders);
        mf_status status = mfi_tokenizer_read(t, json.data, json.len, "tokenizer", &err);
        if (status != (cases[i].ok ? MF_OK : MF_ERR_UNSUPPORTED))
            fail_msg("%s: %d", cases[i].decoders, status);
        mf_tokenizer_close(&t);
        mfi_buf_free(&json);
    }
}

/* ---- spans ---- */

static void expect_spans(const mf_tokenizer *t, const mf_text_span *spans, size_t n_spans,
                         const int32_t *want, size_t n_want)
{
    int32_t *ids;
    size_t n;
    mf_error err;
    mft_ok(mf_tokenizer_encode_spans(t, spans, n_spans, false, &ids, &n, &err), &err);
    if (n != n_want || memcmp(ids, want, n * sizeof *ids) != 0) {
        mfi_buf got = {0};
        for (size_t i = 0; i < n; i++)
            mfi_buf_fmt(&got, " %d", ids[i]);
        fail_msg("%s...:%s", spans[0].text, got.data ? got.data : " nothing");
    }
    mf_free(ids);
}

#define EXPECT_SPANS(t, spans, ...)                                                                \
    expect_spans(t, spans, MFI_ARRAY_LEN(spans), (const int32_t[]){__VA_ARGS__},                   \
                 sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

static void plain_spans_hide_added_tokens(void **state)
{
    (void)state;
    mf_tokenizer *t = NULL;
    mf_error err;
    const char *json = mft_small_tokenizer(
        "\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
        "\"add_prefix_space\": false}, ",
        "{\"id\": 300, \"content\": \"<a>\", \"special\": true}, "
        "{\"id\": 301, \"content\": \"<a>b\", \"special\": true}, "
        "{\"id\": 302, \"content\": \"<n>\", \"normalized\": true}");
    mft_ok(mf_tokenizer_open(&t, mft_tokenizer_folder("spans", json), &err), &err);
    mf_text_span all[] = {{"<a>he", 5, false}, {"llo", 3, true}};
    EXPECT_SPANS(t, all, 300, 259); /* a word across the border */
    mf_text_span user[] = {{"<a>", 3, false}, {"<a>", 3, true}, {"<a>", 3, false}};
    EXPECT_SPANS(t, user, 300, '<', 'a', '>', 300);
    mf_text_span reach[] = {{"<a>", 3, false}, {"b", 1, true}}; /* not "<a>b" */
    EXPECT_SPANS(t, reach, 300, 'b');
    mf_text_span both[] = {{"<a>", 3, false}, {"b", 1, false}};
    EXPECT_SPANS(t, both, 301);
    mf_text_span halves[] = {{"<", 1, false}, {"a", 1, true}, {">", 1, false}};
    EXPECT_SPANS(t, halves, '<', 'a', '>');
    mf_text_span normal[] = {{"<n>", 3, false}, {"<n>", 3, true}, {"", 0, true}, {"<n>", 3, false}};
    EXPECT_SPANS(t, normal, 302, '<', 'n', '>', 302);
    mf_text_span composed[] = {{"<n>e", 4, false}, {"\xcc\x81<n>", 5, true}, {"<n>", 3, false}};
    /* What composes across a border moves it; then no normalised token is found at all. */
    EXPECT_SPANS(t, composed, '<', 'n', '>', 0xc3, 0xa9, '<', 'n', '>', '<', 'n', '>');
    mf_text_span cut[] = {{"\xc3", 1, false}, {"\xa9", 1, true}}; /* a character in two */
    EXPECT_SPANS(t, cut, 0xc3, 0xa9);
    mf_text_span bad[] = {{"\xc3", 1, false}, {"x", 1, true}};
    int32_t *ids;
    size_t n;
    assert_int_equal(mf_tokenizer_encode_spans(t, bad, 2, false, &ids, &n, &err), MF_ERR_ARGUMENT);
    assert_int_equal(mf_tokenizer_encode_spans(t, NULL, 0, false, &ids, &n, &err), MF_OK);
    assert_int_equal(n, 0);
    mf_free(ids);
    mf_tokenizer_close(&t);
}

/* ---- hostile text ---- */

static double cpu_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

/* The least of three, since the machine may be busy. */
static double encode_seconds(const mf_tokenizer *t, const char *text, size_t len)
{
    double least = 1e9;
    for (int i = 0; i < 3; i++) {
        int32_t *ids;
        size_t n;
        mf_error err;
        double t0 = cpu_seconds();
        mft_ok(mf_tokenizer_encode(t, text, len, false, &ids, &n, &err), &err);
        double took = cpu_seconds() - t0;
        least = took < least ? took : least;
        mf_free(ids);
    }
    return least;
}

#define MODEL_BPE                                                                                  \
    "\"model\": {\"type\": \"BPE\", \"byte_fallback\": %s, \"unk_token\": \"<unk>\", "             \
    "\"fuse_unk\": true, \"vocab\": {\"<unk>\": 0, \"a\": 1, \"b\": 2, \"aa\": 3, \"aaaa\": 4, "   \
    "\"ab\": 5, \"\xe2\x96\x81\": 6}, \"merges\": [\"a a\", \"aa aa\", \"a b\"]}}"
#define MODEL_UNIGRAM                                                                              \
    "\"model\": {\"type\": \"Unigram\", \"unk_id\": 0, \"vocab\": [[\"<unk>\", 0], [\"a\", -1], "  \
    "[\"b\", -2], [\"aa\", -1.5], [\"aaaa\", -2.5], [\"ab\", -2]]}}"
#define PARTS                                                                                      \
    "{\"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [{\"type\": \"Prepend\", "         \
    "\"prepend\": \"\xe2\x96\x81\"}, {\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, "   \
    "\"content\": \"\xe2\x96\x81\"}, {\"type\": \"NFKC\"}]}, \"decoder\": {\"type\": \"Fuse\"}, "

static void hostile_text_is_not_quadratic(void **state)
{
    (void)state;
    static const char *const models[] = {PARTS MODEL_BPE, PARTS MODEL_UNIGRAM};
    size_t len = MFT_SANITIZED ? 100000 : 300000;
    char *text = malloc(2 * len);
    for (size_t m = 0; m < MFI_ARRAY_LEN(models); m++) {
        for (int kind = 0; kind < 4; kind++) {
            char json[2048];
            snprintf(json, sizeof json, models[m], kind & 1 ? "true" : "false");
            mf_tokenizer *t = calloc(1, sizeof *t);
            mf_error err;
            mft_ok(mfi_tokenizer_read(t, json, strlen(json), "tokenizer", &err), &err);
            for (size_t i = 0; i < 2 * len; i++) /* one word, with unknown characters or not */
                text[i] = kind < 2 ? 'a' : "ab#a"[i % 4];
            double once = encode_seconds(t, text, len), twice = encode_seconds(t, text, 2 * len);
            if (twice > 3.2 * once + 0.01)
                fail_msg("model %zu, text %d: %g s and %g s", m, kind, once, twice);
            mf_tokenizer_close(&t);
        }
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_hugging_face),
        cmocka_unit_test(metaspace_shows_the_first_token),
        cmocka_unit_test(decoders_of_the_whole_are_refused),
        cmocka_unit_test(plain_spans_hide_added_tokens),
        cmocka_unit_test(hostile_text_is_not_quadratic),
    };
    return mft_run(tests);
}
