/* Requests of /v1/responses: items into messages; see responses.h. On the desk's thread. */
#include <string.h>

#include "responses.h"

/* An assistant's turn, which comes as several items. */
typedef struct turn {
    mfi_buf text, reasoning, calls;
    bool open;
} turn;

static const char *string(const mfi_json *object, const char *name)
{
    return mfi_json_str(mfi_json_get(object, name), NULL);
}

static void close_turn(srv_chat *chat, turn *t)
{
    if (t->open) {
        srv_chat_message(chat, "assistant", srv_text_of(&t->text), t->text.len);
        if (t->reasoning.len) {
            mfi_buf_str(&chat->messages, ",\"reasoning_content\":");
            mfi_json_put_str(&chat->messages, t->reasoning.data, t->reasoning.len);
        }
        if (t->calls.len)
            mfi_buf_fmt(&chat->messages, ",\"tool_calls\":[%s]", t->calls.data);
        srv_chat_message_end(chat);
    }
    chat->messages.failed |= t->text.failed || t->reasoning.failed || t->calls.failed;
    mfi_buf_free(&t->text);
    mfi_buf_free(&t->reasoning);
    mfi_buf_free(&t->calls);
    *t = (turn){.open = false};
}

static bool put_message(srv_fields *f, srv_chat *chat, turn *t, const mfi_json *item)
{
    const char *role = string(item, "role");
    mfi_buf text = {0};
    if (!role || (strcmp(role, "user") && strcmp(role, "assistant") && strcmp(role, "system") &&
                  strcmp(role, "developer")))
        return srv_refuse(f, "input",
                          "input: a role is none of user, assistant, system and developer");
    bool ok = srv_content_text(f, mfi_json_get(item, "content"), "input", &text);
    if (ok && strcmp(role, "assistant") == 0) {
        if (t->text.len || t->calls.len)
            close_turn(chat, t);
        mfi_buf_append(&t->text, srv_text_of(&text), text.len);
        t->open = true;
    } else if (ok) {
        close_turn(chat, t);
        srv_chat_message(chat, strcmp(role, "developer") == 0 ? "system" : role, srv_text_of(&text),
                         text.len);
        srv_chat_message_end(chat);
    }
    chat->messages.failed |= text.failed;
    mfi_buf_free(&text);
    return ok;
}

static bool put_result(srv_fields *f, srv_chat *chat, turn *t, const mfi_json *item)
{
    const char *id = string(item, "call_id");
    close_turn(chat, t);
    return id ? srv_chat_tool_result(f, chat, id, mfi_json_get(item, "output"), "input")
              : srv_refuse(f, "input", "input: a function_call_output has no call_id");
}

static void put_reasoning(turn *t, const mfi_json *item)
{
    const mfi_json *content = mfi_json_get(item, "content");
    for (size_t i = 0; i < mfi_json_len(content); i++) {
        const char *text = string(mfi_json_at(content, i), "text");
        if (text)
            mfi_buf_str(&t->reasoning, text);
    }
}

/* Items of kinds that this server doesn't make are ignored. */
static bool put_item(srv_fields *f, srv_chat *chat, turn *t, const mfi_json *item)
{
    const char *type = string(item, "type");
    if (!type || strcmp(type, "message") == 0)
        return put_message(f, chat, t, item);
    if (strcmp(type, "function_call_output") == 0)
        return put_result(f, chat, t, item);
    if (strcmp(type, "reasoning") == 0) {
        if (t->text.len || t->calls.len)
            close_turn(chat, t);
        put_reasoning(t, item);
    } else if (strcmp(type, "function_call") == 0) {
        const char *id = string(item, "call_id"), *name = string(item, "name");
        if (!name)
            return srv_refuse(f, "input", "input: a function_call has no name");
        mfi_buf_str(&t->calls, t->calls.len ? "," : "");
        srv_put_call(&t->calls, id ? id : "", name, mfi_json_get(item, "arguments"));
        t->open = true;
    } else if (strcmp(type, "item_reference") == 0) {
        return srv_refuse(f, "input", "input: nothing is stored that an item could refer to");
    }
    return true;
}

static bool take_input(srv_fields *f, srv_chat *chat)
{
    const mfi_json *input = mfi_json_get(f->body, "input");
    size_t len;
    const char *text = mfi_json_str(input, &len);
    const char *instructions = srv_field_str(f, "instructions", NULL);
    turn t = {.open = false};
    bool ok = !f->refused;
    if (instructions && *instructions) {
        srv_chat_message(chat, "system", instructions, strlen(instructions));
        srv_chat_message_end(chat);
    }
    if (text) {
        srv_chat_message(chat, "user", text, len);
        srv_chat_message_end(chat);
        return ok;
    }
    if (!mfi_json_len(input))
        return srv_refuse(f, "input", "input: neither a text nor a list of items");
    for (size_t i = 0; ok && i < mfi_json_len(input); i++)
        ok = put_item(f, chat, &t, mfi_json_at(input, i));
    close_turn(chat, &t);
    return ok;
}

/* What the answer repeats of the request; what is long isn't repeated. */
static void put_said(const srv_fields *f, srv_responses *r)
{
    static const struct {
        const char *name, *otherwise;
    } members[] = {{"instructions", "null"},
                   {"metadata", "{}"},
                   {"parallel_tool_calls", "true"},
                   {"reasoning", "{\"effort\":null,\"summary\":null}"},
                   {"text", "{\"format\":{\"type\":\"text\"}}"},
                   {"tool_choice", "\"auto\""},
                   {"tools", "[]"},
                   {"user", "null"}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(members); i++) {
        const mfi_json *v = mfi_json_get(f->body, members[i].name);
        mfi_buf text = {0};
        if (mfi_json_typeof(v) != MFI_JSON_NULL)
            mfi_json_put(&text, v);
        bool repeat = text.len && text.len <= MFI_MAX_SERVED_SAID_BYTES;
        mfi_buf_fmt(&r->said, "\"%s\":%s,", members[i].name,
                    repeat ? text.data : members[i].otherwise);
        r->said.failed |= text.failed;
        mfi_buf_free(&text);
    }
}

static bool take_tools(srv_fields *f, srv_chat *chat)
{
    if (!srv_chat_tool_choice(f, chat))
        return false;
    const mfi_json *list = srv_field(f, "tools", MFI_JSON_ARRAY);
    for (size_t i = 0; i < mfi_json_len(list); i++) {
        const mfi_json *tool = mfi_json_at(list, i);
        const char *type = string(tool, "type");
        if (!type || strcmp(type, "function") != 0)
            continue;
        if (!srv_chat_tool(f, chat, tool, "parameters"))
            return false;
    }
    return !f->refused;
}

static bool take_format(srv_fields *f, srv_job *job)
{
    const mfi_json *text = srv_field(f, "text", MFI_JSON_OBJECT);
    const mfi_json *format = mfi_json_get(text, "format");
    const mfi_json *schema = mfi_json_get(format, "schema");
    const char *type = string(format, "type");
    mfi_json *any = NULL;
    bool strict = true; /* as if it were, always */
    if (!srv_member_bool(f, format, "strict", "text", &strict))
        return false;
    if (f->refused || !type || strcmp(type, "text") == 0)
        return !f->refused;
    bool object = strcmp(type, "json_object") == 0;
    if (!object && (strcmp(type, "json_schema") != 0 || !schema))
        return srv_refuse(f, "text",
                          "text: its format is none of text, json_object and json_schema "
                          "with a schema");
    if (object && mfi_json_parse("{\"type\":\"object\"}", 17, "schema", &any, NULL) == MF_OK)
        schema = any;
    bool ok = srv_take_schema(f, job, schema, "text");
    mfi_json_free(&any);
    return ok;
}

/* include names what an answer is to have besides; what isn't here is ignored. */
static bool take_logprobs(srv_fields *f, srv_job *job)
{
    const mfi_json *include = srv_field(f, "include", MFI_JSON_ARRAY);
    int64_t top = 0;
    for (size_t i = 0; i < mfi_json_len(include); i++) {
        const char *name = mfi_json_str(mfi_json_at(include, i), NULL);
        if (!name)
            return srv_refuse(f, "include", "include: not all of it are names");
        job->logprobs |= strcmp(name, "message.output_text.logprobs") == 0;
    }
    srv_field_i64(f, "top_logprobs", 0, MF_TOP_LOGPROBS, &top);
    job->n_top = (uint32_t)top;
    job->on_logprob = srv_responses_logprob;
    return !f->refused;
}

/* auto may drop the beginning of what is too long, and needn't: here it is refused. */
static bool take_truncation(srv_fields *f)
{
    const char *how = srv_field_str(f, "truncation", NULL);
    if (how && strcmp(how, "auto") && strcmp(how, "disabled"))
        return srv_refuse(f, "truncation", "truncation: neither auto nor disabled");
    return !f->refused;
}

bool srv_responses_read(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat,
                        srv_responses *r)
{
    const mfi_json *effort = mfi_json_get(srv_field(f, "reasoning", MFI_JSON_OBJECT), "effort");
    static const char *const stored[] = {"previous_response_id", "conversation", "prompt"};
    bool background = false;
    for (size_t i = 0; i < MFI_ARRAY_LEN(stored); i++)
        if (mfi_json_typeof(mfi_json_get(f->body, stored[i])) != MFI_JSON_NULL)
            return srv_refuse(f, stored[i],
                              "%s: nothing is stored; send the whole conversation as input",
                              stored[i]);
    if (srv_field_bool(f, "background", &background) && background)
        return srv_refuse(f, "background", "nothing is stored: answers can't be fetched later");
    srv_field_bool(f, "stream", &job->stream);
    srv_field_i64(f, "max_output_tokens", 1, INT64_MAX, &job->max_tokens);
    srv_chat_one_call(f, job, NULL);
    srv_field(f, "metadata", MFI_JSON_OBJECT);
    srv_field_str(f, "instructions", NULL);
    srv_field_str(f, "user", NULL);
    if (mfi_json_typeof(effort) != MFI_JSON_NULL && !mfi_json_str(effort, NULL))
        return srv_refuse(f, "reasoning", "reasoning: its effort is not a string");
    put_said(f, r);
    return !f->refused && srv_take_sampling(f, server, job) && srv_take_stop(f, job, "stop") &&
           take_format(f, job) && srv_take_grammar(f, job) && take_logprobs(f, job) &&
           take_truncation(f) && take_tools(f, chat) && take_input(f, chat) &&
           srv_chat_vars(f, chat, mfi_json_str(effort, NULL));
}
