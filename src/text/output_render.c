/* A turn as a model would have written it: the inverse of taking it apart; see output.h. The forms
 * are those in which the families' chat templates write earlier turns. */
#include <string.h>

#include "text/output_int.h"

#define DS(word) "<\xef\xbd\x9ctool\xe2\x96\x81" word "\xef\xbd\x9c>"

/* The members of the arguments; false if they are no object. */
static bool pairs_of(const mfi_call *call, mfi_json_iter *it)
{
    mfi_json_span args = mfi_json_root(call->arguments, call->arguments_len);
    if (mfi_json_scan(call->arguments, call->arguments_len, "arguments", NULL) != MF_OK ||
        mfi_json_span_type(args) != MFI_JSON_OBJECT)
        return false;
    *it = mfi_json_span_iter(args);
    return true;
}

/* Each between these texts; strings as they are. */
static void put_pairs(const mfi_call *call, const char *before, const char *between,
                      const char *after, mfi_buf *out)
{
    mfi_json_span key, value;
    mfi_json_iter it;
    bool any = pairs_of(call, &it);
    while (any && mfi_json_object_next(&it, &key, &value)) {
        mfi_buf_str(out, before);
        mfi_json_span_str(key, out);
        mfi_buf_str(out, between);
        if (!mfi_json_span_str(value, out))
            mfi_buf_append(out, value.text, value.len);
        mfi_buf_str(out, after);
    }
}

/* The same where it is said which members are strings. */
static void put_typed_pairs(const mfi_call *call, mfi_buf *out)
{
    mfi_json_span key, value;
    mfi_json_iter it;
    bool any = pairs_of(call, &it);
    while (any && mfi_json_object_next(&it, &key, &value)) {
        bool is_string = mfi_json_span_type(value) == MFI_JSON_STRING;
        mfi_buf_str(out, "<" MFI_DSML "parameter name=\"");
        mfi_json_span_str(key, out);
        mfi_buf_fmt(out, "\" string=\"%s", is_string ? MFI_PAIR_TYPE_STRING : MFI_PAIR_TYPE_JSON);
        if (!is_string || !mfi_json_span_str(value, out))
            mfi_buf_append(out, value.text, value.len);
        mfi_buf_str(out, "</" MFI_DSML "parameter>\n");
    }
}

static void put_quoted(mfi_buf *out, const char *key, const char *text)
{
    mfi_buf_fmt(out, "\"%s\": ", key);
    mfi_json_put_str(out, text, strlen(text));
}

static void put_args(mfi_buf *out, const mfi_call *call)
{
    mfi_buf_append(out, call->arguments, call->arguments_len);
}

static bool has_id(const mfi_call *call)
{
    return call->id && *call->id;
}

static void put_object(mfi_buf *out, const mfi_call *call, const char *key, bool with_id)
{
    mfi_buf_str(out, "{");
    put_quoted(out, "name", call->name);
    mfi_buf_fmt(out, ", \"%s\": ", key);
    put_args(out, call);
    if (with_id) {
        mfi_buf_str(out, ", ");
        put_quoted(out, "id", call->id);
    }
    mfi_buf_str(out, "}");
}

/* A call in notations whose arguments are JSON between markers. */
static void put_marked_call(mfi_notation notation, const mfi_call *call, mfi_buf *out)
{
    switch (notation) {
    case MFI_NOTATION_DEEPSEEK_V3:
        mfi_buf_fmt(out,
                    DS("call\xe2\x96\x81"
                       "begin") "function" DS("sep") "%s\n```json\n",
                    call->name);
        put_args(out, call);
        mfi_buf_str(out, "\n```" DS("call\xe2\x96\x81"
                                    "end"));
        break;
    case MFI_NOTATION_DEEPSEEK_V31:
        mfi_buf_fmt(out,
                    DS("call\xe2\x96\x81"
                       "begin") "%s" DS("sep"),
                    call->name);
        put_args(out, call);
        mfi_buf_str(out, DS("call\xe2\x96\x81"
                            "end"));
        break;
    case MFI_NOTATION_KIMI:
        mfi_buf_str(out, "<|tool_call_begin|>");
        if (has_id(call))
            mfi_buf_str(out, call->id);
        else
            mfi_buf_fmt(out, "functions.%s:0", call->name);
        mfi_buf_str(out, "<|tool_call_argument_begin|>");
        put_args(out, call);
        mfi_buf_str(out, "<|tool_call_end|>");
        break;
    case MFI_NOTATION_MISTRAL_LIST:
    case MFI_NOTATION_LIST:
        put_object(out, call, "arguments", has_id(call));
        break;
    case MFI_NOTATION_GRANITE3:
    case MFI_NOTATION_NEMOTRON:
        put_object(out, call, "arguments", false);
        break;
    case MFI_NOTATION_GIGACHAT:
        mfi_buf_str(out, "<|function_call|>");
        put_object(out, call, "arguments", false);
        break;
    case MFI_NOTATION_LLAMA3:
        put_object(out, call, "parameters", false);
        break;
    case MFI_NOTATION_MISTRAL:
        mfi_buf_fmt(out, "[TOOL_CALLS]%s", call->name);
        if (has_id(call))
            mfi_buf_fmt(out, "[CALL_ID]%s", call->id);
        mfi_buf_str(out, "[ARGS]");
        put_args(out, call);
        break;
    case MFI_NOTATION_HARMONY:
        mfi_buf_fmt(out, " to=functions.%s<|channel|>commentary json<|message|>", call->name);
        put_args(out, call);
        mfi_buf_str(out, "<|call|>");
        break;
    default:
        break;
    }
}

static void put_call(mfi_notation notation, const mfi_call *call, mfi_buf *out)
{
    switch (notation) {
    case MFI_NOTATION_HERMES:
    case MFI_NOTATION_PLAIN:
    case MFI_N_NOTATIONS:
        mfi_buf_str(out, "<tool_call>\n");
        put_object(out, call, "arguments", false);
        mfi_buf_str(out, "\n</tool_call>");
        break;
    case MFI_NOTATION_QWEN_CODER:
        mfi_buf_fmt(out, "<tool_call>\n<function=%s>\n", call->name);
        put_pairs(call, "<parameter=", ">\n", "\n</parameter>\n", out);
        mfi_buf_str(out, "</function>\n</tool_call>");
        break;
    case MFI_NOTATION_GLM:
        mfi_buf_fmt(out, "<tool_call>%s\n", call->name);
        put_pairs(call, "<arg_key>", "</arg_key>\n<arg_value>", "</arg_value>\n", out);
        mfi_buf_str(out, "</tool_call>");
        break;
    case MFI_NOTATION_MINIMAX:
        mfi_buf_fmt(out, "<invoke name=\"%s\">\n", call->name);
        put_pairs(call, "<parameter name=\"", "\">", "</parameter>\n", out);
        mfi_buf_str(out, "</invoke>\n");
        break;
    case MFI_NOTATION_DEEPSEEK_V32:
    case MFI_NOTATION_DEEPSEEK_V4:
        mfi_buf_fmt(out, "<" MFI_DSML "invoke name=\"%s\">\n", call->name);
        size_t before = out->len;
        put_typed_pairs(call, out);
        if (notation == MFI_NOTATION_DEEPSEEK_V4 && out->len == before)
            mfi_buf_str(out, "\n");
        mfi_buf_str(out, "</" MFI_DSML "invoke>\n");
        break;
    case MFI_NOTATION_SEED:
        mfi_buf_fmt(out, "<seed:tool_call>\n<function=%s>\n", call->name);
        put_pairs(call, "<parameter=", ">", "</parameter>\n", out);
        mfi_buf_str(out, "</function>\n</seed:tool_call>");
        break;
    default:
        put_marked_call(notation, call, out);
        break;
    }
}

/* What stands before all calls, between them and after them. */
typedef struct frame {
    const char *alone, *after_text, *between, *end;
} frame;

static const frame frames[MFI_N_NOTATIONS] = {
    [MFI_NOTATION_PLAIN] = {"", "\n", "\n", ""},
    [MFI_NOTATION_HERMES] = {"", "\n", "\n", ""},
    [MFI_NOTATION_QWEN_CODER] = {"", "\n\n", "\n", ""},
    [MFI_NOTATION_GLM] = {"\n", "\n", "\n", ""},
    [MFI_NOTATION_MINIMAX] = {"\n<minimax:tool_call>\n", "\n<minimax:tool_call>\n", "",
                              "</minimax:tool_call>"},
    [MFI_NOTATION_DEEPSEEK_V3] = {DS("calls\xe2\x96\x81"
                                     "begin"),
                                  DS("calls\xe2\x96\x81"
                                     "begin"),
                                  "\n",
                                  DS("calls\xe2\x96\x81"
                                     "end")},
    [MFI_NOTATION_DEEPSEEK_V31] = {DS("calls\xe2\x96\x81"
                                      "begin"),
                                   DS("calls\xe2\x96\x81"
                                      "begin"),
                                   "",
                                   DS("calls\xe2\x96\x81"
                                      "end")},
    [MFI_NOTATION_KIMI] = {"<|tool_calls_section_begin|>", "<|tool_calls_section_begin|>", "",
                           "<|tool_calls_section_end|>"},
    [MFI_NOTATION_MISTRAL_LIST] = {"[TOOL_CALLS][", "[TOOL_CALLS][", ", ", "]"},
    [MFI_NOTATION_MISTRAL] = {"", "", "", ""},
    [MFI_NOTATION_HARMONY] = {"", "<|end|><|start|>assistant", "<|start|>assistant", ""},
    [MFI_NOTATION_DEEPSEEK_V32] = {"\n\n<" MFI_DSML "function_calls>\n",
                                   "\n\n<" MFI_DSML "function_calls>\n", "",
                                   "</" MFI_DSML "function_calls>"},
    [MFI_NOTATION_DEEPSEEK_V4] = {"\n\n<" MFI_DSML "tool_calls>\n",
                                  "\n\n<" MFI_DSML "tool_calls>\n", "",
                                  "</" MFI_DSML "tool_calls>"},
    [MFI_NOTATION_SEED] = {"", "\n", "\n", ""},
    [MFI_NOTATION_LLAMA3] = {"", "", "; ", ""},
    [MFI_NOTATION_GRANITE3] = {"<|tool_call|>[", "<|tool_call|>[", ", ", "]"},
    [MFI_NOTATION_LIST] = {"\n<tool_calls>[", "\n<tool_calls>[", ", ", "]</tool_calls>"},
    [MFI_NOTATION_NEMOTRON] = {"<TOOLCALL>[", "<TOOLCALL>[", ", ", "]</TOOLCALL>"},
    [MFI_NOTATION_GIGACHAT] = {"", "", "", ""},
};

static void put_reasoning(mfi_notation notation, const char *reasoning, bool in_prompt,
                          mfi_buf *out)
{
    bool spaced = notation == MFI_NOTATION_HERMES || notation == MFI_NOTATION_QWEN_CODER ||
                  notation == MFI_NOTATION_MINIMAX || notation == MFI_NOTATION_PLAIN;
    if (notation == MFI_NOTATION_HARMONY) {
        mfi_buf_fmt(out, "<|channel|>analysis<|message|>%s<|end|><|start|>assistant", reasoning);
        return;
    }
    if (!in_prompt) {
        mfi_buf_str(out, mfi_think_marker(notation, true));
        mfi_buf_str(out, spaced ? "\n" : "");
    }
    mfi_buf_str(out, reasoning);
    mfi_buf_str(out, spaced ? "\n" : "");
    mfi_buf_str(out, mfi_think_marker(notation, false));
    mfi_buf_str(out, spaced ? "\n\n" : "");
    if (notation == MFI_NOTATION_GLM)
        mfi_buf_str(out, "\n");
}

void mfi_output_render(mfi_notation notation, const char *reasoning, bool in_prompt,
                       const char *text, const mfi_call *calls, size_t n_calls, mfi_buf *out)
{
    const frame *f = &frames[notation];
    if (reasoning)
        put_reasoning(notation, reasoning, in_prompt, out);
    if (*text && notation == MFI_NOTATION_HARMONY)
        mfi_buf_fmt(out, "<|channel|>%s<|message|>", n_calls ? "commentary" : "final");
    mfi_buf_str(out, text);
    if (n_calls)
        mfi_buf_str(out, *text ? f->after_text : f->alone);
    for (size_t i = 0; i < n_calls; i++) {
        mfi_buf_str(out, i ? f->between : "");
        put_call(notation, &calls[i], out);
    }
    if (n_calls)
        mfi_buf_str(out, f->end);
}
