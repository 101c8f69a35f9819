/* Conversations; see conversation.h. Used by `chat` on the main thread. */
#include "conversation.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "cli.h"
#include "output.h"

#define FILE_MAX_BYTES ((uint64_t)256 << 20)

static const char *const roles[] = {"system", "user", "assistant"};

/* The static text of a role, or NULL. */
static const char *role_of(const char *name)
{
    for (size_t i = 0; name && i < MFI_ARRAY_LEN(roles); i++)
        if (strcmp(roles[i], name) == 0)
            return roles[i];
    return NULL;
}

static bool is_system(const mf_chat_message *m)
{
    return strcmp(m->role, "system") == 0;
}

static void free_content(mf_chat_message *m)
{
    free((char *)m->content); /* made by copy() */
    free((char *)m->reasoning);
    free((char *)m->tool_calls);
    *m = (mf_chat_message){.role = m->role};
}

static char *copy(const char *content, size_t len)
{
    char *text = malloc(len + 1);
    if (!text)
        return NULL;
    if (len)
        memcpy(text, content, len);
    text[len] = 0;
    return text;
}

bool cli_conversation_add(cli_conversation *c, const char *role, const char *content, size_t len)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 16;
        mf_chat_message *grown = realloc(c->messages, cap * sizeof *grown);
        if (!grown)
            return false;
        c->messages = grown;
        c->cap = cap;
    }
    char *text = copy(content, len);
    if (!text)
        return false;
    c->messages[c->n++] = (mf_chat_message){.role = role_of(role), .content = text};
    return true;
}

/* Adds what an answer has besides its text to the last message. */
static bool set_parts(cli_conversation *c, const char *reasoning, size_t reasoning_len,
                      const char *calls, size_t calls_len)
{
    mf_chat_message *m = &c->messages[c->n - 1];
    m->reasoning = reasoning_len ? copy(reasoning, reasoning_len) : NULL;
    m->tool_calls = calls_len ? copy(calls, calls_len) : NULL;
    if ((!reasoning_len || m->reasoning) && (!calls_len || m->tool_calls))
        return true;
    cli_conversation_pop(c);
    return false;
}

bool cli_conversation_add_answer(cli_conversation *c, const cli_answer *answer)
{
    mfi_buf calls = {0};
    if (answer->n_calls)
        cli_answer_put_calls(answer, &calls);
    bool ok = !calls.failed &&
              cli_conversation_add(c, "assistant", answer->text.data ? answer->text.data : "",
                                   answer->text.len) &&
              set_parts(c, answer->reasoning.data, answer->reasoning.len, calls.data, calls.len);
    mfi_buf_free(&calls);
    return ok;
}

void cli_conversation_pop(cli_conversation *c)
{
    if (c->n)
        free_content(&c->messages[--c->n]);
}

bool cli_conversation_system(cli_conversation *c, const char *content, size_t len)
{
    bool there = c->n && is_system(&c->messages[0]);
    if (!content) {
        if (there) {
            free_content(&c->messages[0]);
            memmove(c->messages, c->messages + 1, --c->n * sizeof *c->messages);
        }
        return true;
    }
    if (there) {
        char *text = copy(content, len);
        if (!text)
            return false;
        free_content(&c->messages[0]);
        c->messages[0].content = text;
        return true;
    }
    if (!cli_conversation_add(c, "system", content, len))
        return false;
    mf_chat_message last = c->messages[c->n - 1];
    memmove(c->messages + 1, c->messages, (c->n - 1) * sizeof *c->messages);
    c->messages[0] = last;
    return true;
}

void cli_conversation_clear(cli_conversation *c)
{
    size_t kept = c->n && is_system(&c->messages[0]);
    while (c->n > kept)
        cli_conversation_pop(c);
}

void cli_conversation_free(cli_conversation *c)
{
    while (c->n)
        cli_conversation_pop(c);
    free(c->messages);
    *c = (cli_conversation){0};
}

int cli_conversation_save(const cli_conversation *c, const char *path)
{
    mfi_buf text = {0};
    cli_outfile file = {.fd = -1};
    cli_output out;
    mfi_buf_str(&text, "{\"schema\":1,\"messages\":[");
    for (size_t i = 0; i < c->n; i++) {
        const mf_chat_message *m = &c->messages[i];
        mfi_buf_fmt(&text, "%s\n{\"role\":\"%s\",\"content\":", i ? "," : "", m->role);
        mfi_json_put_str(&text, m->content, strlen(m->content));
        if (m->reasoning) {
            mfi_buf_str(&text, ",\"reasoning_content\":");
            mfi_json_put_str(&text, m->reasoning, strlen(m->reasoning));
        }
        if (m->tool_calls)
            mfi_buf_fmt(&text, ",\"tool_calls\":%s", m->tool_calls);
        mfi_buf_str(&text, "}");
    }
    mfi_buf_str(&text, "\n]}\n");
    int code =
        text.failed ? cli_error(CLI_EXIT_ROOM, "out of memory") : cli_outfile_open(&file, path);
    if (!code) {
        cli_output_open(&out, file.fd, path);
        cli_output_write(&out, text.data, text.len);
        code = cli_output_close(&out);
        if (!code)
            code = cli_outfile_commit(&file);
    }
    cli_outfile_close(&file);
    mfi_buf_free(&text);
    return code;
}

/* Takes one message; what is wrong with it is reported. */
static int load_message(cli_conversation *c, const mfi_json *m, size_t i, const char *path)
{
    size_t len = 0;
    const char *role = role_of(mfi_json_str(mfi_json_get(m, "role"), NULL));
    const char *content = mfi_json_str(mfi_json_get(m, "content"), &len);
    if (!role)
        return cli_error(CLI_EXIT_RUNTIME,
                         "%s: message %zu: the role is none of system, user, assistant", path, i);
    if (!content || strlen(content) != len)
        return cli_error(CLI_EXIT_RUNTIME, "%s: message %zu: the content is no text", path, i);
    if (i && strcmp(role, "system") == 0)
        return cli_error(CLI_EXIT_RUNTIME, "%s: message %zu: a system message comes first", path,
                         i);
    const mfi_json *reasoning = mfi_json_get(m, "reasoning_content");
    const mfi_json *calls = mfi_json_get(m, "tool_calls");
    const char *thought = mfi_json_str(reasoning, &len);
    if (mfi_json_typeof(reasoning) != MFI_JSON_NULL && (!thought || strlen(thought) != len))
        return cli_error(CLI_EXIT_RUNTIME, "%s: message %zu: the reasoning_content is no text",
                         path, i);
    if (mfi_json_typeof(calls) != MFI_JSON_NULL && mfi_json_typeof(calls) != MFI_JSON_ARRAY)
        return cli_error(CLI_EXIT_RUNTIME, "%s: message %zu: the tool_calls are no array", path, i);
    mfi_buf text = {0};
    if (mfi_json_len(calls))
        mfi_json_put(&text, calls);
    bool ok = !text.failed && cli_conversation_add(c, role, content, strlen(content)) &&
              set_parts(c, thought, thought ? len : 0, text.data, text.len);
    mfi_buf_free(&text);
    return ok ? CLI_EXIT_OK : cli_error(CLI_EXIT_ROOM, "out of memory");
}

int cli_conversation_load(cli_conversation *c, const char *path)
{
    mfi_json *root = NULL;
    mf_error err = {0};
    cli_conversation loaded = {0};
    int code = CLI_EXIT_OK;
    if (mfi_json_parse_file(path, FILE_MAX_BYTES, &root, &err) != MF_OK) /* no model: always 1 */
        return cli_error(CLI_EXIT_RUNTIME, "%s", err.message);
    const mfi_json *list =
        mfi_json_typeof(root) == MFI_JSON_OBJECT ? mfi_json_get(root, "messages") : root;
    if (mfi_json_typeof(list) != MFI_JSON_ARRAY)
        code = cli_error(CLI_EXIT_RUNTIME, "%s: no array of messages", path);
    for (size_t i = 0; !code && i < mfi_json_len(list); i++)
        code = load_message(&loaded, mfi_json_at(list, i), i, path);
    mfi_json_free(&root);
    if (code) {
        cli_conversation_free(&loaded);
        return code;
    }
    cli_conversation_free(c);
    *c = loaded;
    return CLI_EXIT_OK;
}
