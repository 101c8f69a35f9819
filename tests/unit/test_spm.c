/* SentencePiece models, tiktoken's ranks and GGUF's SPM vocabularies: the oracle's tokenizer.json
 * files written anew in those forms, by a writer of the test's own, must give the oracle's ids. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"
#include "fake/spm_files.h"
#include "fake/text.h"
#include "text/spm.h"
#include "text/tiktoken.h"
#include "text/tokenizer.h"

#define MARK "\xe2\x96\x81"

/* ---- writing ---- */

typedef struct end {
    int type;         /* model_type */
    int dummy_prefix; /* -1: not written */
    bool collapse;
    const void *charsmap;
    size_t charsmap_len;
} end;

static void put_end(mfi_buf *model, end e)
{
    mfi_buf trainer = {0}, normalizer = {0};
    mft_spm_number(&trainer, 3, (uint64_t)e.type);
    mft_spm_number(&trainer, 43, UINT64_MAX); /* pad_id -1 */
    mft_spm_message(model, 2, &trainer);
    if (e.charsmap)
        mft_spm_bytes(&normalizer, 2, e.charsmap, e.charsmap_len);
    if (e.dummy_prefix >= 0)
        mft_spm_number(&normalizer, 3, (uint64_t)e.dummy_prefix);
    mft_spm_number(&normalizer, 4, e.collapse);
    mft_spm_message(model, 3, &normalizer);
}

/* ---- the oracle's llama2 and gpt-oss ---- */

typedef struct entry {
    const char *text;
    double score;
    int type;
} entry;

static size_t read_entries(const mfi_json *root, entry *entries, size_t cap)
{
    const mfi_json *model = mfi_json_get(root, "model"), *vocab = mfi_json_get(model, "vocab");
    const mfi_json *merges = mfi_json_get(model, "merges");
    size_t n = mfi_json_len(vocab);
    assert_in_range(n, 1, cap);
    for (size_t i = 0; i < n; i++) {
        const char *key;
        int64_t id = -1;
        mfi_json_i64(mfi_json_member(vocab, i, &key), &id);
        assert_in_range(id, 0, n - 1);
        int type = id == 0 ? 2 : id < 3 ? 3 : strlen(key) == 6 && !strncmp(key, "<0x", 3) ? 6 : 1;
        entries[id] = (entry){key, -1e9, type};
    }
    /* The pieces' scores are not in tokenizer.json; the first merge that makes a piece has its
     * rank. */
    for (size_t i = mfi_json_len(merges); i--;) {
        char joined[256];
        const char *merge = mfi_json_str(mfi_json_at(merges, i), NULL);
        const char *space = strchr(merge, ' ');
        int64_t id;
        snprintf(joined, sizeof joined, "%.*s%s", (int)(space - merge), merge, space + 1);
        assert_true(mfi_json_i64(mfi_json_get(vocab, joined), &id));
        entries[id].score = -(double)i;
    }
    return n;
}

static void write_llama2(const entry *e, size_t n, const char *dir, bool gguf)
{
    mfi_buf model = {0};
    mft_gguf g = {0};
    for (size_t i = 0; i < n && !gguf; i++)
        mft_spm_piece(&model, e[i].text, strlen(e[i].text), (float)e[i].score, e[i].type);
    if (!gguf) {
        put_end(&model, (end){.type = 2, .dummy_prefix = -1});
        mft_write_buf(dir, "tokenizer.model", &model);
        return;
    }
    mft_gguf_str(&g, "tokenizer.ggml.model", "llama");
    mft_gguf_array(&g, "tokenizer.ggml.tokens", 8, n);
    for (size_t i = 0; i < n; i++)
        mft_gguf_put_str(&g.kv, e[i].text, strlen(e[i].text));
    mft_gguf_array(&g, "tokenizer.ggml.scores", 6, n);
    for (size_t i = 0; i < n; i++) {
        float score = (float)e[i].score;
        mfi_buf_append(&g.kv, &score, 4);
    }
    mft_gguf_array(&g, "tokenizer.ggml.token_type", 5, n);
    for (size_t i = 0; i < n; i++)
        mft_gguf_put(&g.kv, (uint64_t)e[i].type, 4);
    mft_gguf_u32(&g, "tokenizer.ggml.bos_token_id", 1);
    mft_gguf_write(&g, dir, "v.gguf");
}

static void check_vectors(const char *name, const char *path)
{
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, path, &err), &err);
    mft_check_vectors(t, name);
    mf_tokenizer_close(&t);
}

static mfi_json *open_json(const char *name)
{
    const char *json = mft_unpack_tokenizer(name);
    mfi_json *root = NULL;
    mf_error err;
    mft_ok(mfi_json_parse_file(json, 1 << 30, &root, &err), &err);
    unlink(json);
    return root;
}

static void llama2_as(bool gguf)
{
    mfi_json *root = open_json("llama2");
    entry *entries = calloc(40000, sizeof *entries);
    size_t n = read_entries(root, entries, 40000);
    const char *dir = mft_folder();
    write_llama2(entries, n, dir, gguf);
    check_vectors("llama2", dir);
    free(entries);
    mfi_json_free(&root);
}

static void llama2_as_sentencepiece(void **state)
{
    (void)state;
    llama2_as(false);
}

static void llama2_as_gguf(void **state)
{
    (void)state;
    llama2_as(true);
}

static void put_base64(mfi_buf *out, const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63],
                        i + 1 < n ? digits[v >> 6 & 63] : '=', i + 2 < n ? digits[v & 63] : '='};
        mfi_buf_append(out, four, 4);
    }
}

/* The byte-level alphabet, by its definition: bytes that are not visible follow from U+0100 on. */
static size_t to_bytes(const char *text, unsigned char *out)
{
    size_t n = 0;
    for (const unsigned char *p = (const unsigned char *)text; *p;) {
        uint32_t cp = *p < 0x80 ? *p : (uint32_t)(*p & 0x1f) << 6 | (p[1] & 0x3f);
        p += *p < 0x80 ? 1 : 2;
        uint32_t next = 0x100;
        for (uint32_t b = 0; b < 256; b++) {
            bool visible = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
            uint32_t stands = visible ? b : next++;
            if (stands == cp) {
                out[n++] = (unsigned char)b;
                break;
            }
        }
    }
    return n;
}

static void gptoss_as_ranks(void **state)
{
    (void)state;
    if (MFT_SANITIZED)
        mft_skip("too large under a sanitizer");
    mfi_json *root = open_json("gptoss");
    const mfi_json *vocab = mfi_json_get(mfi_json_get(root, "model"), "vocab");
    const mfi_json *added = mfi_json_get(root, "added_tokens");
    mfi_buf ranks = {0}, config = {0};
    for (size_t i = 0; i < mfi_json_len(vocab); i++) {
        const char *key;
        unsigned char bytes[1024];
        int64_t id = -1;
        mfi_json_i64(mfi_json_member(vocab, i, &key), &id);
        size_t n = to_bytes(key, bytes);
        put_base64(&ranks, bytes, n);
        mfi_buf_fmt(&ranks, " %lld\n", (long long)id);
    }
    mfi_buf_str(&config, "{\"added_tokens_decoder\":{");
    for (size_t i = 0; i < mfi_json_len(added); i++) {
        int64_t id = -1;
        mfi_json_i64(mfi_json_get(mfi_json_at(added, i), "id"), &id);
        mfi_buf_fmt(&config, "%s\"%lld\":", i ? "," : "", (long long)id);
        mfi_json_put(&config, mfi_json_at(added, i));
    }
    mfi_buf_str(&config, "}}");
    const char *dir = mft_folder();
    mft_write_buf(dir, "o200k_base.tiktoken", &ranks);
    mft_write_buf(dir, "tokenizer_config.json", &config);
    check_vectors("gptoss", dir);
    /* So many ranks under this name are Llama 4's, which splits alike. */
    char *old = strdup(mft_path(dir, "o200k_base.tiktoken"));
    assert_int_equal(rename(old, mft_path(dir, "tokenizer.model")), 0);
    free(old);
    check_vectors("gptoss", dir);
    mfi_json_free(&root);
}

/* ---- small ones ---- */

static void expect(const mf_tokenizer *t, const char *text, bool special, size_t n,
                   const int32_t *want)
{
    int32_t *ids;
    size_t n_ids;
    mf_error err;
    mft_ok(mf_tokenizer_encode(t, text, strlen(text), special, &ids, &n_ids, &err), &err);
    if (n_ids != n || memcmp(ids, want, n * sizeof *ids) != 0) {
        mfi_buf got = {0};
        for (size_t i = 0; i < n_ids; i++)
            mfi_buf_fmt(&got, " %d", ids[i]);
        fail_msg("\"%s\":%s", text, got.data ? got.data : " nothing");
    }
    mf_free(ids);
}

#define EXPECT(t, text, special, ...)                                                              \
    expect(t, text, special, sizeof((int32_t[]){__VA_ARGS__}) / sizeof(int32_t),                   \
           (const int32_t[]){__VA_ARGS__})

static mf_tokenizer *open_small(int type, end e, const char *config)
{
    static const struct {
        const char *text;
        float score;
        int type;
    } pieces[] = {
        {"<unk>", 0, 2},   {"<s>", 0, 3}, {"</s>", 0, 3},   {"<0xE2>", 0, 6}, {"<0x82>", 0, 6},
        {"<0xAC>", 0, 6},  {MARK, -1, 1}, {"a", -2, 1},     {"b", -2.5f, 1},  {"ab", -3, 1},
        {MARK "a", -4, 1}, {"aa", -4, 1}, {"<tool>", 0, 4}, {"c", -9, 5},     {MARK MARK, -8, 1},
    };
    mfi_buf model = {0};
    for (size_t i = 0; i < MFI_ARRAY_LEN(pieces); i++)
        mft_spm_piece(&model, pieces[i].text, strlen(pieces[i].text), pieces[i].score,
                      pieces[i].type);
    e.type = type;
    put_end(&model, e);
    const char *dir = mft_folder();
    mft_write_buf(dir, "tokenizer.model", &model);
    if (config)
        mft_write_file(dir, "tokenizer_config.json", config);
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, dir, &err), &err);
    return t;
}

static void sentencepiece_bpe(void **state)
{
    (void)state;
    mf_tokenizer *t = open_small(2, (end){.dummy_prefix = -1}, NULL);
    EXPECT(t, "ab", true, 1, 6, 9); /* "ab" before "_a" */
    EXPECT(t, "aa", false, 10, 7);  /* equal scores: the leftmost */
    EXPECT(t, "\xe2\x82\xac", false, 6, 3, 4, 5);
    EXPECT(t, "x", false, 6, 0);
    EXPECT(t, "ab<tool>ab</s>", false, 6, 9, 12, 6, 9, 2);
    EXPECT(t, "c", false, 6, 0); /* unused */
    size_t len;
    uint32_t strip = mfi_tokenizer_strip(t, -1);
    assert_int_equal(strip, 1);
    assert_memory_equal(mfi_tokenizer_show(t, 10, false, &strip, &len), "a", len);
    assert_int_equal(len, 1);
    assert_memory_equal(mfi_tokenizer_show(t, 10, false, &strip, &len), " a", len);
    assert_int_equal(len, 2);
    assert_memory_equal(mf_tokenizer_piece(t, 3, false, &len), "\xe2", 1);
    assert_int_equal(len, 1);
    assert_int_equal(mfi_tokenizer_strip(t, 1), 1); /* behind <s> */
    assert_int_equal(mfi_tokenizer_strip(t, 7), 0); /* behind text */
    mf_tokenizer_close(&t);

    t = open_small(2, (end){.dummy_prefix = 0},
                   "{\"add_bos_token\": false, \"add_eos_token\": true}");
    EXPECT(t, "ab", true, 9, 2);
    assert_int_equal(mfi_tokenizer_strip(t, -1), 0);
    mf_tokenizer_close(&t);

    t = open_small(2, (end){.dummy_prefix = 1}, "{\"legacy\": false}");
    EXPECT(t, "b<tool>b", false, 6, 8, 12, 8);
    mf_tokenizer_close(&t);

    t = open_small(
        2, (end){.dummy_prefix = 1},
        "{\"added_tokens_decoder\": {\"20\": {\"content\": \"<x>\", \"special\": true}}}");
    EXPECT(t, "b<x>", false, 6, 8, 20);
    assert_int_equal(mf_tokenizer_n_vocab(t), 21);
    mf_tokenizer_close(&t);
}

/* A map of one key, a tab, to a space: units as Darts-clone has them. */
static size_t tab_map(unsigned char *blob)
{
    uint32_t units[64] = {0};
    units[0] = 16u << 10;                         /* children at 0 ^ 16 ^ byte */
    units[16 ^ '\t'] = '\t' | 1u << 8 | 1u << 10; /* its leaf at 25 ^ 1 */
    units[(16 ^ '\t') ^ 1] = 1u << 31;            /* offset 0 of the replacements */
    uint32_t n = sizeof units;
    memcpy(blob, &n, 4);
    memcpy(blob + 4, units, sizeof units);
    memcpy(blob + 4 + sizeof units, " ", 2);
    return 4 + sizeof units + 2;
}

/* The ids are those of sentencepiece 0.2.3 for the same model; sums in double precision would take
 * two marks at once from the third on. */
static void sentencepiece_sums_are_single(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        float score;
        int type;
    } pieces[] = {{"<unk>", 0, 2},       {"<s>", 0, 3},   {"</s>", 0, 3}, {MARK, -3.1f, 1},
                  {MARK MARK, -6.2f, 1}, {"x", -7.3f, 1}, {"y", -9.1f, 1}};
    mfi_buf model = {0};
    for (size_t i = 0; i < MFI_ARRAY_LEN(pieces); i++)
        mft_spm_piece(&model, pieces[i].text, strlen(pieces[i].text), pieces[i].score,
                      pieces[i].type);
    put_end(&model, (end){.type = 1, .dummy_prefix = 0});
    const char *dir = mft_folder();
    mft_write_buf(dir, "tokenizer.model", &model);
    mft_write_file(dir, "tokenizer_config.json", "{\"add_eos_token\": false}");
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, dir, &err), &err);
    EXPECT(t, "  x  xy     y    y", false, 4, 5, 4, 5, 6, 3, 3, 3, 3, 3, 6, 4, 4, 6);
    EXPECT(t, "       x    x  ", false, 3, 4, 4, 4, 5, 3, 3, 3, 3, 5, 3, 3);
    mf_tokenizer_close(&t);
}

static void sentencepiece_unigram(void **state)
{
    (void)state;
    unsigned char blob[300];
    size_t blob_len = tab_map(blob);
    mf_tokenizer *t = open_small(
        1, (end){.dummy_prefix = 1, .collapse = true, .charsmap = blob, .charsmap_len = blob_len},
        "{\"add_bos_token\": false, \"add_eos_token\": false}");
    EXPECT(t, "a", false, 6, 7);  /* -1 - 2 is better than -4 */
    EXPECT(t, "ab", false, 6, 9); /* -1 - 3 is better than -4 - 2.5 */
    EXPECT(t, "  a \t b ", false, 6, 7, 6, 8);
    EXPECT(t, "a " MARK " ", false, 6, 7); /* SentencePiece drops them as well */
    EXPECT(t, "a\n", false, 6, 7, 0);      /* and no other white space */
    EXPECT(t, "xx", false, 6, 0);          /* fused */
    EXPECT(t, "\xe2\x82\xac", false, 6, 3, 4, 5);
    mf_tokenizer_close(&t);
}

static void broken_models_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t len;
        mf_status status;
        const char *says;
    } cases[] = {
        {"", 0, MF_ERR_FORMAT, "no pieces"},
        {"\x0a", 1, MF_ERR_FORMAT, "cut short"},
        {"\x0a\x05\x0a\x01", 4, MF_ERR_FORMAT, "longer than what is left"},
        {"\x0a\x02\x10\x01", 4, MF_ERR_FORMAT, "wrong type"},
        {"\x0a\x02\x18\x09", 4, MF_ERR_FORMAT, "unknown type"},
        {"\x0f", 1, MF_ERR_FORMAT, "unknown kind"},
        {"\x02\x00", 2, MF_ERR_FORMAT, "number"},
        {"\x18\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", 11, MF_ERR_FORMAT, "64 bits"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mfi_spm spm;
        mf_error err = {0};
        mf_status status = mfi_spm_read(&spm, cases[i].bytes, cases[i].len, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].says))
            fail_msg("case %zu: %s: %s", i, mf_status_name(status), err.message);
    }
    static const struct {
        const char *text;
        mf_status status;
        const char *says;
    } ranks[] = {
        {"", MF_ERR_FORMAT, "no ranks"},
        {"YQ==\n", MF_ERR_FORMAT, "line 1 is not"},
        {"YQ== 0\nYg== 0\n", MF_ERR_FORMAT, "line 2: rank 0 is there twice"},
        {"Y!== 0\n", MF_ERR_FORMAT, "not base64"},
        {"YQ== x\n", MF_ERR_FORMAT, "no number"},
        {"YQ== 99999999999\n", MF_ERR_LIMIT, "rank"},
        {" 3\n", MF_ERR_FORMAT, "0 bytes"},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(ranks); i++) {
        mfi_tiktoken t;
        mf_error err = {0};
        mf_status status = mfi_tiktoken_read(&t, ranks[i].text, strlen(ranks[i].text), &err);
        if (status != ranks[i].status || !strstr(err.message, ranks[i].says))
            fail_msg("ranks %zu: %s: %s", i, mf_status_name(status), err.message);
    }
    const char *dir = mft_folder();
    mft_write_file(dir, "strange.tiktoken", "YQ== 0\n");
    mf_tokenizer *t = NULL;
    mf_error err = {0};
    assert_int_equal(mf_tokenizer_open(&t, mft_path(dir, "strange.tiktoken"), &err),
                     MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "o200k_base.tiktoken"));
}

static void kimi_ranks(void **state)
{
    (void)state;
    mfi_buf ranks = {0};
    for (unsigned b = 0; b < 256; b++) {
        unsigned char byte = (unsigned char)b;
        put_base64(&ranks, &byte, 1);
        mfi_buf_fmt(&ranks, " %u\n", b);
    }
    mfi_buf_str(&ranks, "YWI= 256\r\nYmM= 257\nYWJj 258\n\n"); /* ab, bc, abc */
    const char *dir = mft_folder();
    mft_write_buf(dir, "tiktoken.model", &ranks);
    mft_write_file(
        dir, "tokenizer_config.json",
        "{\"added_tokens_decoder\": {\"259\": {\"content\": \"[BOS]\", \"special\": true}, "
        "\"261\": {\"content\": \"<|im_end|>\", \"special\": true}}, "
        "\"bos_token\": \"[BOS]\", \"chat_template\": \"x\"}");
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, dir, &err), &err);
    EXPECT(t, "abc", true, 258);
    EXPECT(t, "aab", false, 'a', 256);
    EXPECT(t, "[BOS]bc<|im_end|><|reserved_token_260|>", false, 259, 257, 261, 260);
    assert_int_equal(mf_tokenizer_n_vocab(t), 259 + 256);
    assert_true(mf_tokenizer_has_chat_template(t));
    mf_tokenizer_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama2_as_sentencepiece),
        cmocka_unit_test(llama2_as_gguf),
        cmocka_unit_test(gptoss_as_ranks),
        cmocka_unit_test(sentencepiece_bpe),
        cmocka_unit_test(sentencepiece_unigram),
        cmocka_unit_test(sentencepiece_sums_are_single),
        cmocka_unit_test(broken_models_are_refused),
        cmocka_unit_test(kimi_ranks),
    };
    return mft_run(tests);
}
