/* A conversation: what was said, by whom, and its file. */
#ifndef MOEFLUX_CLI_CONVERSATION_H
#define MOEFLUX_CLI_CONVERSATION_H

#include "answer.h"
#include "base/buf.h"
#include "moeflux/moeflux.h"

typedef struct cli_conversation {
    mf_chat_message *messages; /* [n]; roles are static, the rest is ours */
    size_t n, cap;
} cli_conversation;

/* Appends; false: out of memory. role: "system", "user" or "assistant". */
bool cli_conversation_add(cli_conversation *c, const char *role, const char *content, size_t len);
/* Appends what the model answered: text, reasoning, calls. */
bool cli_conversation_add_answer(cli_conversation *c, const cli_answer *answer);
/* Takes back the last message. */
void cli_conversation_pop(cli_conversation *c);
/* Sets the system message, or removes it with NULL; false: out of memory. */
bool cli_conversation_system(cli_conversation *c, const char *content, size_t len);
/* Forgets everything but the system message. */
void cli_conversation_clear(cli_conversation *c);
void cli_conversation_free(cli_conversation *c);

/* Writes {"schema":1,"messages":[{"role":...,"content":...},...]}; the file appears whole or stays
 * as it was. Returns the exit code, with the failure reported. */
int cli_conversation_save(const cli_conversation *c, const char *path);
/* Replaces *c by a file that was saved, or that holds the array alone; *c is as before on failure.
 */
int cli_conversation_load(cli_conversation *c, const char *path);

#endif
