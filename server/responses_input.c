/* Requests of /v1/responses: items into messages; see responses.h. On the desk's thread. */
#include <string.h>

#include "responses.h"
#include "say.h"

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
    return id ? srv_chat_tool_result(f, chat, id, false, mfi_json_get(item, "output"), "input")
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
    }
    return true;
}

/* The conversation that the answer is to be part of. */
static bool take_conversation(srv_fields *f, srv_server *server, srv_responses *r, mfi_buf *text)
{
    const mfi_json *v = mfi_json_get(f->body, "conversation");
    const char *id =
        mfi_json_typeof(v) == MFI_JSON_OBJECT ? string(v, "id") : mfi_json_str(v, NULL);
    if (!id)
        return srv_refuse(f, "conversation", "conversation: neither an id nor an object with one");
    if (mfi_json_typeof(mfi_json_get(f->body, "previous_response_id")) != MFI_JSON_NULL)
        return srv_refuse(f, "conversation",
                          "conversation: previous_response_id has no place beside it");
    if (strlen(id) >= sizeof r->conversation ||
        !srv_conversation_items(&server->conversations, id, text)) {
        f->refused = true;
        srv_reply_error(f->x, 404, "invalid_request_error", "conversation",
                        "Conversation with id '%.64s' not found.", id);
        return false;
    }
    memcpy(r->conversation, id, strlen(id) + 1);
    r->keep = !r->count_only;
    return true;
}

/* The answer that this one goes on from. Its instructions don't count any more. */
static bool take_previous(srv_fields *f, srv_server *server, srv_responses *r, const char *id,
                          mfi_buf *text)
{
    srv_found found = strlen(id) < sizeof r->previous ? srv_store_history(&server->store, id, text)
                                                      : SRV_NOT_FOUND;
    if (found == SRV_FOUND_PENDING)
        return srv_refuse(f, "previous_response_id",
                          "Previous response with id '%.64s' is still being made: it can be gone "
                          "on from once its status is neither queued nor in_progress.",
                          id);
    if (found != SRV_FOUND) {
        f->x->error_code = "previous_response_not_found";
        return srv_refuse(f, "previous_response_id", "Previous response with id '%.64s' not found.",
                          id);
    }
    memcpy(r->previous, id, strlen(id) + 1);
    return true;
}

/* Items that stand before the request's. */
static bool take_history(srv_fields *f, srv_server *server, srv_chat *chat, srv_responses *r,
                         turn *t)
{
    const char *id = srv_field_str(f, "previous_response_id", NULL);
    bool in = mfi_json_typeof(mfi_json_get(f->body, "conversation")) != MFI_JSON_NULL;
    const char *param = in ? "conversation" : "previous_response_id";
    mfi_buf text = {0};
    mfi_json *items = NULL;
    if (f->refused || (!id && !in))
        return !f->refused;
    mfi_buf_str(&text, "[");
    if (in ? !take_conversation(f, server, r, &text) : !take_previous(f, server, r, id, &text)) {
        mfi_buf_free(&text);
        return false;
    }
    if (r->keep)
        mfi_buf_append(&r->input, text.data + 1, text.len - 1);
    r->new_at = r->input.len;
    mfi_buf_str(&text, "]");
    bool ok = !srv_too_many_values(&text) &&
              mfi_json_parse(srv_text_of(&text), text.len, "history", &items, NULL) == MF_OK;
    if (!ok)
        srv_refuse(f, param, "the conversation has grown too long to go on with");
    mfi_buf_free(&text);
    for (size_t i = 0; ok && i < mfi_json_len(items); i++)
        ok = put_item(f, chat, t, mfi_json_at(items, i));
    mfi_json_free(&items);
    return ok;
}

/* {"type":"item_reference","id":...}; clients may leave out the type. */
static bool is_reference(const mfi_json *item)
{
    const char *type = string(item, "type");
    return type ? strcmp(type, "item_reference") == 0
                : string(item, "id") && !string(item, "role") &&
                      mfi_json_typeof(mfi_json_get(item, "content")) == MFI_JSON_NULL;
}

/* The item that a reference names, of any stored answer; NULL: refused. Bounded, as a request may
 * name a long one often. */
static mfi_json *follow(srv_fields *f, srv_server *server, srv_responses *r, const mfi_json *item)
{
    const char *id = string(item, "id");
    mfi_buf text = {0};
    mfi_json *found = NULL;
    if (!id || !*id) {
        srv_refuse(f, "input", "input: an item_reference has no id");
    } else if (++r->n_references > MFI_MAX_ITEM_REFERENCES) {
        srv_refuse(f, "input", "input: more than %d items are referred to",
                   MFI_MAX_ITEM_REFERENCES);
    } else if (!srv_store_item(&server->store, id, &text)) {
        f->refused = true;
        srv_reply_error(f->x, 404, "invalid_request_error", "input",
                        "Item with id '%.64s' not found. Items are kept with their answers, unless "
                        "`store` is false, as long as there is room.",
                        id);
    } else if ((r->reference_bytes += text.len) > server->options->max_body_bytes ||
               srv_too_many_values(&text)) {
        srv_refuse(f, "input", "input: the items that are referred to are too long together");
    } else if (text.failed || mfi_json_parse(text.data, text.len, "item", &found, NULL) != MF_OK) {
        found = NULL;
        srv_refuse(f, "input", "out of memory");
    }
    mfi_buf_free(&text);
    return found;
}

static bool take_list(srv_fields *f, srv_server *server, const char *response_id,
                      const mfi_json *list, srv_chat *chat, srv_responses *r, turn *t)
{
    bool ok = true;
    for (size_t i = 0; ok && i < mfi_json_len(list); i++) {
        const mfi_json *item = mfi_json_at(list, i);
        mfi_json *found = NULL;
        if (is_reference(item))
            item = found = follow(f, server, r, item);
        ok = item && put_item(f, chat, t, item);
        srv_responses_keep_item(r, response_id, item);
        mfi_json_free(&found);
    }
    return ok;
}

bool srv_responses_read_items(srv_fields *f, srv_server *server, const char *id,
                              const mfi_json *list, srv_responses *r)
{
    srv_chat chat = {0};
    turn t = {.open = false};
    bool ok = take_list(f, server, id, list, &chat, r, &t);
    close_turn(&chat, &t);
    srv_chat_free(&chat);
    return ok;
}

static bool take_items(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat,
                       srv_responses *r, turn *t)
{
    const mfi_json *input = mfi_json_get(f->body, "input");
    size_t len;
    const char *text = mfi_json_str(input, &len);
    if (text) {
        close_turn(chat, t);
        srv_chat_message(chat, "user", text, len);
        srv_chat_message_end(chat);
        srv_responses_keep_text(r, job->id, text, len);
        return true;
    }
    if (mfi_json_typeof(input) != MFI_JSON_ARRAY ||
        (!mfi_json_len(input) && !*r->previous && !*r->conversation))
        return srv_refuse(f, "input", "input: neither a text nor a list of items");
    return take_list(f, server, job->id, input, chat, r, t);
}

static bool take_input(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat,
                       srv_responses *r)
{
    const char *instructions = srv_field_str(f, "instructions", NULL);
    turn t = {.open = false};
    if (instructions && *instructions) {
        srv_chat_message(chat, "system", instructions, strlen(instructions));
        srv_chat_message_end(chat);
    }
    bool ok = !f->refused && take_history(f, server, chat, r, &t) &&
              take_items(f, server, job, chat, r, &t);
    close_turn(chat, &t);
    return ok;
}

/* At most 16 names with short strings, which the answer repeats whole. */
bool srv_responses_metadata(srv_fields *f)
{
    const mfi_json *object = srv_field(f, "metadata", MFI_JSON_OBJECT);
    bool ok = mfi_json_len(object) <= MFI_MAX_METADATA;
    for (size_t i = 0; ok && i < mfi_json_len(object); i++) {
        const char *name = NULL;
        size_t len;
        const char *text = mfi_json_str(mfi_json_member(object, i, &name), &len);
        ok = text && srv_characters(text, len) <= MFI_MAX_METADATA_BYTES &&
             srv_characters(name, strlen(name)) <= MFI_MAX_METADATA_BYTES / 8;
    }
    return ok ? !f->refused
              : srv_refuse(f, "metadata", "metadata: not at most %d strings of %d characters",
                           MFI_MAX_METADATA, MFI_MAX_METADATA_BYTES);
}

/* What the answer repeats of the request; what is long isn't repeated. */
static void put_said(const srv_fields *f, srv_responses *r)
{
    static const struct {
        const char *name, *otherwise;
    } members[] = {{"instructions", "null"},
                   {"metadata", "{}"},
                   {"parallel_tool_calls", "true"},
                   {"prompt_cache_key", "null"},
                   {"reasoning", "{\"effort\":null,\"summary\":null}"},
                   {"safety_identifier", "null"},
                   {"text", "{\"format\":{\"type\":\"text\"}}"},
                   {"tool_choice", "\"auto\""},
                   {"tools", "[]"},
                   {"user", "null"}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(members); i++) {
        const mfi_json *v = mfi_json_get(f->body, members[i].name);
        mfi_buf text = {0};
        if (mfi_json_typeof(v) != MFI_JSON_NULL)
            mfi_json_put(&text, v);
        bool limited = strcmp(members[i].name, "metadata") == 0; /* by its own limits */
        bool repeat = text.len && (limited || text.len <= MFI_MAX_SERVED_SAID_BYTES);
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
    const mfi_json *format = mfi_json_get(srv_field(f, "text", MFI_JSON_OBJECT), "format");
    return srv_take_format(f, job, format, format, "text");
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
    bool background = false;
    if (mfi_json_typeof(mfi_json_get(f->body, "prompt")) != MFI_JSON_NULL)
        return srv_refuse(f, "prompt", "prompt: none are stored");
    r->store = true;
    srv_field_bool(f, "store", &r->store);
    srv_field_bool(f, "stream", &job->stream);
    srv_field_bool(f, "background", &background);
    job->background = background && !job->count_only;
    if (job->background && !r->store)
        return srv_refuse(f, "background",
                          "background: an answer that is made in the background has to be stored; "
                          "leave out store, or set it to true");
    if (job->background && job->stream)
        return srv_refuse(f, "background",
                          "background: answers in the background aren't streamed; ask for the "
                          "answer with its id until it is over, or leave out one of both");
    r->count_only = job->count_only;
    r->store = r->keep = r->store && !job->count_only;
    srv_field_i64(f, "max_output_tokens", 1, INT64_MAX, &job->max_tokens);
    srv_chat_one_call(f, job, NULL);
    srv_field_str(f, "instructions", NULL);
    srv_field_str(f, "user", NULL);
    srv_field_str(f, "prompt_cache_key", NULL);
    srv_field_str(f, "safety_identifier", NULL);
    if (!srv_responses_metadata(f))
        return false;
    if (mfi_json_typeof(effort) != MFI_JSON_NULL && !mfi_json_str(effort, NULL))
        return srv_refuse(f, "reasoning", "reasoning: its effort is not a string");
    put_said(f, r);
    return !f->refused && srv_take_sampling(f, server, job) && srv_take_stop(f, job, "stop") &&
           take_format(f, job) && srv_take_grammar(f, job) && take_logprobs(f, job) &&
           take_truncation(f) && take_tools(f, chat) && take_input(f, server, job, chat, r) &&
           srv_chat_vars(f, chat, mfi_json_str(effort, NULL));
}
