/* GGUF vocabularies of characters, `gemma4` (merges) and `t5` (Unigram): the same vocabulary as
 * tokenizer.json, whose reader is held against Hugging Face's, must give the same ids. And the
 * second chat template that GGUF has for conversations with tools. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "fake/gguf_files.h"
#include "fake/model_files.h"

#define MARK "\xe2\x96\x81"

enum { NORMAL = 1, UNKNOWN, CONTROL, BYTE = 6 }; /* llama.cpp's token types */

typedef struct piece {
    char text[16];
    int type;
    float score;
} piece;

static const struct {
    const char *text;
    float score;
} words[] = {{MARK, -6},       {"h", -7},      {"e", -7},     {"l", -7},      {"o", -7},
             {"w", -7},        {"r", -7},      {"d", -7},     {"\n", -7},     {"he", -4},
             {"ll", -4},       {"hell", -5},   {"hello", -3}, {MARK "w", -4}, {"or", -4.5f},
             {MARK "wor", -5}, {"ld", -4.25f}, {"\n\n", -4}};
static const char *const merges[][2] = {{"h", "e"},       {"l", "l"},  {"he", "ll"},
                                        {"hell", "o"},    {MARK, "w"}, {"o", "r"},
                                        {MARK "w", "or"}, {"l", "d"},  {"\n", "\n"}};

typedef struct vocab {
    piece pieces[300];
    uint32_t n, first_word;
} vocab;

static void add(vocab *v, const char *text, int type, float score)
{
    piece *p = &v->pieces[v->n++];
    snprintf(p->text, sizeof p->text, "%s", text);
    p->type = type;
    p->score = score;
}

static vocab make(bool bytes)
{
    static vocab v;
    v.n = 0;
    add(&v, "<unk>", UNKNOWN, 0);
    add(&v, "<s>", CONTROL, 0);
    add(&v, "</s>", CONTROL, 0);
    for (int i = 0; bytes && i < 256; i++) {
        char text[16];
        snprintf(text, sizeof text, "<0x%02X>", i);
        add(&v, text, BYTE, 0);
    }
    v.first_word = v.n;
    for (size_t i = 0; i < MFI_ARRAY_LEN(words); i++)
        add(&v, words[i].text, NORMAL, words[i].score);
    return v;
}

static void write_gguf(const vocab *v, bool unigram, const char *dir)
{
    mft_gguf g = {0};
    mft_gguf_str(&g, "tokenizer.ggml.model", unigram ? "t5" : "gemma4");
    mft_gguf_array(&g, "tokenizer.ggml.tokens", 8, v->n);
    for (uint32_t i = 0; i < v->n; i++)
        mft_gguf_put_str(&g.kv, v->pieces[i].text, strlen(v->pieces[i].text));
    mft_gguf_array(&g, "tokenizer.ggml.token_type", 5, v->n);
    for (uint32_t i = 0; i < v->n; i++)
        mft_gguf_put(&g.kv, (uint64_t)v->pieces[i].type, 4);
    mft_gguf_array(&g, "tokenizer.ggml.scores", 6, v->n);
    for (uint32_t i = 0; i < v->n; i++)
        mfi_buf_append(&g.kv, &v->pieces[i].score, 4);
    if (!unigram) {
        mft_gguf_array(&g, "tokenizer.ggml.merges", 8, MFI_ARRAY_LEN(merges));
        for (size_t i = 0; i < MFI_ARRAY_LEN(merges); i++) {
            char text[32];
            int len = snprintf(text, sizeof text, "%s %s", merges[i][0], merges[i][1]);
            mft_gguf_put_str(&g.kv, text, (size_t)len);
        }
    }
    mft_gguf_u32(&g, "tokenizer.ggml.bos_token_id", 1);
    mft_gguf_u32(&g, "tokenizer.ggml.eos_token_id", 2);
    mft_gguf_u32(&g, "tokenizer.ggml.unknown_token_id", 0);
    mft_gguf_bool(&g, "tokenizer.ggml.add_space_prefix", unigram);
    mft_gguf_write(&g, dir, "v.gguf");
}

static void put_model(const vocab *v, bool unigram, mfi_buf *json)
{
    mfi_buf_str(json, unigram
                          ? "{\"type\":\"Unigram\",\"unk_id\":0,\"byte_fallback\":true,\"vocab\":["
                          : "{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":true,"
                            "\"byte_fallback\":true,\"vocab\":{");
    for (uint32_t i = 0; i < v->n; i++) {
        mfi_buf_str(json, i ? "," : "");
        mfi_buf_str(json, unigram ? "[" : "");
        mfi_json_put_str(json, v->pieces[i].text, strlen(v->pieces[i].text));
        if (unigram)
            mfi_buf_fmt(json, ",%g]", (double)v->pieces[i].score);
        else
            mfi_buf_fmt(json, ":%u", i);
    }
    mfi_buf_str(json, unigram ? "]" : "},\"merges\":[");
    for (size_t i = 0; !unigram && i < MFI_ARRAY_LEN(merges); i++) {
        mfi_buf_str(json, i ? ",[" : "[");
        mfi_json_put_str(json, merges[i][0], strlen(merges[i][0]));
        mfi_buf_str(json, ",");
        mfi_json_put_str(json, merges[i][1], strlen(merges[i][1]));
        mfi_buf_str(json, "]");
    }
    mfi_buf_str(json, unigram ? "}" : "]}");
}

static void write_json(const vocab *v, bool unigram, const char *dir)
{
    mfi_buf json = {0};
    mfi_buf_str(&json, "{\"added_tokens\":[{\"id\":0,\"content\":\"<unk>\",\"special\":true},"
                       "{\"id\":1,\"content\":\"<s>\",\"special\":true},"
                       "{\"id\":2,\"content\":\"</s>\",\"special\":true}],"
                       "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[");
    mfi_buf_str(&json, unigram ? "{\"type\":\"Prepend\",\"prepend\":\"" MARK "\"}," : "");
    mfi_buf_str(&json,
                "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},"
                "\"content\":\"" MARK "\"}]},\"decoder\":{\"type\":\"Sequence\",\"decoders\":["
                "{\"type\":\"Replace\",\"pattern\":{\"String\":\"" MARK "\"},\"content\":\" \"},"
                "{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},\"model\":");
    put_model(v, unigram, &json);
    mfi_buf_str(&json, "}");
    mft_write(dir, "tokenizer.json", json.data, json.len);
    mfi_buf_free(&json);
}

static size_t encode(const mf_tokenizer *t, const char *text, bool special, int32_t **ids)
{
    mf_error err;
    size_t n;
    mft_ok(mf_tokenizer_encode(t, text, strlen(text), special, ids, &n, &err), &err);
    return n;
}

static void compare(const mf_tokenizer *gguf, const mf_tokenizer *json, bool unigram)
{
    static const char *const texts[] = {"hello world",
                                        "  held  \n\nor",
                                        "h\xc3\xa9llo w\xc3\xb6rld",
                                        "<s>hello</s>low",
                                        "\n\n\nhell\xf0\x9f\x98\x80\xf0\x9f\x98\x80",
                                        "o",
                                        "worldhello  wor"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(texts); i++) {
        int32_t *a, *b;
        size_t n = encode(gguf, texts[i], false, &a), m = encode(json, texts[i], false, &b);
        if (n != m || memcmp(a, b, n * sizeof *a) != 0)
            fail_msg("\"%s\": %zu ids and %zu, or others", texts[i], n, m);
        mf_free(a);
        n = encode(gguf, texts[i], true, &a); /* t5: its end behind; gemma4: its begin in front */
        assert_int_equal(n, m + 1);
        assert_int_equal(a[unigram ? m : 0], unigram ? 2 : 1);
        assert_memory_equal(a + !unigram, b, m * sizeof *b);
        mf_free(a);
        mf_free(b);
    }
}

static void check(bool unigram, bool bytes)
{
    mf_error err;
    vocab v = make(bytes);
    const char *a = mft_folder(), *b = mft_folder();
    mf_tokenizer *gguf = NULL, *json = NULL;
    write_gguf(&v, unigram, a);
    write_json(&v, unigram, b);
    mft_ok(mf_tokenizer_open(&gguf, a, &err), &err);
    mft_ok(mf_tokenizer_open(&json, b, &err), &err);
    compare(gguf, json, unigram);
    int32_t *ids; /* by hand: (U+2581) hello, U+2581 wor, ld */
    size_t n = encode(gguf, "hello world", false, &ids), mark = unigram;
    assert_int_equal(n, 3 + mark);
    assert_int_equal(ids[0], v.first_word + (unigram ? 0 : 12));
    assert_int_equal(ids[mark], v.first_word + 12);
    assert_int_equal(ids[mark + 1], v.first_word + 15);
    assert_int_equal(ids[mark + 2], v.first_word + 16);
    mf_free(ids);
    n = encode(gguf, "\xc3\xa9", false, &ids);
    assert_int_equal(n, mark + (bytes ? 2 : 1));
    assert_int_equal(ids[mark], bytes ? 3 + 0xc3 : 0);
    mf_free(ids);
    mf_tokenizer_close(&gguf);
    mf_tokenizer_close(&json);
}

static void gemma4(void **state)
{
    (void)state;
    check(false, true);
    check(false, false);
}

static void t5(void **state)
{
    (void)state;
    check(true, true);
    check(true, false);
}

static void expect_template(const char *path, const char *vars, const char *want)
{
    mf_error err;
    mf_template *t = NULL;
    mf_rendering text = {0};
    mft_ok(mf_template_open(&t, path, &err), &err);
    mft_ok(mf_template_render(t, vars, strlen(vars), NULL, &text, &err), &err);
    assert_string_equal(text.text, want);
    mf_rendering_free(&text);
    mf_template_close(&t);
}

static void tool_template(void **state)
{
    (void)state;
    const char *dir = mft_folder();
    mft_gguf g = {0};
    mft_gguf_str(&g, "tokenizer.ggml.model", "gpt2");
    mft_gguf_str(&g, "tokenizer.ggml.pre", "qwen2");
    mft_gguf_array(&g, "tokenizer.ggml.tokens", 8, 2);
    mft_gguf_put_str(&g.kv, "a", 1);
    mft_gguf_put_str(&g.kv, "b", 1);
    mft_gguf_array(&g, "tokenizer.ggml.merges", 8, 0);
    mft_gguf_str(&g, "tokenizer.chat_template", "plain {{ messages|length }}");
    mft_gguf_str(&g, "tokenizer.chat_template.tool_use", "tools {{ tools[0] }}");
    mft_gguf_write(&g, dir, "v.gguf");
    const char *path = mft_path(dir, "v.gguf");
    expect_template(path, "{\"messages\":[]}", "plain 0");
    expect_template(path, "{\"messages\":[],\"tools\":null}", "plain 0");
    expect_template(path, "{\"messages\":[],\"tools\":[5]}", "tools 5");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gemma4),
        cmocka_unit_test(t5),
        cmocka_unit_test(tool_template),
    };
    return mft_run(tests);
}
