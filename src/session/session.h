/* A session: one timeline of tokens with its KV and recurrent state.
 *
 * The public mf_session_* functions are implemented here over what the engine lends. */
#ifndef MFI_SESSION_SESSION_H
#define MFI_SESSION_SESSION_H

#include "forward/forward.h"
#include "grammar/trie.h"

typedef struct mfi_prefix_cache mfi_prefix_cache;

/* What a session needs of its engine; filled by the engine, valid as long as it. */
typedef struct mfi_session_host {
    mf_engine *engine;
    const char *model_path; /* for messages */
    const mfi_plan *plan;
    mfi_forward *forward;
    mfi_backend *backend;
    const mf_tokenizer *tokenizer; /* may be NULL */
    const int32_t *eos;            /* ids that end an answer */
    uint32_t n_eos;
    const mfi_vocab_trie *trie; /* NULL: the engine has no room for grammars */
    mf_progress_fn progress;
    void *progress_user;
    mfi_prefix_cache *prefix; /* the cache on disk; NULL: none */
    mf_session *sessions;     /* that are open, the last opened first */
    uint32_t n_sessions;
} mfi_session_host;

mfi_session_host *mfi_engine_session_host(mf_engine *engine); /* engine.c */

/* What a snapshot must agree with to be of use. */
typedef struct mfi_identity {
    uint64_t model[2]; /* its tensors, and what is in them */
    uint64_t numerics; /* what bits depend on beside the model */
    char text[40];     /* the latter for people: "cpu avx2 q8 f32/f32 1-9c3e" */
} mfi_identity;

/* Made when it is first asked for, which takes a moment; engine.c. */
mf_status mfi_engine_identity(mf_engine *engine, const mfi_identity **id, mf_error *err);

#endif
