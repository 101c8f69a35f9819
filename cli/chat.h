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
    uint64_t n_answers; /* since the program began: every one has a seed of its own */
    cli_conversation conversation;
    mfi_buf timeline;  /* the text that the session's tokens stand for */
    cli_answer answer; /* of the turn */
} cli_chat;

/* One turn: a user message in, the answer out. Returns the exit code with the failure reported; the
 * conversation is then as before. An answer that was stopped is part of it. */
int cli_chat_turn(cli_chat *chat, const char *text, size_t len);

/* Forgets the timeline, too. */
void cli_chat_reset(cli_chat *chat);

#endif
