/* Conversations that /v1/conversations keeps: in memory, bounded, those that rested longest go
 * first. Every function may be called from any thread. */
#ifndef SRV_CONVERSATIONS_H
#define SRV_CONVERSATIONS_H

#include <pthread.h>

#include "base/buf.h"

typedef struct srv_conversation srv_conversation;

typedef struct srv_conversations {
    pthread_mutex_t lock; /* for what follows */
    srv_conversation *oldest, *newest;
    size_t n;
    uint64_t bytes;
} srv_conversations;

void srv_conversations_init(srv_conversations *all);
void srv_conversations_free(srv_conversations *all);

/* Metadata is a JSON object, items are objects that begin with their id, with commas between them;
 * both are copied. False: longer than all may be together, or no memory. */
bool srv_conversation_add(srv_conversations *all, const char *id, int64_t created_s,
                          const mfi_buf *metadata, const mfi_buf *items);

/* The others: false if there is none with this id. What they give is appended to out. */
bool srv_conversation_show(srv_conversations *all, const char *id, mfi_buf *out);
bool srv_conversation_items(srv_conversations *all, const char *id, mfi_buf *out);
bool srv_conversation_drop(srv_conversations *all, const char *id);
/* *fits: whether it was done. */
bool srv_conversation_describe(srv_conversations *all, const char *id, const mfi_buf *metadata,
                               bool *fits);
bool srv_conversation_append(srv_conversations *all, const char *id, const mfi_buf *items,
                             bool *fits);
/* *found: whether it has the item. */
bool srv_conversation_item(srv_conversations *all, const char *id, const char *item, mfi_buf *out,
                           bool *found);
bool srv_conversation_drop_item(srv_conversations *all, const char *id, const char *item,
                                bool *found);

#endif
