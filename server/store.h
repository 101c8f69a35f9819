/* Answers of /v1/responses that can be asked for again and gone on from: in memory, bounded, the
 * oldest go first. One that is made in the background is here from the beginning, as `pending`: it
 * never makes room for others, so such answers have at most half of all there is. Every function
 * may be called from any thread. */
#ifndef SRV_STORE_H
#define SRV_STORE_H

#include <pthread.h>

#include "reply.h"

typedef struct srv_stored srv_stored;

typedef struct srv_store {
    pthread_mutex_t lock; /* for what follows */
    srv_stored *oldest, *newest;
    size_t n, n_pending;
    uint64_t bytes, pending_bytes; /* of all, of those that are pending */
    bool closed;                   /* to answers in the background */
} srv_store;

typedef struct srv_answer {
    const char *id;
    const mfi_buf *response;      /* as it was sent */
    size_t output_at, output_len; /* where its output's items lie in that */
    size_t status_at, status_len; /* where its status stands */
    const mfi_buf *input;         /* items, those of earlier turns too; with commas between them */
} srv_answer;

void srv_store_init(srv_store *store);
void srv_store_free(srv_store *store);
/* Copies it. False: it is longer than all of them together may be, or there is no memory. */
bool srv_store_add(srv_store *store, const srv_answer *answer);
/* Each appends to out; false: there is none with this id. */
bool srv_store_response(srv_store *store, const char *id, mfi_buf *out);
bool srv_store_input(srv_store *store, const char *id, mfi_buf *out);
typedef enum srv_found { SRV_FOUND, SRV_NOT_FOUND, SRV_FOUND_PENDING } srv_found;
/* Input and output; of one that is pending nothing. */
srv_found srv_store_history(srv_store *store, const char *id, mfi_buf *out);
/* The item with this id of any answer's input or output, as JSON; each is looked for in the newest
 * answer that has it. */
bool srv_store_item(srv_store *store, const char *id, mfi_buf *out);
bool srv_store_drop(srv_store *store, const char *id);

/* Where the item with this id lies among items with commas between them, each of which begins with
 * its id. */
bool srv_items_find(const char *items, size_t items_len, const char *id, size_t *at, size_t *len);

/* ---- answers in the background ---- */

typedef enum srv_begun {
    SRV_BEGUN,
    SRV_BEGUN_TOO_LONG, /* for what such answers may take */
    SRV_BEGUN_FULL,     /* the others take it, there is no memory, or the store is closed */
} srv_begun;

/* Adds an answer that will be made; x is what it is made for, held until it is over and marked as
 * gone where nobody wants it any more: it is dropped, cancelled, or the store closed. */
srv_begun srv_store_begin(srv_store *store, const srv_answer *answer, srv_exchange *x);
/* A pending one's status, in static storage. over: it isn't pending any more. */
void srv_store_status(srv_store *store, const char *id, const char *status, bool over);
/* Replaces a pending one with what became of it; nothing if it isn't pending any more. False: as
 * srv_store_add, and it stays. */
bool srv_store_finish(srv_store *store, const srv_answer *answer);
/* Cancels what is pending; of what is over nothing changes. *background: it was made there. */
bool srv_store_cancel(srv_store *store, const char *id, bool *background);
/* The server ends: cancels all that are pending, and takes no more. */
void srv_store_close(srv_store *store);

#endif
