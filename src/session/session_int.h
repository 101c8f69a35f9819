/* The inside of sessions, shared by the files of this folder. */
#ifndef MFI_SESSION_INT_H
#define MFI_SESSION_INT_H

#include "os/vmem.h"
#include "session/session.h"

/* What windows and recurrent layers held after n tokens, with the logits: what can't be had by
 * cutting. */
typedef struct mfi_checkpoint {
    uint32_t n; /* 0: none */
    bool has_logits;
    mfi_vmem mem; /* as mfi_state_list lists it, rings with room for a whole window */
} mfi_checkpoint;

typedef struct mfi_piece {
    void *at;
    uint64_t bytes;
} mfi_piece;

#define MFI_LAYER_PIECES 4 /* of a layer in a list, at most: there are fewer */

struct mf_session {
    mfi_session_host *host;
    const mfi_plan *plan;
    mf_session *next; /* of the engine's */
    uint32_t length;  /* tokens evaluated */
    uint32_t oldest;  /* position from which on rings have everything */
    bool broken;      /* an evaluation failed half-way: sync or reset first */
    bool has_logits;
    bool generating;             /* a generation has it */
    float *logits;               /* [n_vocab] after the last token */
    mfi_layer_mem *mem;          /* [n_layers] */
    mfi_vmem *kv, *recurrent;    /* [n_layers] behind mem; unused ones are empty */
    int32_t *tokens;             /* [ctx] the timeline */
    mfi_checkpoint *checkpoints; /* [n_checkpoints] */
    mfi_piece *pieces;           /* room for two lists */
};

/* Makes KV for so many positions usable. */
mf_status mfi_session_commit(mf_session *session, uint32_t positions, mf_error *err);

/* ---- state.c ---- */

typedef struct mfi_state_parts {
    bool kv; /* KV that can be cut */
    bool logits;
} mfi_state_parts;

/* The state after n tokens, which must be at hand, in the session's memory or (c) a checkpoint's:
 * layer by layer KV (of windows only what is looked back on, in order), then recurrent state; then
 * logits. Returns how many pieces. */
uint32_t mfi_state_list(const mf_session *session, const mfi_checkpoint *c, uint32_t n,
                        mfi_state_parts parts, mfi_piece *pieces);
/* Whether the state after any beginning of a timeline is at hand: no recurrence, no windows. */
bool mfi_state_can_cut(const mfi_plan *plan);
/* The largest n <= most whose state is at hand; *c: in that checkpoint, NULL: in the session. */
uint32_t mfi_state_reach(const mf_session *session, uint32_t most, const mfi_checkpoint **c);
bool mfi_state_has_logits(const mf_session *session, const mfi_checkpoint *c, uint32_t n);
/* The same for what the timeline and tokens begin with; all of tokens only with logits. */
uint32_t mfi_state_prefix(const mf_session *session, const int32_t *tokens, size_t n_tokens,
                          const mfi_checkpoint **c);
void mfi_state_rewind(mf_session *session, uint32_t n, const mfi_checkpoint *c);
/* Keeps the state as it is now for later, if the plan has room for checkpoints. */
void mfi_state_checkpoint(mf_session *session);
/* Waits until the state can be read and written: a device may be at it. Pieces that lie in a
 * device's own memory are none for the host to look at: mfi_state_move. */
mf_status mfi_state_wait(const mf_session *session, mf_error *err);
bool mfi_state_on_host(const mf_session *session);
/* Copies bytes of pieces, wherever they lie. */
mf_status mfi_state_move(const mf_session *session, void *dst, const void *src, uint64_t bytes,
                         mf_error *err);
mf_status mfi_state_copy(mf_session *dst, const mf_session *src, uint32_t n,
                         const mfi_checkpoint *c, mf_error *err);
/* Around writing a state of n tokens into a session, which is broken in between. */
mf_status mfi_state_begin(mf_session *session, uint32_t n, mf_error *err);
void mfi_state_end(mf_session *session, uint32_t n, bool has_logits);

/* ---- session.c ---- */

/* Whether n tokens can be appended: MF_ERR_STATE, MF_ERR_CONTEXT, MF_ERR_ARGUMENT. */
mf_status mfi_session_check(const mf_session *session, const int32_t *tokens, size_t n,
                            mf_error *err);

/* What one session appends in a pass. */
typedef struct mfi_part {
    mf_session *session;
    const int32_t *tokens;
    uint32_t n;
    bool logits; /* those after the last token are wanted */
    bool mark;   /* where the timeline ends now may be come back to: a checkpoint */
} mfi_part;

/* Where a pass stands in a prompt. */
typedef struct mfi_prompt_progress {
    size_t at, n; /* tokens before it, and of the whole prompt */
} mfi_prompt_progress;

/* Evaluates parts of distinct sessions together: at most the plan's chunk of tokens, checked
 * already. If it fails all of them must be reset. progress: NULL, or what the first part's layers
 * are told for, which may cancel the pass. */
mf_status mfi_session_pass(const mfi_part *parts, uint32_t n_parts,
                           const mfi_prompt_progress *progress, mf_error *err);

#endif
