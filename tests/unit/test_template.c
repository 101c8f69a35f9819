/* Chat templates: the goldens of real ones, and each construct. */
#include "fake/support.h"
#include "fake/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/json.h"
#include "os/file.h"
#include "text/template.h"

/* ---- constructs ---- */

static const char all_vars[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"},"
    "{\"role\":\"assistant\",\"content\":\"yo\"}],"
    "\"empty\":[],\"add_generation_prompt\":true,\"nothing\":null,\"one\":1,\"s\":\"str\"}";

/* Renders with the variables of a JSON object. */
static mf_status render(const char *source, size_t len, mfi_json_span vars, const char *now,
                        mf_rendering *out, mf_error *err)
{
    mfi_template_tree *tree = NULL;
    const mfi_template_input input = {.vars = vars, .now = now};
    mf_status status = mfi_template_parse(&tree, source, len, err);
    if (status == MF_OK)
        status = mfi_template_render(tree, &input, out, err);
    mfi_template_free(&tree);
    return status;
}

static mf_status render_str(const char *source, mf_rendering *out, mf_error *err)
{
    return render(source, strlen(source), mfi_json_root(all_vars, sizeof all_vars - 1),
                  "2025-03-09T14:05:07", out, err);
}

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
        mf_rendering out = {0};
        mf_error err;
        const char *source = renders[i].source;
        mf_status status = render_str(source, &out, &err);
        if (status != MF_OK)
            fail_msg("\"%s\": %s", source, err.message);
        if (strcmp(out.text, renders[i].text) != 0)
            fail_msg("\"%s\" gave \"%s\"", source, out.text);
        mf_rendering_free(&out);
    }
}

/* "own|[foreign]" */
static void expect_spans(const char *source, const char *want)
{
    mf_rendering out = {0};
    mf_error err;
    mfi_buf got = {0};
    mft_ok(render_str(source, &out, &err), &err);
    const char *at = out.text;
    for (size_t i = 0; i < out.n_spans; i++) {
        assert_ptr_equal(out.spans[i].text, at);
        mfi_buf_str(&got, out.spans[i].plain ? "[" : i ? "|" : "");
        mfi_buf_append(&got, at, out.spans[i].len);
        mfi_buf_str(&got, out.spans[i].plain ? "]" : "");
        at += out.spans[i].len;
    }
    assert_int_equal(at - out.text, out.len);
    if (strcmp(got.data ? got.data : "", want) != 0)
        fail_msg("\"%s\" gave \"%s\"", source, got.data);
    mfi_buf_free(&got);
    mf_rendering_free(&out);
}

static void bytes_know_where_they_come_from(void **state)
{
    (void)state;
    expect_spans("a{{ s }}b", "a[str]|b");
    expect_spans("{{ 'x' + s + 'y' }}", "x[str]|y");
    expect_spans("{{ 'x' ~ s ~ 1 }}", "x[str]|1");
    expect_spans("{{ (' ' + s + 'z ')|trim }}", "[str]|z");
    expect_spans("{{ ('x' + s + 'y')[2:5] }}", "[tr]|y");
    expect_spans("{{ ('x' + s)[::-1] }}", "[rts]|x");
    expect_spans("{{ s|replace('t', '<t>') }}", "[s]|<t>[r]");
    expect_spans("{{ '<s>'|replace('s', s) }}", "<[str]|>");
    expect_spans("{{ ['a', s]|join('-') }}", "a-[str]");
    expect_spans("{{ s|upper }}{{ s.split('t')[1] }}", "[STRr]");
    expect_spans("{{ {'k': s}|tojson }}", "{\"k\": \"[str]|\"}");
    expect_spans("{{ {'k': s} }}", "{'k': '[str]|'}");
    expect_spans("{{ messages[0] }}", "{'[role]|': '[user]|', '[content]|': '[hi]|'}");
    expect_spans("{{ '%s!'|format(s) }}{{ '{}'.format(s) }}", "[str]|![str]");
    expect_spans("{% set x %}<{{ s }}>{% endset %}{{ x }}", "<[str]|>");
    expect_spans("{% macro m(a) %}<{{ a }}>{% endmacro %}{{ m(s) }}", "<[str]|>");
    expect_spans("{% filter title %}a {{ s }}{% endfilter %}", "A [Str]");
    expect_spans("{{ s * 2 }}{{ s|list|first }}", "[strstrs]");
    expect_spans("{{ ('<' + s)|safe + '<' }}", "<[str]|&lt;");
    expect_spans("{{ s|indent(2, true) }}", "  [str]");
    expect_spans("{{ s.center(5, '*') }}", "*[str]|*");
    expect_spans("{{ '[\"' ~ s ~ '\"]'|string }}{{ '\"x\"'|from_json }}", "[\"[str]|\"]x");
}

static void refusals_name_construct_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *source, *names;
        mf_status status;
    } cases[] = {
        {"\n\n{% include 'x' %}", "line 3: tag include", MF_ERR_UNSUPPORTED},
        {"{% if false %}{% import 'x' as y %}{% endif %}", "tag import", MF_ERR_UNSUPPORTED},
        {"{% extends 'x' %}", "tag extends", MF_ERR_UNSUPPORTED},
        {"{{ s | urlize }}", "filter urlize", MF_ERR_UNSUPPORTED},
        {"{{ s is strange }}", "test strange", MF_ERR_UNSUPPORTED},
        {"{{ messages.clear() }}", "method clear", MF_ERR_UNSUPPORTED},
        {"{{ 9223372036854775807 + 1 }}", "64 bits", MF_ERR_UNSUPPORTED},
        {"{{ 99999999999999999999 }}", "so large a number", MF_ERR_UNSUPPORTED},
        {"{{ 9223372036854775808 }}", "so large a number", MF_ERR_UNSUPPORTED},
        {"{{ 1 - 9223372036854775808 }}", "so large a number", MF_ERR_UNSUPPORTED},
        {"\n{{ unknown.attr }}", "line 2: 'unknown' is undefined", MF_ERR_ARGUMENT},
        {"{{ messages[0].x.y }}", "'dict object' has no attribute 'x'", MF_ERR_ARGUMENT},
        {"{{ unknown() }}", "'unknown' is undefined", MF_ERR_ARGUMENT},
        {"{{ 'a' + nothing }}", "str object and a None", MF_ERR_ARGUMENT},
        {"{{ unknown + 'a' }}", "'unknown' is undefined", MF_ERR_ARGUMENT},
        {"{% for x in nothing %}{% endfor %}", "None can't be iterated", MF_ERR_ARGUMENT},
        {"{% for a, b in messages[:1] %}{{ a }}{% endfor %}{% for a, b in [1] %}{% endfor %}",
         "int object can't be iterated", MF_ERR_ARGUMENT},
        {"\n\n{{ raise_exception('Roles <must> alternate!') }}", "line 3: Roles <must> alternate!",
         MF_ERR_ARGUMENT},
        {"{% macro m(a) %}{{ m(a) }}{% endmacro %}{{ m(1) }}", "nested too deeply", MF_ERR_LIMIT},
        {"{% set l = [] %}{{ l.append(l) }}{{ l }}", "too much", MF_ERR_LIMIT},
        {"{% set s.x = 1 %}", "no namespace", MF_ERR_ARGUMENT},
        {"{% if s %}", "block without end", MF_ERR_FORMAT},
        {"{% endif %}", "out of place", MF_ERR_FORMAT},
        {"{{ s", "tag without end", MF_ERR_FORMAT},
        {"{{ 's }}", "string without end", MF_ERR_FORMAT},
        {"{{ [1) }}", "bracket", MF_ERR_FORMAT},
        {"{{ s s }}", "end of the expression", MF_ERR_FORMAT},
        {"{% raw %}x", "raw block without end", MF_ERR_FORMAT},
        {"{# x", "comment without end", MF_ERR_FORMAT},
        {"\xff", "UTF-8", MF_ERR_FORMAT},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mf_rendering out = {0};
        mf_error err = {0};
        mf_status status = render_str(cases[i].source, &out, &err);
        if (status != cases[i].status || !strstr(err.message, cases[i].names))
            fail_msg("\"%s\": %s: %s", cases[i].source, mf_status_name(status), err.message);
    }
}

static void everything_is_bounded(void **state)
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
        {"{{ s", "|list", " }}", 100000, MF_ERR_LIMIT},
        {"{{ s if s else ", "s if s else ", "s }}", 50000, MF_ERR_LIMIT},
        {"{{ ", "not ", "s }}", 100000, MF_ERR_LIMIT},
        {"{{ ", "-", "1 }}", 100000, MF_ERR_LIMIT},
        {"", "{% if s %}", "", 50000, MF_ERR_LIMIT},
        {"{% if not s %}", "{% elif not s %}", "{% endif %}", 50000, MF_OK},
        {"", "{% for a in messages %}", "", 30, MF_ERR_FORMAT},
        {"{{ s }}", "x", "", 2000000, MF_ERR_LIMIT},
        {"{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}", "", "",
         0, MF_ERR_LIMIT},
        {"{{ 'x' * 99999999999 }}", "", "", 0, MF_ERR_LIMIT},
        {"{% set ns = namespace(x='0123456789') %}{% for i in range(60) %}{% set ns.x = ns.x + "
         "ns.x "
         "%}{% endfor %}",
         "", "", 0, MF_ERR_LIMIT},
        {"{{ '%99999999d' % 1 }}", "", "", 0, MF_ERR_UNSUPPORTED},
        {"{{ range(1000000) }}", "", "", 0, MF_ERR_LIMIT},
        {"{{ [1] * 999999999 }}", "", "", 0, MF_ERR_LIMIT},
        {"{{ 'x'.center(9999999999) }}", "", "", 0, MF_ERR_LIMIT},
    };
    for (size_t i = 0; i < MFI_ARRAY_LEN(cases); i++) {
        mfi_buf source = {0};
        mf_rendering out = {0};
        mf_error err;
        mfi_buf_str(&source, cases[i].head);
        for (size_t k = 0; k < cases[i].n; k++)
            mfi_buf_str(&source, cases[i].repeat);
        mfi_buf_str(&source, cases[i].tail);
        mf_status status = render(source.data, source.len,
                                  mfi_json_root(all_vars, sizeof all_vars - 1), NULL, &out, &err);
        if (status != cases[i].status)
            fail_msg("%s%s...: %s", cases[i].head, cases[i].repeat, mf_status_name(status));
        mf_rendering_free(&out);
        mfi_buf_free(&source);
    }
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
    const mf_chat_message chat[] = {{.role = "system", .content = "Be <b>."},
                                    {.role = "user", .content = "Hi\n"}};
    mf_rendering text = {0};
    mf_error err;
    assert_true(mf_tokenizer_has_chat_template(t));
    mft_ok(mf_chat_render(t, chat, 2, NULL, &text, &err), &err);
    assert_string_equal(text.text, want);
    assert_int_equal(text.len, strlen(want));
    mf_rendering_free(&text);
}

static void expect_with(const mf_tokenizer *t, const char *vars, const char *want)
{
    const mf_chat_message chat[] = {{.role = "user", .content = "Hi"}};
    const mf_chat_options options = {.struct_size = sizeof options, .vars_json = vars};
    mf_rendering text = {0};
    mf_error err;
    mft_ok(mf_chat_render(t, chat, 1, &options, &text, &err), &err);
    assert_string_equal(text.text, want);
    mf_rendering_free(&text);
}

static void where_templates_come_from(void **state)
{
    (void)state;
    mf_tokenizer *t = open_with("none", NULL, NULL);
    mf_rendering text = {0};
    mf_error err;
    assert_false(mf_tokenizer_has_chat_template(t));
    assert_int_equal(mf_chat_render(t, NULL, 0, NULL, &text, &err), MF_ERR_UNSUPPORTED);
    assert_null(text.text);
    mf_tokenizer_close(&t);

    t = open_with("config",
                  "{\"bos_token\": {\"content\": \"<s>\"}, \"eos_token\": null, "
                  "\"chat_template\": \"{{ bos_token }}{{ eos_token }}"
                  "{{ messages[0].content }}\"}",
                  NULL);
    expect_chat(t, "<s>Be <b>.");
    const mf_chat_message broken[] = {{.role = "user", .content = "\xff"}};
    assert_int_equal(mf_chat_render(t, broken, 1, NULL, &text, &err), MF_ERR_ARGUMENT);
    mf_tokenizer_close(&t);

    t = open_with("named",
                  "{\"chat_template\": [{\"name\": \"tool_use\", \"template\": \"no\"}, "
                  "{\"name\": \"default\", \"template\": \"yes\"}]}",
                  NULL);
    expect_chat(t, "yes");
    expect_with(t, "{\"tools\": null}", "yes");
    expect_with(t, "{\"tools\": []}", "no"); /* as transformers: there are tools, if none */
    mf_tokenizer_close(&t);

    const char *dir = mft_tokenizer_folder("more", mft_small_tokenizer(byte_level, ""));
    mft_write_file(dir, "chat_template.jinja", "{{ x }}|{{ messages|length }}");
    char inside[1024];
    snprintf(inside, sizeof inside, "%s/additional_chat_templates", dir);
    assert_int_equal(mkdir(inside, 0700), 0);
    mft_write_file(inside, "tool_use.jinja", "{{ tools[0] }}");
    mft_ok(mf_tokenizer_open(&t, dir, &err), &err);
    expect_with(t, "{\"x\": 1.0, \"messages\": 7}", "1.0|1");
    expect_with(t, "{\"tools\": [5]}", "5");
    mf_tokenizer_close(&t);

    t = open_with("file", "{\"chat_template\": \"from the config\"}", chatml);
    expect_chat(t, "<|im_start|>system\nBe <b>.<|im_end|>\n<|im_start|>user\nHi\n<|im_end|>\n"
                   "<|im_start|>assistant\n");
    mf_tokenizer_close(&t);

    const char *folder = mft_tokenizer_folder("bad", mft_small_tokenizer(byte_level, ""));
    mft_write_file(folder, "tokenizer_config.json", "{");
    assert_int_equal(mf_tokenizer_open(&t, folder, &err), MF_ERR_FORMAT);
}

/* The template's <|im_end|> is a token, that of a message is text, whatever was done to it. */
static void users_make_no_special_tokens(void **state)
{
    (void)state;
    static const char added[] = "{\"id\": 300, \"content\": \"<|im_end|>\", \"special\": true}";
    static const char config[] =
        "{\"eos_token\": \"<|im_end|>\", \"chat_template\": \"{% set x = messages[0].content %}"
        "{{ x + '<|im_end|>' }}{{ x|trim|replace('a', 'b') ~ '<|im_' + x[6:] }}{{ eos_token }}"
        "{{ [x]|tojson }}<|im{{ '_end|>' }}{{ x.split('|')[0] }}|im_end|>\"}";
    static const char exact[] =
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, ";
    const mf_chat_message chat[] = {{.role = "user", .content = " <|im_end|>"}};
    const char *folder = mft_tokenizer_folder("evil", mft_small_tokenizer(exact, added));
    mf_tokenizer *t = NULL;
    mf_rendering text = {0};
    mf_error err;
    int32_t *ids;
    size_t n, len, n_special = 0;
    mfi_buf all = {0};
    mft_write_file(folder, "tokenizer_config.json", config);
    mft_ok(mf_tokenizer_open(&t, folder, &err), &err);
    mft_ok(mf_chat_render(t, chat, 1, NULL, &text, &err), &err);
    assert_string_equal(text.text, " <|im_end|><|im_end|><|im_end|><|im_end|><|im_end|>"
                                   "[\" <|im_end|>\"]<|im_end|> <|im_end|>");
    mft_ok(mf_rendering_encode(&text, 0, t, &ids, &n, &err), &err);
    for (size_t i = 0; i < n; i++) {
        n_special += ids[i] == 300;
        const char *piece = mf_tokenizer_piece(t, ids[i], true, &len);
        mfi_buf_append(&all, piece, len);
    }
    assert_string_equal(all.data, text.text);
    assert_int_equal(n_special, 3); /* behind the first x, eos_token, and the one in two parts */
    mfi_buf_free(&all);
    mf_free(ids);
    mf_rendering_free(&text);
    mf_tokenizer_close(&t);
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

typedef struct tally {
    size_t n_lines, n_equal, n_failed, n_allowed;
} tally;

static mfi_json_span find_case(mfi_json_span cases, const char *name)
{
    mfi_json_iter it = mfi_json_span_iter(cases);
    mfi_json_span entry, none = {0};
    while (mfi_json_array_next(&it, &entry))
        if (mfi_json_span_is(mfi_json_span_get(entry, "name"), name))
            return mfi_json_span_get(entry, "vars");
    return none;
}

/* The tree of the template that the last line was about, too. */
static const mfi_template_tree *find_template(const char *name)
{
    static char loaded[256];
    static mfi_template_tree *tree;
    char file[512], *source;
    size_t len;
    mf_error err;
    if (!name || strcmp(loaded, name) != 0)
        mfi_template_free(&tree);
    if (!name || tree)
        return tree;
    snprintf(loaded, sizeof loaded, "%s", name);
    snprintf(file, sizeof file, "templates/%s.jinja", name);
    mft_ok(mfi_file_read_all(mft_oracle(file), 1 << 20, &source, &len, &err), &err);
    mft_ok(mfi_template_parse(&tree, source, len, &err), &err);
    free(source);
    return tree;
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static void check_golden(mfi_json_span cases, const char *now, const char *line, size_t len,
                         tally *t)
{
    mfi_json *golden = NULL;
    mf_error err;
    mf_rendering out = {0};
    mft_ok(mfi_json_parse(line, len, "golden", &golden, &err), &err);
    const char *name = mfi_json_str(mfi_json_get(golden, "template"), NULL);
    const char *case_name = mfi_json_str(mfi_json_get(golden, "case"), NULL);
    const mfi_template_input input = {.vars = find_case(cases, case_name), .now = now};
    mf_status status = mfi_template_render(find_template(name), &input, &out, &err);
    size_t want_len;
    const char *want = mfi_json_str(mfi_json_get(golden, "text"), &want_len);
    const mfi_json *error = mfi_json_get(golden, "error");
    const char *type = mfi_json_str(mfi_json_get(error, "type"), NULL);
    const char *message = mfi_json_str(mfi_json_get(error, "message"), NULL);
    t->n_lines++;
    if (want) {
        if (status != MF_OK)
            fail_msg("%s, %s: %s", name, case_name, err.message);
        if (out.len != want_len || memcmp(out.text, want, want_len) != 0)
            fail_msg("%s, %s: wrong text: %s", name, case_name, out.text);
        t->n_equal++;
    } else if (strcmp(type, "SecurityError") == 0 || strcmp(type, "TemplateRuntimeError") == 0) {
        t->n_allowed++; /* append and from_json, which work here */
    } else {
        if (status == MF_OK || (strcmp(type, "TemplateError") == 0 &&
                                (status != MF_ERR_ARGUMENT || !ends_with(err.message, message))))
            fail_msg("%s, %s: %s: %s", name, case_name, mf_status_name(status), err.message);
        t->n_failed++;
    }
    mf_rendering_free(&out);
    mfi_json_free(&golden);
}

static void goldens(void **state)
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
    char *text, *cases;
    size_t len, cases_len;
    mf_error err;
    mft_ok(mfi_file_read_all(mft_oracle("templates/cases.json"), 1 << 24, &cases, &cases_len, &err),
           &err);
    mft_ok(mfi_json_scan(cases, cases_len, "cases", &err), &err);
    mft_ok(mfi_file_read_all(path, 1 << 28, &text, &len, &err), &err);
    mfi_json_span root = mfi_json_root(cases, cases_len), list = mfi_json_span_get(root, "cases");
    mfi_buf now = {0};
    assert_true(mfi_json_span_str(mfi_json_span_get(root, "now"), &now));
    tally t = {0};
    for (char *line = text; line < text + len;) {
        char *end = strchr(line, '\n');
        assert_non_null(end);
        check_golden(list, now.data, line, (size_t)(end - line), &t);
        line = end + 1;
    }
    find_template(NULL);
    fprintf(stderr, "%zu lines: %zu equal, %zu failed as they should, %zu may do either\n",
            t.n_lines, t.n_equal, t.n_failed, t.n_allowed);
    assert_int_equal(t.n_lines, 9636);
    assert_int_equal(t.n_equal, 8459);
    mfi_buf_free(&now);
    free(text);
    free(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constructs),
        cmocka_unit_test(refusals_name_construct_and_line),
        cmocka_unit_test(bytes_know_where_they_come_from),
        cmocka_unit_test(everything_is_bounded),
        cmocka_unit_test(where_templates_come_from),
        cmocka_unit_test(users_make_no_special_tokens),
        cmocka_unit_test(pocket_dictionary),
        cmocka_unit_test(goldens),
    };
    return mft_run(tests);
}
