/* Answers against real chat templates: the turn of an assistant that a template wrote is taken
 * apart, which must give the calls, the text and the reasoning that the template was given; and
 * rendering what was taken apart gives the template's bytes again. */
#include "fake/support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "fake/text.h"
#include "os/file.h"
#include "text/template.h"

#define MAX_CALLS 8

/* head: how a turn begins where the template's generation prompt isn't a beginning of it; end: what
 * ends one. */
static const struct family {
    const char *name, *notation, *head, *end;
    uint32_t n_turns, n_back; /* of the goldens; and that must come back to the byte */
} families[] = {
    {"Qwen-Qwen3-0.6B", "hermes", NULL, "<|im_end|>", 38, 38},
    {"Qwen-Qwen2.5-7B-Instruct", "hermes", NULL, "<|im_end|>", 42, 42},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes", NULL, "<|im_end|>", 40, 40},
    {"Qwen3-Coder", "qwen3-coder", NULL, "<|im_end|>", 38, 38},
    {"Qwen3.5-4B", "qwen3-coder", "<|im_start|>assistant\n", "<|im_end|>", 36, 36},
    {"deepseek-ai-DeepSeek-V3.1", "deepseek-v3.1",
     "<\xef\xbd\x9c"
     "Assistant\xef\xbd\x9c>",
     "<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     39, 39},
    {"llama-cpp-deepseek-r1", "deepseek-v3",
     "<\xef\xbd\x9c"
     "Assistant\xef\xbd\x9c>",
     "<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     1, 1},
    {"GLM-4.6", "glm", NULL, "<|observation|>", 38, 37},
    {"openai-gpt-oss-120b", "harmony", NULL, "<|start|>functions", 41, 36},
    {"MiniMax-M2", "minimax-m2", "]~b]ai\n", "[e~[", 37, 37},
    {"moonshotai-Kimi-K2", "kimi-k2", NULL, "<|im_end|>", 41, 41},
    {"mistralai-Mistral-Nemo-Instruct-2407", "mistral-list", NULL, "</s>", 28, 28},
    {"Mistral-Small-3.2-24B-Instruct-2506", "mistral", NULL, "</s>", 31, 31},
    {"deepseek-ai-DeepSeek-V3.2", "deepseek-v3.2", "</think>",
     "<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     35, 35},
    {"deepseek-ai-DeepSeek-V4", "deepseek-v4",
     "<\xef\xbd\x9c"
     "Assistant\xef\xbd\x9c>",
     "<\xef\xbd\x9c"
     "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>",
     35, 35},
    {"ByteDance-Seed-OSS", "seed-oss", NULL, "<seed:eos>", 36, 34},
    {"unsloth-Apriel-1.5", "tool-calls", NULL, "\n<|end|>", 39, 39},
    {"NVIDIA-Nemotron-Nano-v2", "nemotron", "<SPECIAL_11>Assistant\n", "<SPECIAL_12>", 42, 42},
    {"meta-llama-Llama-3.1-8B-Instruct", "llama3", NULL, "<|eot_id|>", 38, 38},
    {"GigaChat3.1-10B-A1.8B", "gigachat", NULL, "<|message_sep|>", 42, 42},
    {"GLM-4.7-Flash", "glm", NULL, "<|observation|>", 5, 5},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "qwen3-coder", "<|im_start|>assistant\n", "<|im_end|>",
     38, 38},
    {"StepFun3.5-Flash", "qwen3-coder", "<|im_start|>assistant\n", "<|im_end|>", 38, 38},
    {"ibm-granite-granite-4.0", "hermes", NULL, "<|end_of_text|>", 42, 42},
    {"MiniMax-M1", "tool-calls", NULL, "<end_of_sentence>", 40, 40},
};

typedef struct parts {
    mfi_buf text, reasoning, name[MAX_CALLS], id[MAX_CALLS], args[MAX_CALLS];
    uint32_t n_calls;
} parts;

static void collect(void *user, mf_output_kind kind, uint32_t call, const char *bytes, size_t len)
{
    parts *p = user;
    assert_true(call < MAX_CALLS);
    switch (kind) {
    case MF_OUTPUT_TEXT:
    case MF_OUTPUT_CALL_BROKEN:
        mfi_buf_append(&p->text, bytes, len);
        break;
    case MF_OUTPUT_REASONING:
        mfi_buf_append(&p->reasoning, bytes, len);
        break;
    case MF_OUTPUT_CALL_NAME:
        mfi_buf_append(&p->name[call], bytes, len);
        break;
    case MF_OUTPUT_CALL_ID:
        mfi_buf_append(&p->id[call], bytes, len);
        break;
    case MF_OUTPUT_CALL_ARGUMENTS:
        mfi_buf_append(&p->args[call], bytes, len);
        break;
    case MF_OUTPUT_CALL_END:
        p->n_calls++;
        break;
    }
}

static void release(parts *p)
{
    mfi_buf_free(&p->text);
    mfi_buf_free(&p->reasoning);
    for (int i = 0; i < MAX_CALLS; i++) {
        mfi_buf_free(&p->name[i]);
        mfi_buf_free(&p->id[i]);
        mfi_buf_free(&p->args[i]);
    }
}

static parts take_apart(const struct family *f, bool reasoning, const char *text, size_t len)
{
    parts p = {0};
    mf_output *o = NULL;
    mf_error err;
    const mf_output_options options = {.struct_size = sizeof options,
                                       .notation = f->notation,
                                       .in_reasoning = reasoning,
                                       .on_part = collect,
                                       .user = &p};
    mft_ok(mf_output_open(&o, &options, &err), &err);
    assert_string_equal(mf_output_notation(o), f->notation);
    for (size_t i = 0; i < len; i += 7)
        mf_output_push(o, text + i, MFI_MIN((size_t)7, len - i));
    mft_ok(mf_output_end(o, &err), &err);
    mf_output_close(&o);
    return p;
}

/* ---- conversations ---- */

static void put_call(mfi_buf *out, mfi_json_span given, const parts *p, uint32_t i)
{
    mfi_json_span id = mfi_json_span_get(given, "id");
    mfi_buf_str(out, i ? ",{" : "{");
    if (p->id[i].len) {
        mfi_buf_str(out, "\"id\":");
        mfi_json_put_str(out, p->id[i].data, p->id[i].len);
        mfi_buf_str(out, ",");
    } else if (given.text && id.text) { /* not written in this notation */
        mfi_buf_fmt(out, "\"id\":%.*s,", (int)id.len, id.text);
    }
    mfi_buf_str(out, "\"type\":\"function\",\"function\":{\"name\":");
    mfi_json_put_str(out, p->name[i].data, p->name[i].len);
    mfi_buf_str(out, ",\"arguments\":");
    mfi_buf_append(out, p->args[i].data, p->args[i].len);
    mfi_buf_str(out, "}}");
}

static void put_answer(mfi_buf *out, mfi_json_span message, const parts *p)
{
    mfi_json_span calls = mfi_json_span_get(message, "tool_calls"), call = {0};
    mfi_json_iter it = mfi_json_span_iter(calls);
    mfi_buf_str(out, "{\"role\":\"assistant\",\"content\":");
    mfi_json_put_str(out, p->text.data ? p->text.data : "", p->text.len);
    if (p->reasoning.len) {
        mfi_buf_str(out, mfi_json_span_get(message, "thinking").text ? ",\"thinking\":"
                                                                     : ",\"reasoning_content\":");
        mfi_json_put_str(out, p->reasoning.data, p->reasoning.len);
    }
    mfi_buf_str(out, p->n_calls ? ",\"tool_calls\":[" : "");
    for (uint32_t i = 0; i < p->n_calls; i++) {
        if (!mfi_json_array_next(&it, &call))
            call = (mfi_json_span){0};
        put_call(out, call, p, i);
    }
    mfi_buf_str(out, p->n_calls ? "]}" : "}");
}

/* The case's variables: with only the messages before number n and a generation prompt, or with
 * message n replaced. */
static mfi_buf variables(mfi_json_span vars, size_t n, const parts *p)
{
    mfi_buf out = {0};
    mfi_json_iter it = mfi_json_span_iter(vars), list;
    mfi_json_span key, value, m;
    const char *comma = "{";
    while (mfi_json_object_next(&it, &key, &value)) {
        if (!p && mfi_json_span_is(key, "add_generation_prompt"))
            continue;
        mfi_buf_fmt(&out, "%s%.*s:", comma, (int)key.len, key.text);
        comma = ",";
        if (!mfi_json_span_is(key, "messages")) {
            mfi_buf_append(&out, value.text, value.len);
            continue;
        }
        list = mfi_json_span_iter(value);
        mfi_buf_str(&out, "[");
        for (size_t i = 0; mfi_json_array_next(&list, &m) && (p || i < n); i++) {
            mfi_buf_str(&out, i ? "," : "");
            if (p && i == n)
                put_answer(&out, m, p);
            else
                mfi_buf_append(&out, m.text, m.len);
        }
        mfi_buf_str(&out, "]");
    }
    mfi_buf_str(&out, p ? "}" : ",\"add_generation_prompt\":true}");
    return out;
}

static mf_status render(const mfi_template_tree *tree, const mfi_buf *vars, const char *now,
                        mf_rendering *out)
{
    mf_error err;
    mft_ok(mfi_json_scan(vars->data, vars->len, "variables", &err), &err);
    const mfi_template_input input = {.vars = mfi_json_root(vars->data, vars->len), .now = now};
    return mfi_template_render(tree, &input, out, &err);
}

/* ---- what must be equal ---- */

typedef struct tally {
    uint32_t n_turns, n_equal, n_back, n_listed;
} tally;

#define TEXT       "arguments given as a text are written as a JSON string, which is no call"
#define NO_CONTENT "the template leaves out what a message says beside its calls"
#define TYPES      "values stand without quotes, or in Python's form: their types can't be told"
#define NO_END     "an unknown role follows, so that nothing ends the turn"

/* Turns whose parts aren't what the template was given, or that render to other bytes. */
static const struct {
    const char *family, *name, *why;
} differences[] = {
    {NULL, "call_args_json_string", TEXT},
    {NULL, "call_args_json_string_dumped", TEXT},
    {NULL, "call_args_invalid_string", TEXT},
    {NULL, "call_args_empty_string", TEXT},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "call_with_text", NO_CONTENT},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "call_parallel_then_answer", NO_CONTENT},
    {"NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "all_in_one", NO_CONTENT},
    {"openai-gpt-oss-120b", "call_with_text", NO_CONTENT},
    {"openai-gpt-oss-120b", "all_in_one", NO_CONTENT},
    {"openai-gpt-oss-120b", "call_parallel", "only the first call is written"},
    {"openai-gpt-oss-120b", "call_parallel_then_answer", "only the first call is written"},
    {"openai-gpt-oss-120b", "ipython_role", NO_END},
    {"GLM-4.6", "ipython_role", NO_END},
    {"GLM-4.6", "call_null_content", "no content is written as None"},
    {"MiniMax-M2", "call_null_content", "no content is written as None"},
    {"Qwen3-Coder", "call_args_strings", TYPES},
    {"Qwen3-Coder", "call_args_numbers", TYPES},
    {"Qwen3-Coder", "call_args_nested_null", TYPES},
    {"Qwen3-Coder", "all_in_one", TYPES},
    {"Qwen3.5-4B", "call_args_strings", TYPES},
    {"Qwen3.5-4B", "call_args_numbers", TYPES},
    {"Qwen3.5-4B", "call_args_nested_null", TYPES},
    {"Qwen3.5-4B", "all_in_one", TYPES},
    {"GLM-4.6", "call_args_strings", TYPES},
    {"GLM-4.6", "all_in_one", TYPES},
    {"MiniMax-M2", "call_args_strings", TYPES},
    {"MiniMax-M2", "all_in_one", TYPES},
    {"ByteDance-Seed-OSS", "call_args_strings", TYPES},
    {"ByteDance-Seed-OSS", "call_args_numbers", TYPES},
    {"ByteDance-Seed-OSS", "call_args_nested_null", TYPES},
    {"ByteDance-Seed-OSS", "all_in_one", TYPES},
    {"GLM-4.7-Flash", "all_in_one", TYPES},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "call_args_strings", TYPES},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "call_args_numbers", TYPES},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "call_args_nested_null", TYPES},
    {"NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "all_in_one", TYPES},
    {"StepFun3.5-Flash", "call_args_strings", TYPES},
    {"StepFun3.5-Flash", "call_args_numbers", TYPES},
    {"StepFun3.5-Flash", "call_args_nested_null", TYPES},
    {"StepFun3.5-Flash", "all_in_one", TYPES},
    {"MiniMax-M1", "call_with_text", NO_CONTENT},
    {"MiniMax-M1", "call_parallel_then_answer", NO_CONTENT},
    {"MiniMax-M1", "all_in_one", NO_CONTENT},
    {"meta-llama-Llama-3.1-8B-Instruct", "call_with_text", NO_CONTENT},
    {"GigaChat3.1-10B-A1.8B", "call_parallel", "only the first call is written"},
    {"GigaChat3.1-10B-A1.8B", "call_parallel_then_answer", "only the first call is written"},
    {"GigaChat3.1-10B-A1.8B", "all_in_one", "only the first call is written"},
};

static bool is_listed(const char *family, const char *name)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(differences); i++)
        if (differences[i].name && strcmp(differences[i].name, name) == 0 &&
            (!differences[i].family || strcmp(differences[i].family, family) == 0))
            return true;
    return false;
}

static void canonical(mfi_json_span v, mfi_buf *out)
{
    mfi_json *tree = NULL;
    mf_error err;
    mft_ok(mfi_json_span_parse(v, &tree, &err), &err);
    mfi_json_put(out, tree);
    mfi_json_free(&tree);
}

static bool same_text(mfi_json_span given, const mfi_buf *got)
{
    mfi_buf want = {0};
    if (given.text)
        mfi_json_span_str(given, &want);
    size_t from = 0, end = want.len; /* templates trim */
    while (from < end && strchr(" \t\r\n", want.data[from]))
        from++;
    while (end > from && strchr(" \t\r\n", want.data[end - 1]))
        end--;
    bool same =
        end - from == got->len && (!got->len || memcmp(want.data + from, got->data, got->len) == 0);
    mfi_buf_free(&want);
    return same;
}

static bool same_call(mfi_json_span given, const parts *p, uint32_t i)
{
    mfi_json_span f = mfi_json_span_get(given, "function");
    mfi_json_span args = mfi_json_span_get(f.text ? f : given, "arguments");
    mfi_buf want = {0}, got = {0}, name = {0};
    mfi_json_span_str(mfi_json_span_get(f.text ? f : given, "name"), &name);
    bool same = args.text && mfi_json_span_type(args) == MFI_JSON_OBJECT;
    if (same) {
        canonical(args, &want);
        canonical((mfi_json_span){p->args[i].data, p->args[i].len}, &got);
        same = want.len == got.len && memcmp(want.data, got.data, got.len) == 0 &&
               name.len == p->name[i].len && memcmp(name.data, p->name[i].data, name.len) == 0;
    }
    mfi_buf_free(&want);
    mfi_buf_free(&got);
    mfi_buf_free(&name);
    return same;
}

static bool same_parts(mfi_json_span message, const parts *p)
{
    mfi_json_iter it = mfi_json_span_iter(mfi_json_span_get(message, "tool_calls"));
    mfi_json_span call;
    uint32_t n = 0;
    for (; mfi_json_array_next(&it, &call); n++)
        if (n >= p->n_calls || !same_call(call, p, n))
            return false;
    return n == p->n_calls && same_text(mfi_json_span_get(message, "content"), &p->text);
}

static bool ends_with(const char *text, size_t len, const char *end)
{
    return len >= strlen(end) && memcmp(text + len - strlen(end), end, strlen(end)) == 0;
}

static void check_turn(const struct family *f, const mfi_template_tree *tree, const char *name,
                       mfi_json_span vars, const char *now, mfi_json_span message, size_t n,
                       const char *golden, size_t len, tally *t)
{
    mfi_buf before = variables(vars, n, NULL);
    mf_rendering prompt = {0}, again = {0};
    assert_int_equal(render(tree, &before, now, &prompt), MF_OK);
    size_t from = prompt.len;
    if (f->head && !(from <= len && memcmp(golden, prompt.text, from) == 0)) {
        const char *head = memmem(golden, len, f->head, strlen(f->head)), *next = head;
        while (next && (size_t)(next - golden) < from) {
            head = next;
            next = memmem(head + 1, len - (size_t)(head + 1 - golden), f->head, strlen(f->head));
        }
        from = head ? (size_t)(head - golden) + strlen(f->head) : len;
    }
    mfi_buf_free(&before);
    if (from >= len || (!f->head && memcmp(golden, prompt.text, from) != 0)) {
        mf_rendering_free(&prompt);
        return;
    }
    size_t back = from;
    while (back && strchr("\n", golden[back - 1]))
        back--;
    bool reasoning = ends_with(golden, back, "<think>");
    const char *end = memmem(golden + from, len - from, f->end, strlen(f->end));
    parts p = take_apart(f, reasoning, golden + from, (end ? (size_t)(end - golden) : len) - from);
    mfi_buf after = variables(vars, n, &p);
    bool equal = same_parts(message, &p);
    bool same = render(tree, &after, now, &again) == MF_OK && again.len == len &&
                memcmp(again.text, golden, len) == 0;
    t->n_turns++;
    t->n_equal += equal;
    t->n_back += same;
    if (!equal || !same) {
        if (is_listed(f->name, name))
            t->n_listed++;
        else
            fail_msg("%s, %s, message %zu: %s%s: %.*s", f->name, name, n,
                     equal ? "" : "other parts ", same ? "" : "other bytes",
                     (int)((end ? (size_t)(end - golden) : len) - from), golden + from);
    }
    mfi_buf_free(&after);
    mf_rendering_free(&again);
    mf_rendering_free(&prompt);
    release(&p);
}

static void check_line(const struct family *f, const mfi_template_tree *tree, mfi_json_span cases,
                       const char *now, mfi_json_span line, tally *t)
{
    mfi_json_iter it = mfi_json_span_iter(cases), messages;
    mfi_json_span one, text = mfi_json_span_get(line, "text"), message;
    mfi_json_span name = mfi_json_span_get(line, "case");
    mfi_buf golden = {0}, wanted = {0};
    if (!text.text)
        return; /* the template refuses it */
    mfi_json_span_str(name, &wanted);
    mfi_json_span_str(text, &golden);
    while (mfi_json_array_next(&it, &one)) {
        mfi_json_span vars = mfi_json_span_get(one, "vars");
        mfi_json_span list = mfi_json_span_get(vars, "messages");
        if (!mfi_json_span_is(mfi_json_span_get(one, "name"), wanted.data) || !list.text ||
            mfi_json_span_type(list) != MFI_JSON_ARRAY)
            continue;
        messages = mfi_json_span_iter(list);
        for (size_t n = 0; mfi_json_array_next(&messages, &message); n++) {
            mfi_json_span calls = {0};
            if (mfi_json_span_type(message) == MFI_JSON_OBJECT)
                calls = mfi_json_span_get(message, "tool_calls");
            if (calls.text && calls.len > 2 && mfi_json_span_type(calls) == MFI_JSON_ARRAY)
                check_turn(f, tree, wanted.data, vars, now, message, n, golden.data, golden.len, t);
        }
    }
    mfi_buf_free(&golden);
    mfi_buf_free(&wanted);
}

static void check_family(const struct family *f, mfi_json_span root, const char *now,
                         const char *lines, size_t len)
{
    char file[256], *source;
    size_t source_len;
    mf_error err;
    tally t = {0};
    mfi_template_tree *tree = NULL;
    snprintf(file, sizeof file, "templates/%s.jinja", f->name);
    mft_ok(mfi_file_read_all(mft_oracle(file), 1 << 20, &source, &source_len, &err), &err);
    mft_ok(mfi_template_parse(&tree, source, source_len, &err), &err);
    snprintf(file, sizeof file, "{\"template\": \"%s\",", f->name);
    for (const char *line = lines; line < lines + len;) {
        const char *end = strchr(line, '\n');
        assert_non_null(end);
        if (strncmp(line, file, strlen(file)) == 0) {
            mft_ok(mfi_json_scan(line, (size_t)(end - line), "golden", &err), &err);
            check_line(f, tree, mfi_json_span_get(root, "cases"), now,
                       mfi_json_root(line, (size_t)(end - line)), &t);
        }
        line = end + 1;
    }
    print_message("%s: %u turns, %u equal, %u give the same bytes, %u listed\n", f->name, t.n_turns,
                  t.n_equal, t.n_back, t.n_listed);
    assert_true(t.n_turns == f->n_turns && t.n_back >= f->n_back);
    mfi_template_free(&tree);
    free(source);
}

static void turns_of_templates(void **state)
{
    (void)state;
    const char *packed = mft_oracle("templates/golden.jsonl.xz");
    if (!packed || !mft_oracle("templates/cases.json"))
        mft_skip("no oracle for templates");
    const char *path = mft_unxz(packed, "output-golden.jsonl");
    if (!path)
        mft_skip("xz is missing");
    char *lines, *cases;
    size_t len, cases_len;
    mf_error err;
    mfi_buf now = {0};
    mft_ok(mfi_file_read_all(mft_oracle("templates/cases.json"), 1 << 24, &cases, &cases_len, &err),
           &err);
    mft_ok(mfi_json_scan(cases, cases_len, "cases", &err), &err);
    mft_ok(mfi_file_read_all(path, 1 << 28, &lines, &len, &err), &err);
    mfi_json_span root = mfi_json_root(cases, cases_len);
    mfi_json_span_str(mfi_json_span_get(root, "now"), &now);
    for (size_t i = 0; i < MFI_ARRAY_LEN(families); i++)
        check_family(&families[i], root, now.data, lines, len);
    mfi_buf_free(&now);
    free(lines);
    free(cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(turns_of_templates)};
    return mft_run(tests);
}
