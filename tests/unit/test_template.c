/* Chat templates: the goldens of real ones, and each construct. */
#include "fake/support.h"
#include "fake/text.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "os/file.h"
#include "text/template.h"

/* ---- constructs ---- */

static const mfi_value_pair user[] = {
    {"role", {.type = MFI_VALUE_STR, .str = "user", .n = 4}},
    {"content", {.type = MFI_VALUE_STR, .str = "hi", .n = 2}},
};
static const mfi_value_pair assistant[] = {
    {"role", {.type = MFI_VALUE_STR, .str = "assistant", .n = 9}},
    {"content", {.type = MFI_VALUE_STR, .str = "yo", .n = 2}},
};
static const mfi_value messages[] = {
    {.type = MFI_VALUE_MAP, .pairs = user, .n = 2},
    {.type = MFI_VALUE_MAP, .pairs = assistant, .n = 2},
};
static const mfi_value_pair vars[] = {
    {"messages", {.type = MFI_VALUE_LIST, .items = messages, .n = 2}},
    {"empty", {.type = MFI_VALUE_LIST}},
    {"add_generation_prompt", {.type = MFI_VALUE_BOOL, .boolean = true}},
    {"nothing", {.type = MFI_VALUE_NONE}},
    {"one", {.type = MFI_VALUE_INT, .integer = 1}},
    {"s", {.type = MFI_VALUE_STR, .str = "str", .n = 3}},
};
static const mfi_value all_vars = {.type = MFI_VALUE_MAP, .pairs = vars, .n = 6};

/* Expected texts are what jinja2 3.1.6 gives in the environment of the goldens. */
static const struct {
    const char *source, *text;
} renders[] = {
#include "data/template_renders.inc"
};

static void constructs(void **state)
{
    (void)state;
    for (size_t i = 0; i < MFI_ARRAY_LEN(renders); i++) {
        mfi_buf out = {0};
        mf_error err;
        const char *source = renders[i].source;
        mf_status status = mfi_template_render(source, strlen(source), &all_vars, &out, &err);
        if (status != MF_OK)
            fail_msg("\"%s\": %s", source, err.message);
        if (strcmp(out.data ? out.data : "", renders[i].text) != 0)
            fail_msg("\"%s\" gave \"%s\"", source, out.data ? out.data : "");
        mfi_buf_free(&out);
    }
}

static void refusals_name_construct_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *source, *names;
        mf_status status;
    } cases[] = {
        {"\n\n{% set x = 1 %}", "line 3: tag set", MF_ERR_UNSUPPORTED},
        {"{{ s | trim }}", "filter trim", MF_ERR_UNSUPPORTED},
        {"{% if false %}{{ s | trim }}{% endif %}", "filter trim", MF_ERR_UNSUPPORTED},
        {"{{ raise_exception('x') }}", "function raise_exception", MF_ERR_UNSUPPORTED},
        {"{{ s.strip() }}", "call of strip", MF_ERR_UNSUPPORTED},
        {"{{ s is defined }}", "test defined", MF_ERR_UNSUPPORTED},
        {"{{ s if one }}", "if", MF_ERR_UNSUPPORTED},
        {"{{ s in s }}", "in", MF_ERR_UNSUPPORTED},
        {"{{ one < 2 }}", "<", MF_ERR_UNSUPPORTED},
        {"{{ one % 2 }}", "%", MF_ERR_UNSUPPORTED},
        {"{{ messages[1:] }}", ":", MF_ERR_UNSUPPORTED},
        {"{{ [1] }}", "[", MF_ERR_UNSUPPORTED},
        {"{{ {'a': 1} }}", "{", MF_ERR_UNSUPPORTED},
        {"{{ 1.5 }}", "number", MF_ERR_UNSUPPORTED},
        {"{{ messages }}", "a list", MF_ERR_UNSUPPORTED},
        {"{{ messages[0].items }}", "method items", MF_ERR_UNSUPPORTED},
        {"{{ 'a' == 'b' == 'c' }}", "chained", MF_ERR_UNSUPPORTED},
        {"{% for a, b in messages %}{% endfor %}", "loop target", MF_ERR_UNSUPPORTED},
        {"{% for a in messages if a %}{% endfor %}", "if", MF_ERR_UNSUPPORTED},
        {"{% raw %}{% endraw %}", "tag raw", MF_ERR_UNSUPPORTED},
        {"{% macro m() %}{% endmacro %}", "tag macro", MF_ERR_UNSUPPORTED},
        {"{{ unknown.attr }}", "attribute of undefined", MF_ERR_ARGUMENT},
        {"{{ 'a' + nothing }}", "can't add none", MF_ERR_ARGUMENT},
        {"{{ unknown + 'a' }}", "can't add to undefined", MF_ERR_ARGUMENT},
        {"{% for x in nothing %}{% endfor %}", "can't loop over none", MF_ERR_ARGUMENT},
        {"{% if s %}", "block without end", MF_ERR_FORMAT},
        {"{% endif %}", "out of place", MF_ERR_FORMAT},
        {"{{ s", "tag without end", MF_ERR_FORMAT},
        {"{{ 's }}", "string without end", MF_ERR_FORMAT},
        {"{# x", "comment without end", MF_ERR_FORMAT},
        {"\xff", "UTF-8", MF_ERR_FORMAT},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mfi_buf out = {0};
        mf_error err = {0};
        const char *source = cases[i].source;
        mf_status status = mfi_template_render(source, strlen(source), &all_vars, &out, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].names))
            fail_msg("\"%s\": %s: %s", source, mf_status_name(status), err.message);
        mfi_buf_free(&out);
    }
}

static void deep_and_long_templates_are_bounded(void **state)
{
    (void)state;
    static const struct {
        const char *head, *repeat, *tail;
        size_t n;
        mf_status status;
    } cases[] = {
        {"{{ ", "(", "", 100000, MF_ERR_LIMIT},
        {"{{ s", ".a", " }}", 100000, MF_ERR_LIMIT},
        {"{{ s", "+s", " }}", 100000, MF_ERR_LIMIT},
        {"{{ ", "not ", "s }}", 100000, MF_ERR_LIMIT},
        {"", "{% if s %}", "", 50000, MF_ERR_LIMIT},
        {"{% if s %}", "{% elif s %}", "{% endif %}", 50000, MF_ERR_LIMIT},
        {"", "{% for a in messages %}", "", 30, MF_ERR_FORMAT},
        {"{{ s }}", "x", "", 2000000, MF_ERR_LIMIT},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mfi_buf source = {0}, out = {0};
        mf_error err;
        mfi_buf_str(&source, cases[i].head);
        for (size_t k = 0; k < cases[i].n; k++)
            mfi_buf_str(&source, cases[i].repeat);
        mfi_buf_str(&source, cases[i].tail);
        assert_int_equal(mfi_template_render(source.data, source.len, &all_vars, &out, &err),
                         cases[i].status);
        mfi_buf_free(&source);
        mfi_buf_free(&out);
    }
    mfi_buf loops = {0}, out = {0}; /* 2^30 rounds */
    mf_error err;
    for (int k = 0; k < 30; k++)
        mfi_buf_str(&loops, "{% for a in messages %}");
    for (int k = 0; k < 30; k++)
        mfi_buf_str(&loops, "{% endfor %}");
    assert_int_equal(mfi_template_render(loops.data, loops.len, &all_vars, &out, &err),
                     MF_ERR_LIMIT);
    mfi_buf_free(&loops);
    mfi_buf_free(&out);
}

/* ---- through the public interface ---- */

static const char *const byte_level = "\"pre_tokenizer\": {\"type\": \"ByteLevel\"}, ";
static const char *const chatml =
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + "
    "'<|im_end|>\\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- "
    "'<|im_start|>assistant\\n' }}{%- endif %}";

static mf_tokenizer *open_with(const char *name, const char *config, const char *jinja)
{
    mf_tokenizer *t = NULL;
    mf_error err;
    const char *folder = mft_tokenizer_folder(name, mft_small_tokenizer(byte_level, ""));
    if (config)
        mft_write_file(folder, "tokenizer_config.json", config);
    if (jinja)
        mft_write_file(folder, "chat_template.jinja", jinja);
    mft_ok(mf_tokenizer_open(&t, folder, &err), &err);
    return t;
}

static void expect_chat(const mf_tokenizer *t, const char *want)
{
    const mf_chat_message chat[] = {{"system", "Be <b>."}, {"user", "Hi\n"}};
    char *text;
    size_t len;
    mf_error err;
    assert_true(mf_tokenizer_has_chat_template(t));
    mft_ok(mf_chat_render(t, chat, 2, true, &text, &len, &err), &err);
    assert_string_equal(text, want);
    assert_int_equal(len, strlen(want));
    mf_free(text);
}

static void where_templates_come_from(void **state)
{
    (void)state;
    mf_tokenizer *t = open_with("none", NULL, NULL);
    char *text = NULL;
    size_t len;
    mf_error err;
    assert_false(mf_tokenizer_has_chat_template(t));
    assert_int_equal(mf_chat_render(t, NULL, 0, true, &text, &len, &err), MF_ERR_UNSUPPORTED);
    assert_null(text);
    mf_tokenizer_close(&t);

    t = open_with("config", "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": null, "
                            "\"chat_template\": \"{{ bos_token }}{{ eos_token }}"
                            "{{ messages[0].content }}\"}", NULL);
    expect_chat(t, "<s>Be <b>.");
    const mf_chat_message broken[] = {{"user", "\xff"}};
    assert_int_equal(mf_chat_render(t, broken, 1, true, &text, &len, &err), MF_ERR_ARGUMENT);
    mf_tokenizer_close(&t);

    t = open_with("named", "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"}, "
                           "{\"name\": \"default\", \"template\": \"yes\"}]}", NULL);
    expect_chat(t, "yes");
    mf_tokenizer_close(&t);

    t = open_with("file", "{\"chat_template\": \"from the config\"}", chatml);
    expect_chat(t, "<|im_start|>system\nBe <b>.<|im_end|>\n<|im_start|>user\nHi\n<|im_end|>\n"
                   "<|im_start|>assistant\n");
    mf_tokenizer_close(&t);

    const char *folder = mft_tokenizer_folder("bad", mft_small_tokenizer(byte_level, ""));
    mft_write_file(folder, "tokenizer_config.json", "{");
    assert_int_equal(mf_tokenizer_open(&t, folder, &err), MF_ERR_FORMAT);
}

static void pocket_dictionary(void **state)
{
    (void)state;
    const char *folder = mft_oracle("../models/pocket-dictionary");
    if (!folder) {
        mft_skip("no pocket-dictionary");
    }
    mf_tokenizer *t = NULL;
    mf_error err;
    mft_ok(mf_tokenizer_open(&t, folder, &err), &err);
    expect_chat(t, "<|im_start|>system\nBe <b>.<|im_end|>\n<|im_start|>user\nHi\n<|im_end|>\n"
                   "<|im_start|>assistant\n");
    mf_tokenizer_close(&t);
}

/* ---- the goldens ---- */

/* What a case's values own; freed together. */
typedef struct heap {
    void *blocks[8192];
    size_t n;
} heap;

static void *keep(heap *h, size_t bytes)
{
    assert_true(h->n < MFI_ARRAY_LEN(h->blocks));
    return h->blocks[h->n++] = calloc(1, bytes ? bytes : 1);
}

static mfi_value from_json(heap *h, const mfi_json *json)
{
    mfi_value v = {.type = MFI_VALUE_NONE, .n = mfi_json_len(json)};
    mfi_value *items;
    mfi_value_pair *pairs;
    switch (mfi_json_typeof(json)) {
    case MFI_JSON_NULL:
        break;
    case MFI_JSON_BOOL:
        v.type = MFI_VALUE_BOOL;
        mfi_json_bool(json, &v.boolean);
        break;
    case MFI_JSON_INT:
        v.type = mfi_json_i64(json, &v.integer) ? MFI_VALUE_INT : MFI_VALUE_OPAQUE;
        break;
    case MFI_JSON_FLOAT:
        v.type = MFI_VALUE_OPAQUE;
        break;
    case MFI_JSON_STRING:
        v.type = MFI_VALUE_STR;
        v.str = mfi_json_str(json, &v.n);
        break;
    case MFI_JSON_ARRAY:
        v.type = MFI_VALUE_LIST;
        v.items = items = keep(h, v.n * sizeof *items);
        for (size_t i = 0; i < v.n; i++)
            items[i] = from_json(h, mfi_json_at(json, i));
        break;
    case MFI_JSON_OBJECT:
        v.type = MFI_VALUE_MAP;
        v.pairs = pairs = keep(h, v.n * sizeof *pairs);
        for (size_t i = 0; i < v.n; i++)
            pairs[i].value = from_json(h, mfi_json_member(json, i, &pairs[i].key));
        break;
    }
    return v;
}

static const mfi_json *find_case(const mfi_json *cases, const char *name)
{
    for (size_t i = 0; i < mfi_json_len(cases); i++)
        if (strcmp(mfi_json_str(mfi_json_get(mfi_json_at(cases, i), "name"), NULL), name) == 0)
            return mfi_json_get(mfi_json_at(cases, i), "vars");
    return NULL;
}

typedef struct tally {
    size_t n_lines, n_equal, n_refused, n_failed;
} tally;

static void check_golden(const mfi_json *cases, const char *line, size_t len, tally *t)
{
    static char loaded[256], *source;
    static size_t source_len;
    static heap h;
    mfi_json *golden = NULL;
    mf_error err;
    mft_ok(mfi_json_parse(line, len, "golden", &golden, &err), &err);
    const char *name = mfi_json_str(mfi_json_get(golden, "template"), NULL);
    if (strcmp(loaded, name) != 0) {
        char file[512];
        snprintf(loaded, sizeof loaded, "%s", name);
        snprintf(file, sizeof file, "templates/%s.jinja", name);
        free(source);
        mft_ok(mfi_file_read_all(mft_oracle(file), 1 << 20, &source, &source_len, &err), &err);
    }
    const char *case_name = mfi_json_str(mfi_json_get(golden, "case"), NULL);
    mfi_value all = from_json(&h, find_case(cases, case_name));
    assert_int_equal(all.type, MFI_VALUE_MAP);
    mfi_buf out = {0};
    mf_status status = mfi_template_render(source, source_len, &all, &out, &err);
    size_t want_len;
    const char *want = mfi_json_str(mfi_json_get(golden, "text"), &want_len);
    t->n_lines++;
    if (status == MF_OK) {
        if (!want || out.len != want_len || (want_len && memcmp(out.data, want, want_len) != 0))
            fail_msg("%s, %s: wrong text: %s", name, case_name, out.data ? out.data : "");
        t->n_equal++;
    } else if (status == MF_ERR_UNSUPPORTED) {
        t->n_refused++;
    } else {
        if (want || status != MF_ERR_ARGUMENT)
            fail_msg("%s, %s: %s: %s", name, case_name, mf_status_name(status), err.message);
        t->n_failed++;
    }
    mfi_buf_free(&out);
    while (h.n)
        free(h.blocks[--h.n]);
    mfi_json_free(&golden);
    if (!line[len + 1]) { /* the last line */
        free(source);
        source = NULL;
        loaded[0] = 0;
    }
}

static void goldens_are_equal_or_refused(void **state)
{
    (void)state;
    const char *packed = mft_oracle("templates/golden.jsonl.xz");
    const char *cases_path = mft_oracle("templates/cases.json");
    if (!packed || !cases_path) {
        mft_skip("no oracle for templates");
    }
    const char *path = mft_unxz(packed, "golden.jsonl");
    if (!path) {
        mft_skip("xz is missing");
    }
    mfi_json *root = NULL;
    char *text;
    size_t len;
    mf_error err;
    mft_ok(mfi_json_parse_file(cases_path, 1 << 24, &root, &err), &err);
    mft_ok(mfi_file_read_all(path, 1 << 28, &text, &len, &err), &err);
    tally t = {0};
    for (char *line = text; line < text + len;) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        check_golden(mfi_json_get(root, "cases"), line, (size_t)(end - line), &t);
        line = end + 1;
    }
    fprintf(stderr, "%zu lines: %zu equal, %zu failed as they should, %zu refused\n", t.n_lines,
            t.n_equal, t.n_failed, t.n_refused);
    assert_int_equal(t.n_lines, 9636);
    assert_true(t.n_equal >= 100); /* Phi-3.5-mini */
    free(text);
    mfi_json_free(&root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constructs),
        cmocka_unit_test(refusals_name_construct_and_line),
        cmocka_unit_test(deep_and_long_templates_are_bounded),
        cmocka_unit_test(where_templates_come_from),
        cmocka_unit_test(pocket_dictionary),
        cmocka_unit_test(goldens_are_equal_or_refused),
    };
    return mft_run(tests);
}
