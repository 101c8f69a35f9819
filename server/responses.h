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
    bool store, count_only;
    bool keep;         /* items of the input are kept: it is stored, or belongs to a conversation */
    char previous[48]; /* id of the answer that it goes on from, "": none */
    char conversation[48]; /* or of the conversation that it is part of */
    size_t new_at;         /* where items of this request begin in the input, with their comma */
    mfi_buf input;         /* items, if they are to be stored: those of earlier turns, too */
    size_t n_input;        /* of this request */
    size_t n_references, reference_bytes; /* followed so far, and how long what they named is */
} srv_responses;

/* An srv_logprob_fn. */
void srv_responses_logprob(srv_choice *choice, mf_token_logprob chosen, const mf_token_logprob *top,
                           size_t n_top);

/* Reads a request into job and chat. */
bool srv_responses_read(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat,
                        srv_responses *r);

/* metadata, if it is there, is what it may be; else it is refused. */
bool srv_responses_metadata(srv_fields *f);
/* A list of items, kept in r->input under the id of what they belong to. */
bool srv_responses_read_items(srv_fields *f, srv_server *server, const char *id,
                              const mfi_json *list, srv_responses *r);
/* Answers with a page of items that have commas between them, or with as many as there may be. */
void srv_show_items(srv_exchange *x, const mfi_buf *items, bool all);

/* An item of the request as it is stored: with an id, a type and a status. */
void srv_responses_keep_item(srv_responses *r, const char *response_id, const mfi_json *item);
void srv_responses_keep_text(srv_responses *r, const char *response_id, const char *text,
                             size_t len);

#endif
