/* Taking answers apart as they stream; see output.h. Owned by whoever shows an answer, on its
 * thread; knows no tokens and no templates but by their text.
 *
 * Bytes are looked at one by one, so that no cut of the stream can matter: `held` is what may still
 * become a marker, `space` white space that belongs to the notation if a marker follows it, and
 * `block` a call, or a header of gpt-oss, from its opening marker on. */
#include "text/output.h"

#include <stdlib.h>
#include <string.h>

#include "base/limits.h"
#include "text/output_int.h"

#define DS_CALLS(word)                                                                             \
    "<\xef\xbd\x9ctool\xe2\x96\x81"                                                                \
    "calls\xe2\x96\x81" word "\xef\xbd\x9c>"

const mfi_brackets mfi_output_brackets[MFI_N_NOTATIONS] = {
    [MFI_NOTATION_PLAIN] = {"plain", NULL, NULL},
    [MFI_NOTATION_HERMES] = {"hermes", "<tool_call>", "</tool_call>"},
    [MFI_NOTATION_QWEN_CODER] = {"qwen3-coder", "<tool_call>", "</tool_call>"},
    [MFI_NOTATION_GLM] = {"glm", "<tool_call>", "</tool_call>"},
    [MFI_NOTATION_MINIMAX] = {"minimax-m2", "<minimax:tool_call>", "</minimax:tool_call>"},
    [MFI_NOTATION_DEEPSEEK_V3] = {"deepseek-v3", DS_CALLS("begin"), DS_CALLS("end")},
    [MFI_NOTATION_DEEPSEEK_V31] = {"deepseek-v3.1", DS_CALLS("begin"), DS_CALLS("end")},
    [MFI_NOTATION_KIMI] = {"kimi-k2", "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"},
    [MFI_NOTATION_MISTRAL_LIST] = {"mistral-list", "[TOOL_CALLS]", NULL},
    [MFI_NOTATION_MISTRAL] = {"mistral", "[TOOL_CALLS]", NULL},
    [MFI_NOTATION_HARMONY] = {"harmony", NULL, NULL},
    [MFI_NOTATION_DEEPSEEK_V32] = {"deepseek-v3.2", "<" MFI_DSML "function_calls>",
                                   "</" MFI_DSML "function_calls>"},
    [MFI_NOTATION_DEEPSEEK_V4] = {"deepseek-v4", "<" MFI_DSML "tool_calls>",
                                  "</" MFI_DSML "tool_calls>"},
    [MFI_NOTATION_SEED] = {"seed-oss", "<seed:tool_call>", "</seed:tool_call>"},
    [MFI_NOTATION_LLAMA3] = {"llama3", "<|python_tag|>", NULL},
    [MFI_NOTATION_GRANITE3] = {"granite-3", "<|tool_call|>", NULL},
    [MFI_NOTATION_LIST] = {"tool-calls", "<tool_calls>", "</tool_calls>"},
    [MFI_NOTATION_NEMOTRON] = {"nemotron", "<TOOLCALL>", "</TOOLCALL>"},
    [MFI_NOTATION_GIGACHAT] = {"gigachat", "<|function_call|>", NULL},
};

/* What a marker does. */
typedef enum act { OPEN_CALL, OPEN_OBJECT, CLOSE_CALL, BEGIN_THINK, END_THINK, BODY, END_BODY } act;

typedef struct marker {
    const char *text;
    act act;
} marker;

typedef enum region { IN_TEXT, IN_REASONING, IN_CALL, IN_HEADER } region;

struct mfi_output {
    mfi_notation notation;
    mf_output_fn fn;
    void *user;
    region region;
    bool edge; /* after a marker: leading white space is the notation's */
    mfi_buf held, space, block;
    mfi_live live; /* the block, while it is a call */
    mfi_buf out;   /* of `out_kind`, not handed out yet */
    mf_output_kind out_kind;
    uint32_t n_calls;
    bool begun;                    /* something was written before */
    const char *const *bare_names; /* NULL: any */
    size_t n_bare_names;
    bool failed;
};

const char *mfi_notation_name(mfi_notation notation)
{
    return notation < MFI_N_NOTATIONS ? mfi_output_brackets[notation].name : "?";
}

const char *mfi_think_marker(mfi_notation notation, bool begin)
{
    if (notation == MFI_NOTATION_HARMONY)
        return begin ? "<|channel|>analysis<|message|>" : "<|end|>";
    if (notation == MFI_NOTATION_MISTRAL || notation == MFI_NOTATION_MISTRAL_LIST)
        return begin ? "[THINK]" : "[/THINK]";
    if (notation == MFI_NOTATION_SEED)
        return begin ? "<seed:think>" : "</seed:think>";
    return begin ? "<think>" : "</think>";
}

/* Besides what brackets calls and reasoning. */
static const char *const inner_markers[MFI_N_NOTATIONS][7] = {
    [MFI_NOTATION_GLM] = {"<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"},
    [MFI_NOTATION_DEEPSEEK_V3] = {MFI_DS_CALL_BEGIN, MFI_DS_CALL_END, MFI_DS_SEP},
    [MFI_NOTATION_DEEPSEEK_V31] = {MFI_DS_CALL_BEGIN, MFI_DS_CALL_END, MFI_DS_SEP},
    [MFI_NOTATION_KIMI] = {"<|tool_call_begin|>", "<|tool_call_argument_begin|>",
                           "<|tool_call_end|>"},
    [MFI_NOTATION_MISTRAL] = {"[ARGS]", "[CALL_ID]"},
    [MFI_NOTATION_DEEPSEEK_V32] = {MFI_DSML},
    [MFI_NOTATION_DEEPSEEK_V4] = {MFI_DSML},
    [MFI_NOTATION_HARMONY] = {"<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>",
                              "<|call|>", "<|return|>"},
};

bool mfi_output_is_marker(mfi_notation notation, const char *text, size_t len)
{
    const char *all[MFI_ARRAY_LEN(inner_markers[0]) + 4];
    size_t n = 0;
    all[n++] = mfi_output_brackets[notation].open;
    all[n++] = mfi_output_brackets[notation].close;
    all[n++] = mfi_think_marker(notation, true);
    all[n++] = mfi_think_marker(notation, false);
    for (size_t i = 0; i < MFI_ARRAY_LEN(inner_markers[0]); i++)
        all[n++] = inner_markers[notation][i];
    for (size_t i = 0; i < n; i++)
        if (all[i] && strlen(all[i]) == len && memcmp(all[i], text, len) == 0)
            return true;
    return false;
}

mfi_notation mfi_notation_detect(const char *t, size_t len)
{
    /* The first whose text occurs: the more special before the more general. */
    static const struct {
        const char *text;
        mfi_notation notation;
    } signs[] = {
        {"<|channel|>", MFI_NOTATION_HARMONY},
        {MFI_DSML, MFI_NOTATION_DEEPSEEK_V32}, /* or V4 */
        {"seed:tool_call", MFI_NOTATION_SEED},
        {"minimax:tool_call", MFI_NOTATION_MINIMAX},
        {"<|tool_call_argument_begin|>", MFI_NOTATION_KIMI},
        {"```json", MFI_NOTATION_DEEPSEEK_V3}, /* with the next one */
        {DS_CALLS("begin"), MFI_NOTATION_DEEPSEEK_V31},
        {"<arg_key>", MFI_NOTATION_GLM},
        {"<function=", MFI_NOTATION_QWEN_CODER},
        {"[ARGS]", MFI_NOTATION_MISTRAL},
        {"[TOOL_CALLS]", MFI_NOTATION_MISTRAL_LIST},
        {"<tool_calls>", MFI_NOTATION_LIST},
        {"<tool_call>", MFI_NOTATION_HERMES},
        {"<TOOLCALL>", MFI_NOTATION_NEMOTRON},
        {"<|tool_call|>", MFI_NOTATION_GRANITE3},
        {"<|function_call|>", MFI_NOTATION_GIGACHAT},
        {"dictionary of argument name and its value", MFI_NOTATION_LLAMA3},
    };
    static const char deepseek[] = DS_CALLS("begin");
    for (size_t i = 0; i < MFI_ARRAY_LEN(signs); i++) {
        if (!memmem(t, len, signs[i].text, strlen(signs[i].text)))
            continue;
        if (signs[i].notation == MFI_NOTATION_DEEPSEEK_V3 &&
            !memmem(t, len, deepseek, sizeof deepseek - 1))
            continue;
        if (signs[i].notation == MFI_NOTATION_DEEPSEEK_V32 && !memmem(t, len, "function_calls", 14))
            return MFI_NOTATION_DEEPSEEK_V4;
        return signs[i].notation;
    }
    return MFI_NOTATION_PLAIN;
}

/* ---- handing out ---- */

static void flush(mfi_output *o)
{
    if (o->out.len)
        o->fn(o->user, o->out_kind, o->n_calls, o->out.data, o->out.len);
    o->failed = o->failed || o->out.failed;
    o->out.len = 0;
}

static void put(mfi_output *o, mf_output_kind kind, const char *bytes, size_t len)
{
    if (kind != o->out_kind)
        flush(o);
    o->out_kind = kind;
    mfi_buf_append(&o->out, bytes, len);
}

static void move(mfi_output *o, mfi_buf *from, mf_output_kind kind)
{
    put(o, kind, from->data ? from->data : "", from->len);
    from->len = 0;
}

static mf_output_kind kind_of(const mfi_output *o)
{
    return o->region == IN_REASONING ? MF_OUTPUT_REASONING : MF_OUTPUT_TEXT;
}

/* ---- calls ---- */

static void put_head(mfi_output *o, const mfi_buf *name, const mfi_buf *id)
{
    flush(o);
    o->fn(o->user, MF_OUTPUT_CALL_NAME, o->n_calls, name->data, name->len);
    if (id->len)
        o->fn(o->user, MF_OUTPUT_CALL_ID, o->n_calls, id->data, id->len);
}

/* A whole call, or what wasn't handed out of it yet. */
static void put_call(mfi_output *o, const mfi_call_text *call)
{
    const mfi_live *l = &o->live;
    size_t n_args = l->open ? l->n_args : 0;
    if (!l->open)
        put_head(o, &call->name, &call->id);
    flush(o);
    if (l->open && call->id.len && !l->id.len)
        o->fn(o->user, MF_OUTPUT_CALL_ID, o->n_calls, call->id.data, call->id.len);
    put(o, MF_OUTPUT_CALL_ARGUMENTS, call->arguments.data + n_args, call->arguments.len - n_args);
    flush(o);
    o->fn(o->user, MF_OUTPUT_CALL_END, o->n_calls, "", 0);
    o->n_calls++;
}

/* Whether a call of the block may have this name: without a marker only a tool's. */
static bool may_call(const mfi_output *o, const mfi_buf *name)
{
    if (!o->bare_names || o->notation != MFI_NOTATION_LLAMA3 || *o->block.data != '{')
        return true;
    for (size_t i = 0; i < o->n_bare_names; i++)
        if (strlen(o->bare_names[i]) == name->len &&
            memcmp(o->bare_names[i], name->data, name->len) == 0)
            return true;
    return false;
}

/* Whether the call that was begun is the one that was read. */
static bool as_begun(const mfi_output *o, const mfi_call_text *call)
{
    const mfi_live *l = &o->live;
    return !l->open ||
           (call->name.len == l->name.len && call->arguments.len >= l->n_args &&
            memcmp(call->name.data, l->name.data, l->name.len) == 0 &&
            memcmp(call->arguments.data, l->made.len ? l->made.data : o->block.data + l->args_from,
                   l->n_args) == 0);
}

/* What was held back as a call or a header comes out as text, with the space before it. A call that
 * was begun is taken back. */
static void fall_back(mfi_output *o)
{
    mf_output_kind kind = o->live.open ? MF_OUTPUT_CALL_BROKEN : MF_OUTPUT_TEXT;
    size_t done = MFI_MIN(o->live.done, o->block.len);
    if (!done)
        move(o, &o->space, kind);
    if (o->block.len > done)
        put(o, kind, o->block.data + done, o->block.len - done);
    if (o->live.open) {
        flush(o);
        o->n_calls++;
    }
    o->space.len = o->block.len = 0;
    mfi_live_begin(&o->live, MFI_NOTATION_PLAIN, 0);
    o->region = IN_TEXT;
    o->edge = false;
}

static bool read_message(const mfi_output *o, size_t close_len, mfi_call_list *list)
{
    const char *body = memmem(o->block.data, o->block.len, "<|message|>", 11);
    if (!body)
        return false;
    body += 11;
    return mfi_call_put(list, o->live.name.data, o->live.name.len, body,
                        o->block.len - close_len - (size_t)(body - o->block.data));
}

/* Reads what of the block wasn't handed out as calls yet. */
static bool read_block(mfi_output *o, size_t close_len, mfi_call_list *list)
{
    const mfi_live *l = &o->live;
    size_t end = o->block.len - close_len;
    if (o->notation == MFI_NOTATION_HARMONY)
        return read_message(o, close_len, list);
    if (!l->n_done || o->notation == MFI_NOTATION_MISTRAL) {
        size_t open = strlen(mfi_output_brackets[o->notation].open);
        size_t from = l->n_done ? l->from : *o->block.data == '{' ? 0 : open;
        bool ok = mfi_calls_read(o->notation, o->block.data + from, end - from, list);
        for (size_t i = 0; ok && i < list->n; i++)
            ok = may_call(o, &list->calls[i].name);
        return ok;
    }
    for (size_t i = l->done; i < end; i++)
        if (!memchr(" \t\r\n", o->block.data[i], 4))
            return false;
    return true;
}

/* The block is whole; its last close_len bytes are the closing marker. */
static void close_block(mfi_output *o, size_t close_len)
{
    mfi_call_list list = {0};
    if (!o->block.failed && read_block(o, close_len, &list) &&
        (!list.n || as_begun(o, &list.calls[0]))) {
        for (size_t i = 0; i < list.n; i++) {
            put_call(o, &list.calls[i]);
            o->live.open = false;
        }
        o->space.len = o->block.len = 0;
        mfi_live_begin(&o->live, MFI_NOTATION_PLAIN, 0);
        o->region = o->notation == MFI_NOTATION_HARMONY ? IN_HEADER : IN_TEXT;
        o->edge = true;
    } else {
        fall_back(o);
    }
    o->failed = o->failed || list.failed;
    mfi_call_list_free(&list);
}

/* One of several calls of a block is whole. If it makes no sense after all nothing more is handed
 * out before the block ends. */
static void end_call(mfi_output *o)
{
    mfi_live *l = &o->live;
    mfi_call_list list = {0};
    bool is_object = mfi_notation_is_list(o->notation) || o->notation == MFI_NOTATION_LLAMA3;
    mfi_notation as = is_object ? MFI_NOTATION_HERMES : o->notation;
    if (mfi_calls_read(as, o->block.data + l->from, l->end - l->from, &list) && list.n == 1 &&
        as_begun(o, &list.calls[0]) && may_call(o, &list.calls[0].name)) {
        put_call(o, &list.calls[0]);
        o->space.len = 0;
        mfi_live_next(l, l->end, o->block.len);
    } else {
        l->at = MFI_LIVE_LOST;
    }
    o->failed = o->failed || list.failed;
    mfi_call_list_free(&list);
}

/* Hands out what was made of the arguments. */
static void put_made(mfi_output *o)
{
    mfi_live *l = &o->live;
    put(o, MF_OUTPUT_CALL_ARGUMENTS, l->made.data + l->n_args, l->made.len - l->n_args);
    l->n_args = l->made.len;
}

/* A byte of a call. */
static void take_call_byte(mfi_output *o)
{
    if (o->block.failed)
        return;
    switch (mfi_live_byte(&o->live, o->block.data, o->block.len)) {
    case MFI_LIVE_OPEN:
        if (!may_call(o, &o->live.name)) {
            o->live.open = false;
            o->live.at = MFI_LIVE_LOST;
            break;
        }
        put_head(o, &o->live.name, &o->live.id);
        put(o, MF_OUTPUT_CALL_ARGUMENTS, "{", 1);
        break;
    case MFI_LIVE_MADE:
        put_made(o);
        break;
    case MFI_LIVE_ARGUMENT:
        put(o, MF_OUTPUT_CALL_ARGUMENTS, &o->block.data[o->block.len - 1], 1);
        break;
    case MFI_LIVE_END:
        end_call(o);
        break;
    default:
        break;
    }
}

/* The header of a message of gpt-oss is whole: says what its body is. */
static void read_header(mfi_output *o)
{
    static const char to[] = "to=functions.", channel[] = "<|channel|>";
    const char *at = memmem(o->block.data, o->block.len, to, sizeof to - 1);
    const char *end = o->block.data + o->block.len;
    if (at) {
        at += sizeof to - 1;
        size_t n = 0;
        while (at + n < end && (unsigned char)at[n] > ' ' && at[n] != '<')
            n++;
        o->region = n ? IN_CALL : IN_TEXT;
        if (n) {
            mfi_live_begin(&o->live, MFI_NOTATION_HARMONY, o->block.len);
            mfi_buf_append(&o->live.name, at, n);
            return;
        }
    }
    at = memmem(o->block.data, o->block.len, channel, sizeof channel - 1);
    if (!at) {
        fall_back(o);
        return;
    }
    at += sizeof channel - 1;
    o->region = end - at >= 8 && memcmp(at, "analysis", 8) == 0 ? IN_REASONING : IN_TEXT;
    o->block.len = 0;
    o->edge = false;
}

/* ---- markers ---- */

/* The markers that mean something where we are; returns how many. */
static size_t markers_here(const mfi_output *o, marker list[4])
{
    const mfi_brackets *b = &mfi_output_brackets[o->notation];
    size_t n = 0;
    if (o->notation == MFI_NOTATION_HARMONY) {
        if (o->region == IN_HEADER) {
            list[n++] = (marker){"<|message|>", BODY};
            return n;
        }
        list[n++] = (marker){"<|end|>", END_BODY};
        list[n++] = (marker){"<|call|>", END_BODY};
        list[n++] = (marker){"<|return|>", END_BODY};
        return n;
    }
    if (o->region == IN_CALL) {
        if (b->close)
            list[n++] = (marker){b->close, CLOSE_CALL};
        return n;
    }
    if (o->region == IN_REASONING)
        list[n++] = (marker){mfi_think_marker(o->notation, false), END_THINK};
    else if (!o->begun) /* later ones are text */
        list[n++] = (marker){mfi_think_marker(o->notation, true), BEGIN_THINK};
    if (o->notation == MFI_NOTATION_LLAMA3 && (!o->bare_names || o->n_bare_names) &&
        o->region == IN_TEXT && (!o->begun || o->edge))
        list[n++] = (marker){"{", OPEN_OBJECT};
    if (b->open && o->region == IN_TEXT)
        list[n++] = (marker){b->open, OPEN_CALL};
    return n;
}

/* Whether `held` begins a marker; *whole: it is one. */
static bool begins(const mfi_output *o, const marker *list, size_t n, const marker **whole)
{
    bool any = false;
    *whole = NULL;
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(list[i].text);
        if (o->held.len > len || memcmp(o->held.data, list[i].text, o->held.len) != 0)
            continue;
        any = true;
        if (o->held.len == len)
            *whole = &list[i];
    }
    return any;
}

static void take(mfi_output *o, char c);

static void do_marker(mfi_output *o, const marker *m)
{
    switch (m->act) {
    case OPEN_CALL:
        o->region = IN_CALL;
        o->begun = true;
        mfi_buf_append(&o->block, o->held.data, o->held.len);
        mfi_live_begin(&o->live, o->notation, o->block.len);
        break;
    case OPEN_OBJECT:
        o->region = IN_CALL;
        o->begun = true;
        mfi_live_begin(&o->live, o->notation, 0);
        take(o, '{');
        break;
    case CLOSE_CALL:
        mfi_buf_append(&o->block, o->held.data, o->held.len);
        close_block(o, o->held.len);
        break;
    case BEGIN_THINK:
    case END_THINK:
        o->space.len = 0;
        o->region = m->act == BEGIN_THINK ? IN_REASONING : IN_TEXT;
        o->edge = o->begun = true;
        break;
    case BODY:
        mfi_buf_append(&o->block, o->held.data, o->held.len);
        read_header(o);
        break;
    case END_BODY:
        if (o->region == IN_CALL) {
            mfi_buf_append(&o->block, o->held.data, o->held.len);
            close_block(o, o->held.len);
        } else {
            move(o, &o->space, kind_of(o));
            o->region = IN_HEADER;
        }
        break;
    }
    o->held.len = 0;
}

/* ---- bytes ---- */

/* A header begins with one of these, or there is none and the bytes are text. */
static bool may_be_header(const mfi_output *o)
{
    static const char *const starts[] = {"<|channel|>", "<|start|>assistant",
                                         " to=", "<|message|>"};
    for (size_t i = 0; i < MFI_ARRAY_LEN(starts); i++) {
        size_t n = MFI_MIN(strlen(starts[i]), o->block.len);
        if (memcmp(starts[i], o->block.data, n) == 0)
            return true;
    }
    return false;
}

/* An answer that is a JSON object, but no call: that shows with its first key. */
static bool is_other_object(const mfi_output *o)
{
    return o->notation == MFI_NOTATION_LLAMA3 && o->region == IN_CALL && *o->block.data == '{' &&
           o->live.at == MFI_LIVE_LOST && !o->live.open && !o->live.n_done;
}

/* A byte that is part of no marker. */
static void take(mfi_output *o, char c)
{
    bool is_space = c == ' ' || c == '\n' || c == '\r' || c == '\t';
    if (o->region == IN_CALL || o->region == IN_HEADER) {
        mfi_buf_append(&o->block, &c, 1);
        if (o->region == IN_CALL)
            take_call_byte(o);
        if (o->block.len > MFI_MAX_TOOL_CALL_BYTES ||
            (o->region == IN_HEADER && !may_be_header(o)) || is_other_object(o))
            fall_back(o);
        return;
    }
    if (is_space && o->notation != MFI_NOTATION_HARMONY) {
        mfi_buf_append(&o->space, &c, 1);
        if (o->space.len > MFI_MAX_TOOL_CALL_BYTES)
            move(o, &o->space, kind_of(o));
        return;
    }
    if (o->edge)
        o->space.len = 0;
    o->edge = false;
    o->begun = true;
    move(o, &o->space, kind_of(o));
    put(o, kind_of(o), &c, 1);
}

static void look_at(mfi_output *o, const char *bytes, size_t len);

/* Lets the first held byte go, and looks at the rest anew. */
static void let_go(mfi_output *o)
{
    char rest[64];
    size_t n = o->held.len - 1;
    char first = o->held.data[0];
    MFI_ASSERT(n < sizeof rest);
    memcpy(rest, o->held.data + 1, n);
    o->held.len = 0;
    take(o, first);
    look_at(o, rest, n);
}

static void look_at(mfi_output *o, const char *bytes, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        marker list[4];
        const marker *whole;
        mfi_buf_append(&o->held, &bytes[i], 1);
        if (o->held.failed) {
            o->failed = true;
            return;
        }
        size_t n = markers_here(o, list);
        if (!begins(o, list, n, &whole))
            let_go(o);
        else if (whole)
            do_marker(o, whole);
    }
}

void mfi_output_push(mfi_output *o, const char *bytes, size_t len)
{
    look_at(o, bytes, len);
    flush(o);
}

mf_status mfi_output_end(mfi_output *o, mf_error *err)
{
    while (o->held.len)
        let_go(o);
    if (o->region == IN_CALL && o->block.len) {
        if (mfi_output_brackets[o->notation].close)
            fall_back(o);
        else /* the end of the answer closes it */
            close_block(o, 0);
    } else if (o->block.len) {
        fall_back(o);
    }
    if (!o->edge)
        move(o, &o->space, kind_of(o));
    flush(o);
    if (o->failed || o->held.failed || o->space.failed || o->block.failed || o->live.name.failed ||
        o->live.id.failed || o->live.made.failed)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to take an answer apart");
    return MF_OK;
}

mf_status mfi_output_open(mfi_output **output, mfi_notation notation, bool reasoning,
                          mf_output_fn fn, void *user, mf_error *err)
{
    mfi_output *o = calloc(1, sizeof *o);
    if (!o)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory to take an answer apart");
    o->notation = notation;
    o->fn = fn;
    o->user = user;
    o->region = reasoning ? IN_REASONING : notation == MFI_NOTATION_HARMONY ? IN_HEADER : IN_TEXT;
    o->edge = o->begun = reasoning;
    *output = o;
    return MF_OK;
}

void mfi_output_bare_names(mfi_output *o, const char *const *names, size_t n)
{
    o->bare_names = names;
    o->n_bare_names = n;
}

void mfi_output_close(mfi_output **output)
{
    mfi_output *o = *output;
    if (!o)
        return;
    mfi_buf_free(&o->held);
    mfi_buf_free(&o->space);
    mfi_buf_free(&o->block);
    mfi_live_free(&o->live);
    mfi_buf_free(&o->out);
    free(o);
    *output = NULL;
}
