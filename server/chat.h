/* Conversations of requests: from the protocols' messages and tools to a prompt. */
#ifndef SRV_CHAT_H
#define SRV_CHAT_H

#include "fields.h"

typedef enum srv_tool_choice {
    SRV_TOOLS_AUTO,
    SRV_TOOLS_NONE,
    SRV_TOOLS_REQUIRED, /* some call */
    SRV_TOOLS_NAMED     /* a call of chat.tool_name */
} srv_tool_choice;

/* What a template gets. The parts are JSON text, made by the protocols. */
typedef struct srv_chat {
    mfi_buf messages; /* objects, with commas between them */
    mfi_buf tools;    /* the same: {"type":"function","function":{...}} */
    mfi_buf vars;     /* further variables, each after a comma: ,"name":value */
    size_t n_messages, n_tools;
    size_t n_named; /* tools that were sent, also those that tool_choice leaves out */
    srv_tool_choice tool_choice;
    mfi_buf tool_name;
    mfi_buf names;                     /* of the tools that count, each with its NUL */
    const mfi_json *allowed;           /* of tool_choice: the only tools that count; NULL: all do */
    mfi_buf strict_calls, loose_calls; /* schemas of calls, with commas between them */
    bool strict;                       /* some tool wants its schema kept to */
    mfi_buf prefill;                   /* how the answer begins */
    bool has_prefill;
} srv_chat;

void srv_chat_free(srv_chat *chat);

/* What was put into a buffer that may be empty. */
static inline const char *srv_text_of(const mfi_buf *buf)
{
    return buf->data ? buf->data : "";
}

/* A message whose content is given as text; what follows the content (,"tool_calls":...) comes from
 * the caller, who closes the object with srv_chat_message_end. */
void srv_chat_message(srv_chat *chat, const char *role, const char *content, size_t len);
void srv_chat_message_end(srv_chat *chat);

/* The text of a content: a string, or an array of parts with text. NULL member: "". Refuses what is
 * no text. */
bool srv_content_text(srv_fields *f, const mfi_json *content, const char *param, mfi_buf *out);

/* The result of the call with this id, a message of its own; content as in srv_content_text.
 * failed: the model is told so, in the text, as templates know no other way. */
bool srv_chat_tool_result(srv_fields *f, srv_chat *chat, const char *id, bool failed,
                          const mfi_json *content, const char *param);

/* {"id":...,"type":"function","function":{...}}; arguments: JSON text or any value. */
void srv_put_call(mfi_buf *out, const char *id, const char *name, const mfi_json *arguments);

/* tool_choice as both of OpenAI's protocols have it; what they nest differently is looked for in
 * either place. */
bool srv_chat_tool_choice(srv_fields *f, srv_chat *chat);
/* parallel_tool_calls, or its opposite in Anthropic's tool_choice. */
bool srv_chat_one_call(srv_fields *f, srv_job *job, const mfi_json *choice);

/* A function that can be called, with what its protocol calls its schema. */
bool srv_chat_tool(srv_fields *f, srv_chat *chat, const mfi_json *function, const char *schema);

/* OpenAI's messages. */
bool srv_chat_openai_messages(srv_fields *f, srv_chat *chat);
/* reasoning_effort, chat_template_kwargs. */
bool srv_chat_vars(srv_fields *f, srv_chat *chat, const char *effort);

/* Renders and encodes into the job as its prompt, with the grammar of calls where they are forced.
 */
bool srv_chat_prompt(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat);
/* The text alone, for /apply-template. */
bool srv_chat_render(srv_fields *f, srv_server *server, srv_chat *chat, mf_rendering *rendering);

#endif
