/* Tokenizers from GGUF metadata: against llama.cpp's ids, and the oracle's tokenizer.json files
 * written as GGUF here, against the same vectors. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"
#include "fake/text.h"
#include "text/pre_types.h"
#include "text/pretok.h"

/* ---- the oracle's models ---- */

static void llama_cpp(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    const char *path = mft_unpack("gguf/models/qwen3moe-IQ1_S.gguf", dir);
    if (!path)
        mft_skip("no oracle or no xz");
    mf_error err;
    mfi_json *root = NULL;
    mft_ok(mfi_json_parse_file(mft_oracle("gguf/models/tokenize.json"), 1 << 20, &root, &err),
           &err);
    const mfi_json *cases = mfi_json_get(root, "cases");
    assert_true(mfi_json_len(cases) >= 6);
    for (int folder = 0; folder < 2; folder++) {
        mf_tokenizer *t = NULL;
        mft_ok(mf_tokenizer_open(&t, folder ? dir : path, &err), &err);
        assert_int_equal(mf_tokenizer_n_vocab(t), 320);
        for (size_t i = 0; i < mfi_json_len(cases); i++)
            mft_check_ids(t, mfi_json_at(cases, i), "ids", true); /* there is no BOS to add */
        size_t len;
        assert_memory_equal(mf_tokenizer_piece(t, 319, true, &len), "<|im_end|>", 10);
        assert_int_equal(len, 10);
        mf_tokenizer_piece(t, 319, false, &len);
        assert_int_equal(len, 0);
        assert_true(mf_tokenizer_has_chat_template(t));
        mf_chat_message message = {.role = "user", .content = "Hi"};
        mf_rendering text = {0};
        mft_ok(mf_chat_render(t, &message, 1, NULL, &text, &err), &err);
        assert_non_null(
            strstr(text.text, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"));
        mf_rendering_free(&text);
        mf_tokenizer_close(&t);
        mf_template *template = NULL;
        static const char vars[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}";
        mft_ok(mf_template_open(&template, folder ? dir : path, &err), &err);
        mft_ok(mf_template_render(template, vars, sizeof vars - 1, NULL, &text, &err), &err);
        assert_string_equal(text.text, "<|im_start|>user\nHi<|im_end|>\n");
        mf_rendering_free(&text);
        mf_template_close(&template);
    }
    mfi_json_free(&root);
}

static void stand_in(void **state)
{
    (void)state;
    const char *path = mft_unpack("gguf/archs/qwen3moe.gguf", mft_folder());
    if (!path)
        mft_skip("no oracle or no xz");
    mf_tokenizer *t = NULL;
    mf_error err = {0};
    assert_int_equal(mf_tokenizer_open(&t, path, &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no tokenizer"));
}

/* ---- tokenizer.json as GGUF ---- */

typedef struct entry {
    const char *text;
    size_t len;
    int type;
} entry;

static void put_tokens(mft_gguf *g, const entry *tokens, size_t n)
{
    mft_gguf_array(g, "tokenizer.ggml.tokens", 8, n);
    for (size_t i = 0; i < n; i++) {
        char pad[32];
        int len = snprintf(pad, sizeof pad, "[PAD%zu]", i);
        if (tokens[i].text)
            mft_gguf_put_str(&g->kv, tokens[i].text, tokens[i].len);
        else
            mft_gguf_put_str(&g->kv, pad, (size_t)len);
    }
    mft_gguf_array(g, "tokenizer.ggml.token_type", 5, n);
    for (size_t i = 0; i < n; i++)
        mft_gguf_put(&g->kv, tokens[i].text ? (uint64_t)tokens[i].type : 5, 4);
}

static void put_merges(mft_gguf *g, const mfi_json *merges)
{
    mft_gguf_array(g, "tokenizer.ggml.merges", 8, mfi_json_len(merges));
    for (size_t i = 0; i < mfi_json_len(merges); i++) {
        size_t a, b;
        const mfi_json *m = mfi_json_at(merges, i);
        const char *left = mfi_json_str(m, &a), *right;
        if (left) {
            mft_gguf_put_str(&g->kv, left, a);
            continue;
        }
        left = mfi_json_str(mfi_json_at(m, 0), &a);
        right = mfi_json_str(mfi_json_at(m, 1), &b);
        mft_gguf_put(&g->kv, a + 1 + b, 8);
        mfi_buf_append(&g->kv, left, a);
        mfi_buf_append(&g->kv, " ", 1);
        mfi_buf_append(&g->kv, right, b);
    }
}

/* As llama.cpp's converter: the vocabulary by id, added tokens as control or user-defined ones. */
static void write_gguf(const char *json_path, const char *pre, int64_t bos, const char *dir)
{
    mfi_json *root = NULL;
    mf_error err;
    mft_ok(mfi_json_parse_file(json_path, 1 << 30, &root, &err), &err);
    const mfi_json *vocab = mfi_json_get(mfi_json_get(root, "model"), "vocab");
    const mfi_json *added = mfi_json_get(root, "added_tokens");
    size_t n = 0, cap = 300000;
    entry *tokens = calloc(cap, sizeof *tokens);
    assert_non_null(tokens);
    for (size_t i = 0; i < mfi_json_len(vocab); i++) {
        const char *key;
        int64_t id = -1;
        mfi_json_i64(mfi_json_member(vocab, i, &key), &id);
        assert_in_range(id, 0, cap - 1);
        tokens[id] = (entry){key, strlen(key), 1};
        n = (size_t)id >= n ? (size_t)id + 1 : n;
    }
    for (size_t i = 0; i < mfi_json_len(added); i++) {
        const mfi_json *a = mfi_json_at(added, i);
        int64_t id = -1;
        bool special = false;
        mfi_json_i64(mfi_json_get(a, "id"), &id);
        assert_in_range(id, 0, cap - 1);
        mfi_json_bool(mfi_json_get(a, "special"), &special);
        tokens[id].text = mfi_json_str(mfi_json_get(a, "content"), &tokens[id].len);
        tokens[id].type = special ? 3 : 4;
        n = (size_t)id >= n ? (size_t)id + 1 : n;
    }
    mft_gguf g = {0};
    mft_gguf_str(&g, "tokenizer.ggml.model", "gpt2");
    mft_gguf_str(&g, "tokenizer.ggml.pre", pre);
    put_tokens(&g, tokens, n);
    put_merges(&g, mfi_json_get(mfi_json_get(root, "model"), "merges"));
    if (bos >= 0)
        mft_gguf_u32(&g, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    mft_gguf_write(&g, dir, "vocab.gguf");
    free(tokens);
    mfi_json_free(&root);
}

static void check_oracle(const char *name, const char *pre, int64_t bos)
{
    if (MFT_SANITIZED && strcmp(name, "pocket") != 0)
        mft_skip("%s: too large under a sanitizer", name);
    const char *json = mft_unpack_tokenizer(name);
    const char *dir = mft_folder();
    write_gguf(json, pre, bos, dir);
    unlink(json);
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, dir, &err), &err);
    unlink(mft_path(dir, "vocab.gguf"));
    mft_check_vectors(t, name);
    mf_tokenizer_close(&t);
}

#define ORACLE(name, pre, bos)                                                                     \
    static void oracle_##name(void **state)                                                        \
    {                                                                                              \
        (void)state;                                                                               \
        check_oracle(#name, pre, bos);                                                             \
    }
ORACLE(pocket, "qwen35", -1)
ORACLE(qwen3, "qwen2", -1)
ORACLE(deepseek_v3, "deepseek-v3", -1)
ORACLE(gptoss, "gpt-4o", -1)
ORACLE(llama3_1, "llama-bpe", 128000)

/* ---- small ones ---- */

/* All bytes as the byte-level alphabet has them, then "ab", "cd", then what the caller adds. */
static void put_alphabet(entry tokens[258], char text[258][4])
{
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; b++) {
        bool visible = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
        uint32_t cp = visible ? b : next++;
        size_t n = 0;
        if (cp >= 0x80)
            text[b][n++] = (char)(0xc0 | cp >> 6);
        text[b][n++] = (char)(cp >= 0x80 ? 0x80 | (cp & 0x3f) : cp);
        tokens[b] = (entry){text[b], n, 1};
    }
    tokens[256] = (entry){"ab", 2, 1};
    tokens[257] = (entry){"cd", 2, 1};
}

typedef struct small {
    const char *pre;
    const entry *more;
    size_t n_more;
    int add_bos, add_eos; /* -1: not written */
    int64_t bos, eos;
    const char *merge; /* NULL: "a b", "c d" */
    int bad_types;
} small;

static mf_status open_small(const small *s, mf_tokenizer **t, mf_error *err)
{
    const char *dir = mft_folder();
    entry tokens[300];
    char text[258][4];
    put_alphabet(tokens, text);
    for (size_t i = 0; i < s->n_more; i++)
        tokens[258 + i] = s->more[i];
    mft_gguf g = {0};
    mft_gguf_str(&g, "tokenizer.ggml.model", "gpt2");
    if (s->pre)
        mft_gguf_str(&g, "tokenizer.ggml.pre", s->pre);
    put_tokens(&g, tokens, 258 + s->n_more);
    if (s->bad_types) { /* an array that is too short takes the place of token_type */
        mfi_buf_free(&g.kv);
        g.n_kv = 0;
        mft_gguf_str(&g, "tokenizer.ggml.model", "gpt2");
        mft_gguf_array(&g, "tokenizer.ggml.tokens", 8, 1);
        mft_gguf_put_str(&g.kv, "a", 1);
        mft_gguf_array(&g, "tokenizer.ggml.token_type", s->bad_types == 1 ? 5 : 6, 2);
        mft_gguf_put(&g.kv, 0, 8);
    }
    mft_gguf_array(&g, "tokenizer.ggml.merges", 8, s->merge ? 1 : 2);
    if (s->merge) {
        mft_gguf_put_str(&g.kv, s->merge, strlen(s->merge));
    } else {
        mft_gguf_put_str(&g.kv, "a b", 3);
        mft_gguf_put_str(&g.kv, "c d", 3);
    }
    if (s->add_bos >= 0)
        mft_gguf_bool(&g, "tokenizer.ggml.add_bos_token", s->add_bos);
    if (s->add_eos >= 0)
        mft_gguf_bool(&g, "tokenizer.ggml.add_eos_token", s->add_eos);
    if (s->bos >= 0)
        mft_gguf_u32(&g, "tokenizer.ggml.bos_token_id", (uint32_t)s->bos);
    if (s->eos >= 0)
        mft_gguf_u32(&g, "tokenizer.ggml.eos_token_id", (uint32_t)s->eos);
    mft_gguf_write(&g, dir, "v.gguf");
    *t = NULL;
    return mf_tokenizer_open(t, mft_path(dir, "v.gguf"), err);
}

static void expect(const mf_tokenizer *t, const char *text, bool special, size_t n,
                   const int32_t *want)
{
    int32_t *ids;
    size_t n_ids;
    mf_error err;
    mft_ok(mf_tokenizer_encode(t, text, strlen(text), special, &ids, &n_ids, &err), &err);
    assert_int_equal(n_ids, n);
    assert_memory_equal(ids, want, n * sizeof *ids);
    mf_free(ids);
}

static void kinds_of_tokens(void **state)
{
    (void)state;
    static const entry more[] = {
        {"<s>", 3, 3}, {"</s>", 4, 3}, {"<think>", 7, 4}, {NULL, 0, 5}, {"ab", 2, 3}, {"x y", 3, 4},
    };
    small s = {.pre = "llama-bpe",
               .more = more,
               .n_more = 6,
               .add_bos = -1,
               .add_eos = -1,
               .bos = 258,
               .eos = 259};
    mf_tokenizer *t;
    mf_error err;
    size_t len;
    mft_ok(open_small(&s, &t, &err), &err);
    expect(t, "abcd", true, 2 + 1, (int32_t[]){258, 256, 257});
    expect(t, "abcd", false, 2, (int32_t[]){256, 257});
    expect(t, "<think>x y</s>ab", false, 4, (int32_t[]){260, 263, 259, 256});
    assert_memory_equal(mf_tokenizer_piece(t, 260, false, &len), "<think>", 7);
    assert_int_equal(len, 7);
    mf_tokenizer_piece(t, 258, false, &len);
    assert_int_equal(len, 0);
    mf_tokenizer_piece(t, 261, true, &len); /* unused */
    assert_int_equal(len, 0);
    mf_tokenizer_piece(t, 262, false, &len); /* a control token whose text another has */
    assert_int_equal(len, 0);
    assert_int_equal(mf_tokenizer_n_vocab(t), 264);
    mf_tokenizer_close(&t);

    s.add_bos = 0;
    s.add_eos = 1;
    mft_ok(open_small(&s, &t, &err), &err);
    expect(t, "ab", true, 2, (int32_t[]){256, 259});
    mf_tokenizer_close(&t);

    s.pre = NULL; /* "default" */
    s.add_bos = s.add_eos = -1;
    mft_ok(open_small(&s, &t, &err), &err);
    expect(t, "ab", true, 1, (int32_t[]){256});
    mf_tokenizer_close(&t);
}

static void refused(void **state)
{
    (void)state;
    static const struct {
        small s;
        mf_status status;
        const char *says[2];
    } cases[] = {
        {{"quux", NULL, 0, -1, -1, -1, -1, NULL, 0}, MF_ERR_UNSUPPORTED, {"quux", "qwen35"}},
        {{"qwen2", NULL, 0, 1, -1, -1, -1, NULL, 0}, MF_ERR_FORMAT, {"around texts", ""}},
        {{"qwen2", NULL, 0, -1, -1, 400, -1, NULL, 0}, MF_ERR_FORMAT, {"400", "258"}},
        {{"qwen2", NULL, 0, -1, -1, -1, -1, "a c", 0}, MF_ERR_FORMAT, {"merges: entry 0", ""}},
        {{"qwen2", NULL, 0, -1, -1, -1, -1, "ab", 0}, MF_ERR_FORMAT, {"no space", ""}},
        {{"qwen2", NULL, 0, -1, -1, -1, -1, NULL, 1}, MF_ERR_FORMAT, {"token_type", "2"}},
        {{"qwen2", NULL, 0, -1, -1, -1, -1, NULL, 2}, MF_ERR_FORMAT, {"token_type", "float32"}},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mf_tokenizer *t;
        mf_error err = {0};
        mf_status status = open_small(&cases[i].s, &t, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].says[0]) ||
            !strstr(err.message, cases[i].says[1]) || !strstr(err.message, "v.gguf"))
            fail_msg("case %zu: %s: %s", i, mf_status_name(status), err.message);
        assert_null(t);
    }
    const char *dir = mft_folder();
    mft_gguf g = {0};
    mft_gguf_str(&g, "tokenizer.ggml.model", "rwkv");
    mft_gguf_write(&g, dir, "v.gguf");
    mf_tokenizer *t = NULL;
    mf_error err = {0};
    assert_int_equal(mf_tokenizer_open(&t, dir, &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "rwkv"));
    assert_non_null(strstr(err.message, "t5 (Unigram)"));
}

/* Every name opens, and names are words of their own. */
static void names(void **state)
{
    (void)state;
    const mfi_pre_type *type;
    size_t n = 0;
    for (uint32_t i = 0; (type = mfi_pre_type_at(i)) != NULL; i++) {
        char list[512], *save = NULL;
        snprintf(list, sizeof list, "%s", type->names);
        for (char *name = strtok_r(list, " ", &save); name; name = strtok_r(NULL, " ", &save)) {
            assert_ptr_equal(mfi_pre_type_find(name), type);
            n++;
        }
        small s = {.pre = list, .add_bos = -1, .add_eos = -1, .bos = -1, .eos = -1};
        mf_tokenizer *t;
        mf_error err;
        mft_ok(open_small(&s, &t, &err), &err);
        expect(t, "ab", false, 1, (int32_t[]){256});
        mf_tokenizer_close(&t);
    }
    assert_true(n > 40);
    static const char *const not [] = {"", "qwen", "llama", "gpt-2 phi-2", "3", "wen2"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(not ); i++)
        assert_null(mfi_pre_type_find(not [i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(llama_cpp),
        cmocka_unit_test(stand_in),
        cmocka_unit_test(oracle_pocket),
        cmocka_unit_test(oracle_qwen3),
        cmocka_unit_test(oracle_deepseek_v3),
        cmocka_unit_test(oracle_gptoss),
        cmocka_unit_test(oracle_llama3_1),
        cmocka_unit_test(kinds_of_tokens),
        cmocka_unit_test(refused),
        cmocka_unit_test(names),
    };
    return mft_run(tests);
}
