/* States of chats; see chat_state.h. Main thread only. The state is there to save work: where it is
 * missing or wrong, the conversation is evaluated anew. */
#include "chat_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *state_path(const char *path)
{
    static const char suffix[] = ".state";
    char *text = malloc(strlen(path) + sizeof suffix);
    if (text) {
        memcpy(text, path, strlen(path));
        memcpy(text + strlen(path), suffix, sizeof suffix);
    }
    return text;
}

int cli_chat_save(cli_chat *chat, const char *path)
{
    mf_error err = {0};
    int code = cli_conversation_save(&chat->conversation, path);
    if (code || mf_session_length(chat->session) == 0)
        return code;
    char *state = state_path(path);
    if (!state)
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    mf_status status = mf_session_save(chat->session, state, &err);
    if (status == MF_ERR_UNSUPPORTED) /* on a device */
        fprintf(stderr, "(%s; the conversation alone is saved)\n", err.message);
    else
        code = cli_report(status, &err, CLI_RUNNING);
    free(state);
    return code;
}

int cli_chat_load(cli_chat *chat, const char *path)
{
    mf_error err = {0};
    const mf_tokenizer *tokenizer = mf_engine_tokenizer(chat->engine);
    int code = cli_conversation_load(&chat->conversation, path);
    if (code)
        return code;
    char *state = state_path(path);
    if (!state)
        return cli_error(CLI_EXIT_ROOM, "out of memory");
    mf_status status = mf_session_load(chat->session, state, &err);
    if (status == MF_ERR_FILE_MISSING)
        fprintf(stderr, "(%s: none; the conversation is evaluated anew)\n", state);
    else if (status != MF_OK)
        fprintf(stderr, "(%s; the conversation is evaluated anew)\n", err.message);
    free(state);
    chat->timeline.len = 0;
    const int32_t *tokens = mf_session_tokens(chat->session);
    for (size_t i = 0; i < mf_session_length(chat->session); i++) {
        size_t len;
        const char *piece = mf_tokenizer_piece(tokenizer, tokens[i], true, &len);
        mfi_buf_append(&chat->timeline, piece, len);
    }
    return chat->timeline.failed ? cli_error(CLI_EXIT_ROOM, "out of memory") : CLI_EXIT_OK;
}

void cli_chat_keep(cli_chat *chat)
{
    mf_error err = {0};
    if (chat->args->kv_dir && mf_session_keep(chat->session, &err) != MF_OK)
        cli_error(CLI_EXIT_RUNTIME, "the conversation's state is not kept: %s", err.message);
}
