/* Calls while they are written: finds out, byte by byte, when a call's name is known and which
 * bytes are its arguments; see output_int.h. Arguments that don't come as JSON are
 * output_pairs.c's. Called by output.c on its thread.
 *
 * This only says what may be handed out early. Whether it was a call is for mfi_calls_read to judge
 * once the call is whole, so that what follows here may be lenient; where it gets lost it says
 * nothing more, and the call comes out whole or not at all. */
#include <string.h>

#include "text/output_int.h"

static bool is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

/* ---- calls between markers ---- */

/* What ends a call's head and its tail. */
typedef struct marked_form {
    const char *head_end, *tail_end;
    bool next; /* tail_end begins the next call */
} marked_form;

static const marked_form marked_forms[MFI_N_NOTATIONS] = {
    [MFI_NOTATION_DEEPSEEK_V3] = {"\n```json\n", MFI_DS_CALL_END, false},
    [MFI_NOTATION_DEEPSEEK_V31] = {MFI_DS_SEP, MFI_DS_CALL_END, false},
    [MFI_NOTATION_KIMI] = {"<|tool_call_argument_begin|>", "<|tool_call_end|>", false},
    [MFI_NOTATION_MISTRAL] = {"[ARGS]", "[TOOL_CALLS]", true},
};

bool mfi_live_ends(const char *block, size_t from, size_t len, const char *text)
{
    size_t n = strlen(text);
    return len - from >= n && memcmp(block + len - n, text, n) == 0;
}

static bool ends_with(const mfi_live *l, const char *block, size_t len, const char *end)
{
    return mfi_live_ends(block, l->from, len, end);
}

/* The head is whole: with empty arguments and a tail it must be a call. */
static bool read_head(mfi_live *l, const char *head, size_t len)
{
    mfi_buf text = {0};
    mfi_call_list list = {0};
    mfi_buf_append(&text, head, len);
    mfi_buf_str(&text, "{}");
    if (l->notation == MFI_NOTATION_DEEPSEEK_V3)
        mfi_buf_str(&text, "\n```");
    if (!marked_forms[l->notation].next)
        mfi_buf_str(&text, marked_forms[l->notation].tail_end);
    bool ok =
        !text.failed && mfi_calls_read(l->notation, text.data, text.len, &list) && list.n == 1;
    if (ok) {
        mfi_buf_append(&l->name, list.calls[0].name.data, list.calls[0].name.len);
        if (list.calls[0].id.len)
            mfi_buf_append(&l->id, list.calls[0].id.data, list.calls[0].id.len);
    }
    mfi_call_list_free(&list);
    mfi_buf_free(&text);
    return ok;
}

/* ---- JSON ---- */

/* Follows strings and brackets; true if the byte is part of a string's inside. */
static bool follow(mfi_live *l, char c)
{
    if (l->in_string) {
        if (l->escaped)
            l->escaped = false;
        else if (c == '\\')
            l->escaped = true;
        else if (c == '"')
            l->in_string = false;
        return true;
    }
    if (c == '"')
        l->in_string = true;
    else if (c == '{' || c == '[')
        l->depth++;
    else if ((c == '}' || c == ']') && l->depth)
        l->depth--;
    return false;
}

static mfi_live_act argument(mfi_live *l, char c, uint32_t outside, mfi_live_at after)
{
    follow(l, c);
    if (l->depth == outside && !l->in_string)
        l->at = after;
    l->n_args++;
    return MFI_LIVE_ARGUMENT;
}

static mfi_live_act begin_arguments(mfi_live *l, mfi_live_at inside, size_t at)
{
    l->at = inside;
    l->depth++;
    l->open = true;
    l->args_from = at;
    l->n_args = 1;
    return MFI_LIVE_OPEN;
}

/* A string of the call's own object ended: a key, or the name. */
static void take_string(mfi_live *l, const char *block, size_t len)
{
    mfi_json_span s = {block + l->string_from, len - l->string_from};
    if (!l->in_value) {
        bool name = s.len == 6 && memcmp(s.text, "\"name\"", 6) == 0;
        bool args = s.len == 11 && memcmp(s.text, "\"arguments\"", 11) == 0;
        if (l->notation == MFI_NOTATION_LLAMA3) {
            args |= s.len == 12 && memcmp(s.text, "\"parameters\"", 12) == 0;
            if (!name && !args && (s.len != 6 || memcmp(s.text, "\"type\"", 6) != 0))
                l->at = MFI_LIVE_LOST;
        }
        l->key = name ? MFI_LIVE_KEY_NAME : args ? MFI_LIVE_KEY_ARGUMENTS : MFI_LIVE_KEY_OTHER;
    } else if (l->key == MFI_LIVE_KEY_NAME && !l->name.len &&
               mfi_json_scan(s.text, s.len, "", NULL) == MF_OK) {
        mfi_json_span_str(s, &l->name);
    }
}

static mfi_live_act element_byte(mfi_live *l, const char *block, size_t len)
{
    char c = block[len - 1];
    if (c == '{' && l->depth == 1 && !l->in_string && l->in_value &&
        l->key == MFI_LIVE_KEY_ARGUMENTS && l->name.len && !l->open)
        return begin_arguments(l, MFI_LIVE_ELEMENT_ARGUMENTS, len - 1);
    bool was = l->in_string;
    follow(l, c);
    if (l->depth == 1 && was && !l->in_string)
        take_string(l, block, len);
    if (was || l->in_string) {
        if (!was)
            l->string_from = len - 1;
        return MFI_LIVE_NOTHING;
    }
    if (l->depth == 1 && (c == ':' || c == ','))
        l->in_value = c == ':';
    if (l->depth)
        return MFI_LIVE_NOTHING;
    l->at = MFI_LIVE_DONE;
    if (!mfi_notation_is_list(l->notation) && l->notation != MFI_NOTATION_LLAMA3)
        return MFI_LIVE_NOTHING; /* the closing marker ends it */
    l->at = MFI_LIVE_LIST_AFTER;
    l->end = len;
    return MFI_LIVE_END;
}

/* Before a call's object. */
static void before_element(mfi_live *l, char c, size_t len)
{
    if (is_space(c))
        return;
    if (c == '[' && l->at == MFI_LIVE_LIST) {
        l->at = MFI_LIVE_LIST_NEXT;
    } else if (c == '{' && l->at != MFI_LIVE_LIST) {
        l->from = len - 1;
        l->depth = 1;
        l->in_value = false;
        l->key = MFI_LIVE_KEY_OTHER;
        l->at = MFI_LIVE_ELEMENT;
    } else {
        l->at = MFI_LIVE_LOST;
    }
}

static void after_element(mfi_live *l, char c, size_t len)
{
    if (is_space(c))
        return;
    if (l->notation == MFI_NOTATION_LLAMA3) {
        l->at = MFI_LIVE_LIST_NEXT;
        if (c != ';')
            before_element(l, c, len);
        return;
    }
    l->at = c == ',' ? MFI_LIVE_LIST_NEXT : c == ']' ? MFI_LIVE_DONE : MFI_LIVE_LOST;
    if (c == ']')
        l->done = len;
}

/* ---- all ---- */

static void next_call(mfi_live *l, size_t from)
{
    l->from = from;
    l->open = l->in_string = l->escaped = false;
    l->depth = 0;
    l->n_args = 0;
    l->name.len = l->id.len = l->made.len = 0;
}

void mfi_live_begin(mfi_live *l, mfi_notation notation, size_t from)
{
    l->notation = notation;
    l->done = 0;
    l->n_done = 0;
    next_call(l, from);
    l->at = MFI_LIVE_LOST;
    if (notation == MFI_NOTATION_HERMES || notation == MFI_NOTATION_LLAMA3 ||
        notation == MFI_NOTATION_GIGACHAT)
        l->at = MFI_LIVE_LIST_NEXT;
    else if (mfi_notation_is_list(notation))
        l->at = MFI_LIVE_LIST;
    else if (notation == MFI_NOTATION_HARMONY)
        l->at = MFI_LIVE_VALUE;
    else if (marked_forms[notation].head_end)
        l->at = MFI_LIVE_HEAD;
    else if (mfi_pair_form_of(notation))
        l->at = MFI_LIVE_PAIR_HEAD;
}

void mfi_live_next(mfi_live *l, size_t end, size_t from)
{
    next_call(l, from);
    l->done = end;
    l->n_done++;
    if (l->at == MFI_LIVE_TAIL)
        l->at = MFI_LIVE_HEAD;
    if (l->at == MFI_LIVE_PAIR_KEY)
        l->at = MFI_LIVE_PAIR_HEAD;
}

mfi_live_act mfi_live_byte(mfi_live *l, const char *block, size_t len)
{
    const marked_form *form = &marked_forms[l->notation];
    char c = block[len - 1];
    switch (l->at) {
    case MFI_LIVE_HEAD:
        if (ends_with(l, block, len, form->head_end))
            l->at = read_head(l, block + l->from, len - l->from) ? MFI_LIVE_VALUE : MFI_LIVE_LOST;
        break;
    case MFI_LIVE_VALUE:
        if (c == '{')
            return begin_arguments(l, MFI_LIVE_ARGUMENTS, len - 1);
        if (!is_space(c))
            l->at = MFI_LIVE_LOST;
        break;
    case MFI_LIVE_ARGUMENTS:
        return argument(l, c, 0, form->tail_end ? MFI_LIVE_TAIL : MFI_LIVE_DONE);
    case MFI_LIVE_TAIL:
        if (ends_with(l, block, len, form->tail_end)) {
            l->end = len - (form->next ? strlen(form->tail_end) : 0);
            return MFI_LIVE_END;
        }
        break;
    case MFI_LIVE_LIST:
    case MFI_LIVE_LIST_NEXT:
        before_element(l, c, len);
        break;
    case MFI_LIVE_ELEMENT:
        return element_byte(l, block, len);
    case MFI_LIVE_ELEMENT_ARGUMENTS:
        return argument(l, c, 1, MFI_LIVE_ELEMENT);
    case MFI_LIVE_LIST_AFTER:
        after_element(l, c, len);
        break;
    case MFI_LIVE_PAIR_HEAD:
    case MFI_LIVE_PAIR_KEY:
    case MFI_LIVE_PAIR_BEFORE_VALUE:
    case MFI_LIVE_PAIR_VALUE:
        return mfi_live_pair_byte(l, block, len);
    case MFI_LIVE_DONE:
        if (!is_space(c))
            l->at = MFI_LIVE_LOST;
        break;
    default:
        break;
    }
    return MFI_LIVE_NOTHING;
}

void mfi_live_free(mfi_live *l)
{
    mfi_buf_free(&l->name);
    mfi_buf_free(&l->id);
    mfi_buf_free(&l->made);
}
