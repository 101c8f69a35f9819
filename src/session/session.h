/* A session: one timeline of tokens with its KV and recurrent state.
 *
 * The public mf_session_* functions are implemented here over what the engine lends. */
#ifndef MFI_SESSION_SESSION_H
#define MFI_SESSION_SESSION_H

#include "forward/forward.h"
#include "grammar/trie.h"

/* What a session needs of its engine; filled by the engine, valid as long as it. */
typedef struct mfi_session_host {
    mf_engine *engine;
    const char *model_path; /* for messages */
    const mfi_plan *plan;
    mfi_forward *forward;
    const mf_tokenizer *tokenizer; /* may be NULL */
    const int32_t *eos;            /* ids that end an answer */
    uint32_t n_eos;
    const mfi_vocab_trie *trie; /* NULL: the engine has no room for grammars */
    mf_progress_fn progress;
    void *progress_user;
    mf_session *sessions; /* that are open, the last opened first */
    uint32_t n_sessions;
} mfi_session_host;

mfi_session_host *mfi_engine_session_host(mf_engine *engine); /* engine.c */

#endif
