/* /v1/responses: what its two files share. */
#ifndef SRV_RESPONSES_H
#define SRV_RESPONSES_H

#include "chat.h"

typedef struct srv_responses {
    uint64_t sequence;                   /* of events */
    mfi_buf items;                       /* of the output, with commas between them */
    size_t logprobs_kept, logprobs_from; /* how much is the text's; where the item's begins */
    size_t text_seen, other_seen;        /* when that was looked at last */
    bool was_in_reasoning;               /* at the token before */
    mfi_buf said; /* members that repeat what the request said, each before a comma */
} srv_responses;

/* An srv_logprob_fn. */
void srv_responses_logprob(srv_choice *choice, mf_token_logprob chosen, const mf_token_logprob *top,
                           size_t n_top);

/* Reads a request into job and chat. */
bool srv_responses_read(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat,
                        srv_responses *r);

#endif
