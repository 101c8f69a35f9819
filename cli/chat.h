/* A chat: a conversation on a session, a turn at a time, nothing evaluated twice. */
#ifndef MOEFLUX_CLI_CHAT_H
#define MOEFLUX_CLI_CHAT_H

#include "answer.h"
#include "cli.h"
#include "conversation.h"
#include "output.h"

typedef struct cli_chat {
    const cli_args *args;
    mf_engine *engine;
    mf_session *session;
    mf_template *template; /* of --chat-template; NULL: the model's */
    mf_grammar *grammar;   /* every answer is of it; NULL: of none */
    cli_progress progress;
    cli_output out;
    bool interactive; /* SIGINT stops an answer, not the program */
    mf_sampling sampling;
    mfi_buf tools;        /* a JSON array for the template; empty: none */
    const char *thinking; /* "true", "false"; NULL: the template's choice */
    uint64_t n_answers;   /* since the program began: every one has a seed of its own */
    cli_conversation conversation;
    mfi_buf timeline;  /* the text that the session's tokens stand for */
    cli_answer answer; /* of the turn */
} cli_chat;

/* One turn: a user message in, the answer out. Returns the exit code with the failure reported; the
 * conversation is then as before. An answer that was stopped is part of it. */
int cli_chat_turn(cli_chat *chat, const char *text, size_t len);

/* Gives the template tools, or none with an empty text, or says whether to think. *read: it makes
 * something of that; otherwise nothing has changed. Returns the exit code with the failure
 * reported. */
int cli_chat_set_tools(cli_chat *chat, const char *json, size_t len, bool *read);
int cli_chat_set_thinking(cli_chat *chat, bool on, bool *read);

/* Forgets the timeline, too. */
void cli_chat_reset(cli_chat *chat);

#endif
