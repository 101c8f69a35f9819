/* /v1/responses: what its two files share. */
#ifndef SRV_RESPONSES_H
#define SRV_RESPONSES_H

#include "chat.h"

typedef struct srv_responses {
    uint64_t sequence; /* of events */
    mfi_buf items;     /* of the output, with commas between them */
    mfi_buf said;      /* members that repeat what the request said, each before a comma */
} srv_responses;

/* Reads a request into job and chat. */
bool srv_responses_read(srv_fields *f, srv_server *server, srv_job *job, srv_chat *chat,
                        srv_responses *r);

#endif
