/* Answers of /v1/responses that can be asked for again and gone on from: in memory, bounded, the
 * oldest go first. Every function may be called from any thread. */
#ifndef SRV_STORE_H
#define SRV_STORE_H

#include <pthread.h>

#include "base/buf.h"

typedef struct srv_stored srv_stored;

typedef struct srv_store {
    pthread_mutex_t lock; /* for what follows */
    srv_stored *oldest, *newest;
    size_t n;
    uint64_t bytes;
} srv_store;

typedef struct srv_answer {
    const char *id;
    const mfi_buf *response;      /* as it was sent */
    size_t output_at, output_len; /* where its output's items lie in that */
    const mfi_buf *input;         /* items, those of earlier turns too; with commas between them */
} srv_answer;

void srv_store_init(srv_store *store);
void srv_store_free(srv_store *store);
/* Copies it. False: it is longer than all of them together may be, or there is no memory. */
bool srv_store_add(srv_store *store, const srv_answer *answer);
/* Each appends to out; false: there is none with this id. History is input and output. */
bool srv_store_response(srv_store *store, const char *id, mfi_buf *out);
bool srv_store_input(srv_store *store, const char *id, mfi_buf *out);
bool srv_store_history(srv_store *store, const char *id, mfi_buf *out);
/* The item with this id of any answer's input or output, as JSON; each is looked for in the newest
 * answer that has it. */
bool srv_store_item(srv_store *store, const char *id, mfi_buf *out);
bool srv_store_drop(srv_store *store, const char *id);

#endif
