/* Conversations into text with the model's chat template.
 *
 * Makes the variables that transformers passes to a template and renders it. Any thread; the template's
 * tree lives for one call. */
#include "text/template.h"
#include "text/tokenizer_int.h"
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>

bool mf_tokenizer_has_chat_template(const mf_tokenizer *tokenizer)
{
    return tokenizer->chat_template != NULL;
}

static mfi_value str_value(const char *str)
{
    return (mfi_value){.type = MFI_VALUE_STR, .str = str, .n = strlen(str)};
}

/* The messages as maps, and what points to them. */
typedef struct conversation {
    mfi_value_pair (*pairs)[2]; /* [n]: role, content */
    mfi_value *items;           /* [n] */
} conversation;

static mf_status check_text(const char *text, size_t i, const char *what, mf_error *err)
{
    if (!text)
        return mfi_fail(err, MF_ERR_ARGUMENT, "message %zu has no %s", i, what);
    size_t len = strlen(text), bad = mfi_utf8_check(text, len);
    if (bad < len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "message %zu: %s is not UTF-8 at byte %zu", i, what,
                        bad);
    return MF_OK;
}

static mf_status fill(conversation *c, const mf_chat_message *messages, size_t n, mf_error *err)
{
    c->pairs = calloc(n ? n : 1, sizeof *c->pairs);
    c->items = calloc(n ? n : 1, sizeof *c->items);
    if (!c->pairs || !c->items)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "chat: out of memory");
    for (size_t i = 0; i < n; i++) {
        MFI_TRY(check_text(messages[i].role, i, "role", err));
        MFI_TRY(check_text(messages[i].content, i, "content", err));
        c->pairs[i][0] = (mfi_value_pair){"role", str_value(messages[i].role)};
        c->pairs[i][1] = (mfi_value_pair){"content", str_value(messages[i].content)};
        c->items[i] = (mfi_value){.type = MFI_VALUE_MAP, .pairs = c->pairs[i], .n = 2};
    }
    return MF_OK;
}

static mf_status render(const mf_tokenizer *tokenizer, const conversation *c, size_t n_messages,
                        bool add_generation_prompt, mfi_buf *out, mf_error *err)
{
    static const char *const names[] = {
#define NAME(name) #name,
        MFI_TOKEN_NAMES(NAME)
#undef NAME
    };
    mfi_value_pair vars[4 + MFI_N_NAMED_TOKENS] = {
        {"messages", {.type = MFI_VALUE_LIST, .items = c->items, .n = n_messages}},
        {"add_generation_prompt", {.type = MFI_VALUE_BOOL, .boolean = add_generation_prompt}},
        {"tools", {.type = MFI_VALUE_NONE}},
        {"documents", {.type = MFI_VALUE_NONE}},
    };
    size_t n = 4;
    for (size_t i = 0; i < MFI_N_NAMED_TOKENS; i++)
        if (tokenizer->named[i])
            vars[n++] = (mfi_value_pair){names[i], str_value(tokenizer->named[i])};
    mfi_value map = {.type = MFI_VALUE_MAP, .pairs = vars, .n = n};
    return mfi_template_render(tokenizer->chat_template, tokenizer->chat_template_len, &map, out,
                               err);
}

mf_status mf_chat_render(const mf_tokenizer *tokenizer, const mf_chat_message *messages,
                         size_t n_messages, bool add_generation_prompt, char **text, size_t *len,
                         mf_error *err)
{
    if (!tokenizer || (!messages && n_messages) || !text || !len)
        return mfi_fail(err, MF_ERR_ARGUMENT, "mf_chat_render: NULL argument");
    if (!tokenizer->chat_template)
        return mfi_fail(err, MF_ERR_UNSUPPORTED, "the model has no chat template");
    conversation c = {0};
    mfi_buf out = {0};
    mfi_buf_append(&out, "", 0); /* so that *text is never NULL */
    mf_status status = fill(&c, messages, n_messages, err);
    if (status == MF_OK)
        status = render(tokenizer, &c, n_messages, add_generation_prompt, &out, err);
    free(c.pairs);
    free(c.items);
    if (status != MF_OK) {
        mfi_buf_free(&out);
        return status;
    }
    *text = out.data;
    *len = out.len;
    return MF_OK;
}
