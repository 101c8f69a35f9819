/* The inside of sessions, shared by the files of this folder. */
#ifndef MFI_SESSION_INT_H
#define MFI_SESSION_INT_H

#include "os/vmem.h"
#include "session/session.h"

struct mf_session {
    mfi_session_host *host;
    const mfi_plan *plan;
    mf_session *next; /* of the engine's */
    uint32_t length;  /* tokens evaluated */
    uint32_t longest; /* that length has been since it was 0 */
    bool broken;      /* an evaluation failed half-way: only reset helps */
    bool has_logits;
    bool generating;          /* a generation has it */
    float *logits;            /* [n_vocab] after the last token */
    mfi_layer_mem *mem;       /* [n_layers] */
    mfi_vmem *kv, *recurrent; /* [n_layers] behind mem; unused ones are empty */
    int32_t *tokens;          /* [ctx] the timeline */
};

/* Whether n tokens can be appended: MF_ERR_STATE, MF_ERR_CONTEXT, MF_ERR_ARGUMENT. */
mf_status mfi_session_check(const mf_session *session, const int32_t *tokens, size_t n,
                            mf_error *err);

/* What one session appends in a pass. */
typedef struct mfi_part {
    mf_session *session;
    const int32_t *tokens;
    uint32_t n;
    bool logits; /* those after the last token are wanted */
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
