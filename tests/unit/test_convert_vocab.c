/* Tokenizers in GGUF files that are written: pre-tokenisers under the names that llama.cpp has for
 * them, and SentencePiece models by scores, which must give the ids that the folder's own tokenizer
 * gives. What GGUF has no vocabulary for is refused. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "fake/family_model.h"
#include "fake/model_files.h"
#include "fake/spm_files.h"
#include "format/format.h"

#define MARK  "\xe2\x96\x81"
#define N_TOK 320

static const char config[] =
    "{\"model_type\":\"mixtral\",\"num_hidden_layers\":1,\"hidden_size\":32,\"vocab_size\":320,"
    "\"num_attention_heads\":2,\"max_position_embeddings\":64,\"num_experts_per_tok\":1,"
    "\"num_local_experts\":2,\"intermediate_size\":32}";

static mf_status convert(const char *in, const char **out, mf_error *err)
{
    static char path[16][512];
    static int n;
    mf_convert_options o;
    mf_convert_options_default(&o);
    snprintf(path[n & 15], sizeof path[0], "%s/%d.gguf", mft_tmpdir(), n);
    *out = path[n++ & 15];
    o.in_path = in;
    o.out_path = *out;
    o.type = "q8_0";
    o.n_threads = 1;
    return mf_convert(&o, err);
}

/* ---- byte-level ---- */

#define SPLIT(pattern)                                                                             \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern                                        \
    "\"},\"behavior\":\"Isolated\",\"invert\":false},"
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|"
#define MARKS                                                                                      \
    "| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|"                               \
    "\\\\s+(?!\\\\S)|\\\\s+"
#define NO_WORD "{\"type\":\"ByteLevel\",\"use_regex\":false}"

/* Patterns as the models' tokenizer.json have them, DeepSeek's with letters and line ends as
 * themselves. */
static const struct {
    const char *splits, *rest, *name;
} cases[] = {
    {SPLIT(WORDS "\\\\p{N}" MARKS) NO_WORD, "\"normalizer\":{\"type\":\"NFC\"},", "qwen2"},
    {SPLIT(WORDS "\\\\p{N}{1,3}" MARKS) NO_WORD, "", "glm4"},
    {SPLIT("\\\\p{N}{1,3}") SPLIT("[\xe4\xb8\x80-\xe9\xbe\xa5\xe3\x81\x80-\xe3\x82\x9f"
                                  "\xe3\x82\xa0-\xe3\x83\xbf]+")
         SPLIT("[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\\\p{L}"
               "\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|"
               "\\\\s*[\\r\\n]+|\\\\s+(?!\\\\S)|\\\\s+") NO_WORD,
     "", "deepseek-v3"},
    {"{\"type\":\"Digits\",\"individual_digits\":true},{\"type\":\"ByteLevel\"}", "", "starcoder"},
    {"{\"type\":\"ByteLevel\"}", "", "gpt-2"},
    {SPLIT("[aeiou]+") NO_WORD, "", NULL},
};

static void pre_tokenizers(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        char json[4096];
        const char *in = mft_family_write(config, 1), *out;
        mf_error err;
        snprintf(json, sizeof json,
                 "{%s\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[%s]},"
                 "\"added_tokens\":[{\"id\":2,\"content\":\"<end>\",\"special\":true}],"
                 "\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1},\"merges\":[]}}",
                 cases[i].rest, cases[i].splits);
        mft_write_str(in, "tokenizer.json", json);
        mf_status status = convert(in, &out, &err);
        if (!cases[i].name) {
            assert_int_equal(status, MF_ERR_UNSUPPORTED);
            assert_non_null(strstr(err.message, "[aeiou]+"));
            continue;
        }
        mft_ok(status, &err);
        mfi_catalog *c = NULL;
        mft_ok(mfi_format_open(&c, out, &err), &err);
        assert_string_equal(
            mfi_json_str(mfi_json_get(mfi_catalog_meta(c), "tokenizer.ggml.pre"), NULL),
            cases[i].name);
        mfi_catalog_close(&c);
    }
}

/* ---- SentencePiece ---- */

/* Merges by score that are not those by length: "lo" before "el". */
static void write_model(const char *dir, int model_type)
{
    static const char *const pieces[] = {MARK "h", "lo", "el", "llo", "hello", MARK "hello",
                                         MARK,     "h",  "e",  "l",   "o",     "w",
                                         "r",      "d",  "ld", "or",  "wor",   MARK "w"};
    mfi_buf model = {0}, trainer = {0}, normalizer = {0};
    mft_spm_piece(&model, "<unk>", strlen("<unk>"), 0, 2);
    mft_spm_piece(&model, "<s>", strlen("<s>"), 0, 3);
    mft_spm_piece(&model, "</s>", strlen("</s>"), 0, 3);
    for (int i = 0; i < 256; i++) {
        char byte[8];
        snprintf(byte, sizeof byte, "<0x%02X>", i);
        mft_spm_piece(&model, byte, strlen(byte), 0, 6);
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(pieces); i++)
        mft_spm_piece(&model, pieces[i], strlen(pieces[i]), -(float)(i * 7 % 18), 1);
    mft_spm_number(&trainer, 3, (uint64_t)model_type);
    mft_spm_message(&model, 2, &trainer);
    mft_spm_number(&normalizer, 4, 0); /* runs of spaces stay */
    mft_spm_message(&model, 3, &normalizer);
    mft_write_buf(dir, "tokenizer.model", &model);
}

/* Release the ids with mf_free. */
static size_t encode(const char *path, const char *text, int32_t **ids)
{
    mf_error err;
    mf_tokenizer *t = NULL;
    size_t n = 0;
    mft_ok(mf_tokenizer_open(&t, path, &err), &err);
    mft_ok(mf_tokenizer_encode(t, text, strlen(text), true, ids, &n, &err), &err);
    mf_tokenizer_close(&t);
    return n;
}

static void sentence_piece(void **state)
{
    (void)state;
    static const char *const texts[] = {"hello world", "  hello  held\n", "<extra>wor<end>",
                                        "\xc3\xa9l lo"};
    mf_error err;
    const char *in = mft_family_write(config, 2), *out;
    write_model(in, 2);
    mft_write_str(in, "tokenizer_config.json",
                  "{\"bos_token\":\"<s>\",\"eos_token\":\"</s>\",\"unk_token\":\"<unk>\","
                  "\"legacy\":true,\"tokenizer_class\":\"LlamaTokenizer\","
                  "\"add_bos_token\":true,\"added_tokens_decoder\":{"
                  "\"0\":{\"content\":\"<unk>\",\"special\":true},"
                  "\"1\":{\"content\":\"<s>\",\"special\":true},"
                  "\"2\":{\"content\":\"</s>\",\"special\":true},"
                  "\"277\":{\"content\":\"<extra>\",\"special\":false},"
                  "\"278\":{\"content\":\"<end>\",\"special\":true}}}");
    mft_ok(convert(in, &out, &err), &err);
    for (size_t i = 0; i < MFI_ARRAY_LEN(texts); i++) {
        int32_t *a, *b;
        size_t n = encode(in, texts[i], &a), m = encode(out, texts[i], &b);
        printf("  %zu ids\n", n);
        assert_in_range(n, 3, 64);
        assert_int_equal(a[0], 1);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n * sizeof *a);
        mf_free(a);
        mf_free(b);
    }
    mfi_catalog *c = NULL;
    mfi_meta_array array;
    mft_ok(mfi_format_open(&c, out, &err), &err);
    assert_true(mfi_catalog_meta_array(c, "tokenizer.ggml.scores", &array));
    assert_int_equal(array.n, N_TOK);
    mfi_catalog_close(&c);
}

/* The template for conversations with tools, from where either is kept. */
static void tool_templates(void **state)
{
    (void)state;
    for (int in_files = 0; in_files < 2; in_files++) {
        mf_error err;
        const char *in = mft_family_write(config, 4 + in_files), *out;
        write_model(in, 2);
        mft_write_str(in, "tokenizer_config.json",
                      in_files ? "{\"chat_template\":\"not this\"}"
                               : "{\"chat_template\":[{\"name\":\"tool_use\","
                                 "\"template\":\"tools {{ tools }}\"},{\"name\":\"default\","
                                 "\"template\":\"plain\"}]}");
        if (in_files) {
            char dir[600];
            snprintf(dir, sizeof dir, "%s/additional_chat_templates", in);
            assert_int_equal(mkdir(dir, 0755), 0);
            mft_write_str(dir, "tool_use.jinja", "tools {{ tools }}");
            mft_write_str(in, "chat_template.jinja", "plain");
        }
        mft_ok(convert(in, &out, &err), &err);
        mfi_catalog *c = NULL;
        mft_ok(mfi_format_open(&c, out, &err), &err);
        const mfi_json *meta = mfi_catalog_meta(c);
        const char *plain = mfi_json_str(mfi_json_get(meta, "tokenizer.chat_template"), NULL);
        const char *tools =
            mfi_json_str(mfi_json_get(meta, "tokenizer.chat_template.tool_use"), NULL);
        assert_non_null(plain);
        assert_non_null(tools);
        assert_string_equal(plain, "plain");
        assert_string_equal(tools, "tools {{ tools }}");
        mfi_catalog_close(&c);
    }
}

static void refusals(void **state)
{
    (void)state;
    mf_error err;
    const char *in = mft_family_write(config, 3), *out;
    write_model(in, 1);
    assert_int_equal(convert(in, &out, &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "no BPE"));
    in = mft_family_write(config, 3);
    mft_write_str(in, "tokenizer.json",
                  "{\"model\":{\"type\":\"BPE\",\"byte_fallback\":true,\"vocab\":{},"
                  "\"merges\":[]}}");
    assert_int_equal(convert(in, &out, &err), MF_ERR_UNSUPPORTED);
    assert_non_null(strstr(err.message, "tokenizer.model"));
    mft_write(in, "tokenizer.model", "\xff\xff", 2);
    assert_int_equal(convert(in, &out, &err), MF_ERR_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pre_tokenizers),
        cmocka_unit_test(sentence_piece),
        cmocka_unit_test(tool_templates),
        cmocka_unit_test(refusals),
    };
    return mft_run(tests);
}
