/* Reading tool calls in the notations of the families; see output_int.h. Called by output.c with
 * what stood between the brackets. Everything must be as the notation has it: what isn't is no
 * call. Arguments that a notation writes key by key become JSON: a value that is a JSON value other
 * than a string is taken as it is, all else is a string. */
#include <stdlib.h>
#include <string.h>

#include "text/output_int.h"
#include "base/room.h"

typedef struct reader {
    const char *p, *end;
    mfi_call_list *list;
} reader;

mfi_call_text *mfi_call_add(mfi_call_list *list)
{
    if (!MFI_ROOM(list->calls, list->n, list->cap, 4)) {
        list->failed = true;
        return NULL;
    }
    list->calls[list->n] = (mfi_call_text){{0}, {0}, {0}};
    return &list->calls[list->n++];
}

void mfi_call_list_free(mfi_call_list *list)
{
    for (size_t i = 0; i < list->n; i++) {
        mfi_buf_free(&list->calls[i].name);
        mfi_buf_free(&list->calls[i].id);
        mfi_buf_free(&list->calls[i].arguments);
    }
    free(list->calls);
    *list = (mfi_call_list){0};
}

/* ---- reading ---- */

static void skip_space(reader *r)
{
    while (r->p < r->end && strchr(" \t\r\n", *r->p) && *r->p)
        r->p++;
}

static bool skip(reader *r, const char *text)
{
    size_t len = strlen(text);
    if ((size_t)(r->end - r->p) < len || memcmp(r->p, text, len) != 0)
        return false;
    r->p += len;
    return true;
}

/* Takes all up to the text, and the text; false if it doesn't come. */
static bool take_to(reader *r, const char *text, const char **from, size_t *len)
{
    const char *at = memmem(r->p, (size_t)(r->end - r->p), text, strlen(text));
    if (!at)
        return false;
    *from = r->p;
    *len = (size_t)(at - r->p);
    r->p = at + strlen(text);
    return true;
}

static void trim(const char **from, size_t *len)
{
    while (*len && strchr(" \t\r\n", **from) && **from)
        (*from)++, (*len)--;
    while (*len && strchr(" \t\r\n", (*from)[*len - 1]) && (*from)[*len - 1])
        (*len)--;
}

static bool is_name(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] <= ' ' || strchr("<>\"{}", name[i]))
            return false;
    return len > 0;
}

static bool is_object(const char *text, size_t len)
{
    return mfi_json_scan(text, len, "", NULL) == MF_OK &&
           mfi_json_span_type(mfi_json_root(text, len)) == MFI_JSON_OBJECT;
}

/* A call whose arguments are a JSON object already; empty ones are an object without members. */
bool mfi_call_put(mfi_call_list *list, const char *name, size_t name_len, const char *args,
                  size_t args_len)
{
    trim(&name, &name_len);
    trim(&args, &args_len);
    if (!is_name(name, name_len) || !is_object(args, args_len))
        return false;
    mfi_call_text *call = mfi_call_add(list);
    if (!call)
        return false;
    mfi_buf_append(&call->name, name, name_len);
    mfi_buf_append(&call->arguments, args, args_len);
    return true;
}

static bool put(reader *r, const char *name, size_t name_len, const char *args, size_t args_len)
{
    return mfi_call_put(r->list, name, name_len, args, args_len);
}

/* ---- JSON: {"name": ..., "arguments": {...}, "id": ...} ---- */

static bool read_object(reader *r, mfi_json_span v)
{
    mfi_buf name = {0};
    if (mfi_json_span_type(v) != MFI_JSON_OBJECT)
        return false;
    mfi_json_span key = mfi_json_span_get(v, "name"), id = mfi_json_span_get(v, "id");
    mfi_json_span args = mfi_json_span_get(v, "arguments");
    if (!args.text)
        args = mfi_json_span_get(v, "parameters");
    bool ok = key.text && args.text && mfi_json_span_str(key, &name) && name.data &&
              put(r, name.data, name.len, args.text, args.len);
    if (ok && id.text)
        mfi_json_span_str(id, &r->list->calls[r->list->n - 1].id);
    mfi_buf_free(&name);
    return ok;
}

static bool read_json(reader *r)
{
    const char *from = r->p;
    size_t len = (size_t)(r->end - r->p);
    trim(&from, &len);
    r->p = r->end;
    return mfi_json_scan(from, len, "", NULL) == MF_OK && read_object(r, mfi_json_root(from, len));
}

static bool read_json_list(reader *r)
{
    const char *from = r->p;
    size_t len = (size_t)(r->end - r->p);
    mfi_json_span one;
    trim(&from, &len);
    r->p = r->end;
    if (mfi_json_scan(from, len, "", NULL) != MF_OK ||
        mfi_json_span_type(mfi_json_root(from, len)) != MFI_JSON_ARRAY)
        return false;
    mfi_json_iter it = mfi_json_span_iter(mfi_json_root(from, len));
    while (mfi_json_array_next(&it, &one))
        if (!read_object(r, one))
            return false;
    return r->list->n > 0;
}

/* The end of the object at p, or NULL. */
static const char *end_of_object(const char *p, const char *end)
{
    size_t depth = 0;
    bool in_string = false;
    for (; p < end; p++) {
        if (in_string && *p == '\\' && p + 1 < end)
            p++;
        else if (*p == '"')
            in_string = !in_string;
        else if (!in_string && *p == '{')
            depth++;
        else if (!in_string && *p == '}' && --depth == 0)
            return p + 1;
    }
    return NULL;
}

/* Objects one behind the other; `between` may stand between them. */
static bool read_json_row(reader *r, const char *between)
{
    for (;;) {
        skip_space(r);
        const char *end = r->p < r->end && *r->p == '{' ? end_of_object(r->p, r->end) : NULL;
        if (!end || mfi_json_scan(r->p, (size_t)(end - r->p), "", NULL) != MF_OK ||
            !read_object(r, mfi_json_root(r->p, (size_t)(end - r->p))))
            return false;
        r->p = end;
        skip_space(r);
        if (r->p == r->end)
            return true;
        skip(r, between);
    }
}

bool mfi_notation_is_list(mfi_notation notation)
{
    return notation == MFI_NOTATION_MISTRAL_LIST || notation == MFI_NOTATION_GRANITE3 ||
           notation == MFI_NOTATION_LIST || notation == MFI_NOTATION_NEMOTRON;
}

/* ---- key by key ---- */

void mfi_pair_put_value(mfi_buf *out, mfi_pair_type type, const char *text, size_t len)
{
    const char *json = text;
    size_t n = len;
    trim(&json, &n);
    bool may_be = type == MFI_PAIR_JSON || /* else white space around it would be lost */
                  (type == MFI_PAIR_ANY && n == len && len && strchr("{[-0123456789tfn", *text));
    if (may_be && mfi_json_scan(json, n, "", NULL) == MF_OK)
        mfi_buf_append(out, json, n);
    else
        mfi_json_put_str(out, text, len);
}

#define DSML_PAIRS                                                                                 \
    .open = "<" MFI_DSML "parameter name=\"", .after_key = "\" string=\"", .before_value = "",     \
    .close = "</" MFI_DSML "parameter>", .head = "<" MFI_DSML "invoke name=\"", .head_end = "\">", \
    .tail = "</" MFI_DSML "invoke>", .typed = true

static const mfi_pair_form pair_forms[MFI_N_NOTATIONS] = {
    [MFI_NOTATION_QWEN_CODER] = {.open = "<parameter=",
                                 .after_key = ">",
                                 .before_value = "",
                                 .close = "</parameter>",
                                 .newlines = true,
                                 .head_end = ">",
                                 .tail = "</function>"},
    [MFI_NOTATION_SEED] = {.open = "<parameter=",
                           .after_key = ">",
                           .before_value = "",
                           .close = "</parameter>",
                           .head_end = ">",
                           .tail = "</function>"},
    [MFI_NOTATION_GLM] = {.open = "<arg_key>",
                          .after_key = "</arg_key>",
                          .before_value = "<arg_value>",
                          .close = "</arg_value>",
                          .head_end = "<"},
    [MFI_NOTATION_MINIMAX] = {.open = "<parameter name=\"",
                              .after_key = "\">",
                              .before_value = "",
                              .close = "</parameter>",
                              .head = "<invoke name=\"",
                              .head_end = "\">",
                              .tail = "</invoke>"},
    [MFI_NOTATION_DEEPSEEK_V32] = {DSML_PAIRS},
    [MFI_NOTATION_DEEPSEEK_V4] = {DSML_PAIRS},
};

const mfi_pair_form *mfi_pair_form_of(mfi_notation notation)
{
    return pair_forms[notation].open ? &pair_forms[notation] : NULL;
}

static bool read_pairs(reader *r, const mfi_pair_form *form, mfi_buf *args)
{
    bool first = true;
    mfi_buf_str(args, "{");
    for (;; first = false) {
        const char *key, *value;
        size_t key_len, len;
        skip_space(r);
        if (!skip(r, form->open))
            break;
        if (!take_to(r, form->after_key, &key, &key_len) || !key_len)
            return false;
        if (*form->before_value)
            skip_space(r);
        mfi_pair_type type = !form->typed                    ? MFI_PAIR_ANY
                             : skip(r, MFI_PAIR_TYPE_STRING) ? MFI_PAIR_STRING
                             : skip(r, MFI_PAIR_TYPE_JSON)   ? MFI_PAIR_JSON
                                                             : MFI_PAIR_ANY;
        if (form->typed && type == MFI_PAIR_ANY)
            return false;
        if (!skip(r, form->before_value) || !take_to(r, form->close, &value, &len))
            return false;
        if (form->newlines && len && *value == '\n')
            value++, len--;
        if (form->newlines && len && value[len - 1] == '\n')
            len--;
        mfi_buf_str(args, first ? "" : ", ");
        mfi_json_put_str(args, key, key_len);
        mfi_buf_str(args, ": ");
        mfi_pair_put_value(args, type, value, len);
    }
    mfi_buf_str(args, "}");
    return !args->failed;
}

static bool read_paired_call(reader *r, const char *name, size_t len, const mfi_pair_form *form)
{
    mfi_buf args = {0};
    bool ok = read_pairs(r, form, &args) && put(r, name, len, args.data, args.len);
    mfi_buf_free(&args);
    return ok;
}

static bool read_qwen_coder(reader *r, const mfi_pair_form *form)
{
    const char *name;
    size_t len;
    skip_space(r);
    return skip(r, "<function=") && take_to(r, ">", &name, &len) &&
           read_paired_call(r, name, len, form) && skip(r, "</function>");
}

static bool read_glm(reader *r)
{
    const char *name = r->p;
    while (r->p < r->end && *r->p != '<')
        r->p++;
    return read_paired_call(r, name, (size_t)(r->p - name), mfi_pair_form_of(MFI_NOTATION_GLM));
}

/* Several in their brackets. */
static bool read_invocations(reader *r, const mfi_pair_form *form)
{
    do {
        const char *name;
        size_t len;
        skip_space(r);
        if (!skip(r, form->head) || !take_to(r, form->head_end, &name, &len) ||
            !read_paired_call(r, name, len, form) || !skip(r, form->tail))
            return false;
        skip_space(r);
    } while (r->p < r->end);
    return true;
}

/* ---- between markers ---- */

static bool read_deepseek(reader *r, bool v3)
{
    do {
        const char *head, *args;
        size_t head_len, len;
        skip_space(r);
        if (!skip(r, MFI_DS_CALL_BEGIN) || !take_to(r, MFI_DS_SEP, &head, &head_len))
            return false;
        if (v3 && (!take_to(r, "\n```json\n", &head, &head_len) ||
                   !take_to(r, "\n```" MFI_DS_CALL_END, &args, &len)))
            return false;
        if (!v3 && !take_to(r, MFI_DS_CALL_END, &args, &len))
            return false;
        if (!put(r, head, head_len, args, len))
            return false;
        skip_space(r);
    } while (r->p < r->end);
    return true;
}

/* functions.NAME:0 */
static bool read_kimi_call(reader *r)
{
    const char *id, *args;
    size_t id_len, len;
    if (!skip(r, "<|tool_call_begin|>") ||
        !take_to(r, "<|tool_call_argument_begin|>", &id, &id_len) ||
        !take_to(r, "<|tool_call_end|>", &args, &len))
        return false;
    trim(&id, &id_len);
    size_t colon = id_len; /* behind the last one */
    while (colon > 0 && id[colon - 1] != ':')
        colon--;
    if (colon == 0 || id_len < 10 || memcmp(id, "functions.", 10) != 0 ||
        !put(r, id + 10, colon <= 10 ? 0 : colon - 11, args, len))
        return false;
    mfi_buf_append(&r->list->calls[r->list->n - 1].id, id, id_len);
    return true;
}

static bool read_kimi(reader *r)
{
    do {
        skip_space(r);
        if (!read_kimi_call(r))
            return false;
        skip_space(r);
    } while (r->p < r->end);
    return true;
}

static bool read_mistral(reader *r)
{
    static const char next[] = "[TOOL_CALLS]";
    for (;;) {
        const char *name, *id = "", *args;
        size_t name_len, id_len = 0, len;
        if (!take_to(r, "[ARGS]", &name, &name_len))
            return false;
        const char *mark = memmem(name, name_len, "[CALL_ID]", 9);
        if (mark) {
            id = mark + 9;
            id_len = (size_t)(name + name_len - id);
            name_len = (size_t)(mark - name);
        }
        bool more = take_to(r, next, &args, &len);
        if (!more) {
            args = r->p;
            len = (size_t)(r->end - r->p);
        }
        if (!put(r, name, name_len, args, len))
            return false;
        mfi_buf_append(&r->list->calls[r->list->n - 1].id, id, id_len);
        if (!more) {
            r->p = r->end;
            return true;
        }
    }
}

bool mfi_calls_read(mfi_notation notation, const char *body, size_t len, mfi_call_list *list)
{
    reader r = {body, body + len, list};
    bool ok = false;
    switch (notation) {
    case MFI_NOTATION_HERMES:
    case MFI_NOTATION_GIGACHAT:
        ok = read_json(&r);
        break;
    case MFI_NOTATION_LLAMA3:
        ok = read_json_row(&r, ";");
        break;
    case MFI_NOTATION_LIST:
        skip_space(&r);
        ok = r.p < r.end && *r.p == '{' ? read_json_row(&r, "") : read_json_list(&r);
        break;
    case MFI_NOTATION_QWEN_CODER:
    case MFI_NOTATION_SEED:
        ok = read_qwen_coder(&r, mfi_pair_form_of(notation));
        break;
    case MFI_NOTATION_GLM:
        ok = read_glm(&r);
        break;
    case MFI_NOTATION_MINIMAX:
    case MFI_NOTATION_DEEPSEEK_V32:
    case MFI_NOTATION_DEEPSEEK_V4:
        ok = read_invocations(&r, mfi_pair_form_of(notation));
        break;
    case MFI_NOTATION_DEEPSEEK_V3:
    case MFI_NOTATION_DEEPSEEK_V31:
        ok = read_deepseek(&r, notation == MFI_NOTATION_DEEPSEEK_V3);
        break;
    case MFI_NOTATION_KIMI:
        ok = read_kimi(&r);
        break;
    case MFI_NOTATION_MISTRAL_LIST:
    case MFI_NOTATION_GRANITE3:
    case MFI_NOTATION_NEMOTRON:
        ok = read_json_list(&r);
        break;
    case MFI_NOTATION_MISTRAL:
        ok = read_mistral(&r);
        break;
    case MFI_NOTATION_HARMONY: /* the body of one message to a tool: output.c knows its name */
    case MFI_NOTATION_PLAIN:
    case MFI_N_NOTATIONS:
        break;
    }
    skip_space(&r);
    return ok && r.p == r.end && !list->failed;
}
