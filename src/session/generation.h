/* A running answer's inside: generate.c begins and ends it and takes its tokens, step.c runs passes
 * for several. */
#ifndef MFI_SESSION_GENERATION_H
#define MFI_SESSION_GENERATION_H

#include "base/buf.h"
#include "session/session_int.h"
#include "text/detok.h"

typedef struct mfi_sampler mfi_sampler;
typedef struct mfi_matcher mfi_matcher;
typedef struct mfi_stops mfi_stops;

struct mf_generation {
    mf_session *session;
    const mfi_session_host *host;
    mf_generate_options o;
    mf_generate_result result;
    mf_status status; /* why it failed, with `error`; MF_OK */
    mf_error error;
    bool done;
    bool listed;           /* in the list of the step under way */
    bool has_next;         /* `next` waits to be evaluated */
    int32_t next;          /* also the last token taken */
    int64_t left;          /* tokens it may still take; < 0: any number */
    uint64_t begin_ns;     /* its first step; 0: none yet */
    uint64_t prompt_at_ns; /* its prompt was evaluated; 0: not yet */
    mfi_sampler *sampler;
    mfi_matcher *matcher; /* NULL: no grammar */
    mfi_detok detok;
    uint32_t strip;   /* spaces that encoding put where text begins */
    mfi_stops *stops; /* NULL: no stop strings */
    mfi_buf whole;    /* one token's text, before stop strings */
    mfi_buf text;     /* what one token shows */
};

/* Takes the next token from the session's logits and shows it: then either it waits to be
 * evaluated, or the answer is done. */
void mfi_generation_take(mf_generation *generation);
/* Ends it with this failure. */
void mfi_generation_fail(mf_generation *generation, mf_status status, const mf_error *err);

#endif
