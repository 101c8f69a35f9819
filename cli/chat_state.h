/* What a chat leaves for later: the conversation with its session's state, and the prefix cache. */
#ifndef MOEFLUX_CLI_CHAT_STATE_H
#define MOEFLUX_CLI_CHAT_STATE_H

#include "chat.h"

/* --save: the conversation to `path`, the session's state to "<path>.state". */
int cli_chat_save(cli_chat *chat, const char *path);
/* --load: both; without a state that fits, the conversation alone, which is told. Returns the exit
 * code with the failure reported. */
int cli_chat_load(cli_chat *chat, const char *path);
/* Offers the timeline to the prefix cache before it goes; a failure is told, no more. */
void cli_chat_keep(cli_chat *chat);

#endif
