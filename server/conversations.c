/* Conversations; see conversations.h. A list from the one that rested longest to the one used last.
 * The desk's thread makes, shows and changes them, the engine's appends answers. Never touches a
 * drive: the server's end is theirs. */
#include "conversations.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/defs.h"
#include "base/limits.h"
#include "store.h"

struct srv_conversation {
    srv_conversation *older, *newer;
    char id[48];
    int64_t created_s;
    char *metadata, *items;
    size_t metadata_len, items_len;
};

void srv_conversations_init(srv_conversations *all)
{
    *all = (srv_conversations){.n = 0};
    pthread_mutex_init(&all->lock, NULL);
}

static uint64_t bytes_of(const srv_conversation *c)
{
    return sizeof *c + c->metadata_len + c->items_len;
}

/* ---- the list; it is locked ---- */

static void take_out(srv_conversations *all, srv_conversation *c)
{
    if (c->older)
        c->older->newer = c->newer;
    else
        all->oldest = c->newer;
    if (c->newer)
        c->newer->older = c->older;
    else
        all->newest = c->older;
    all->n--;
    all->bytes -= bytes_of(c);
}

static void put_in(srv_conversations *all, srv_conversation *c)
{
    c->newer = NULL;
    c->older = all->newest;
    if (c->older)
        c->older->newer = c;
    else
        all->oldest = c;
    all->newest = c;
    all->n++;
    all->bytes += bytes_of(c);
}

static void release(srv_conversation *c)
{
    free(c->metadata);
    free(c->items);
    free(c);
}

/* For one more, that isn't in the list, or is the newest there and to grow. */
static void make_room(srv_conversations *all, const srv_conversation *keep, uint64_t bytes)
{
    while (all->oldest && all->oldest != keep &&
           ((!keep && all->n == MFI_MAX_TALKS) || all->bytes + bytes > MFI_MAX_TALK_BYTES)) {
        srv_conversation *c = all->oldest;
        take_out(all, c);
        release(c);
    }
}

/* It is the newest then. */
static srv_conversation *find(srv_conversations *all, const char *id)
{
    srv_conversation *c = all->newest;
    while (c && strcmp(c->id, id) != 0)
        c = c->older;
    if (c) {
        take_out(all, c);
        put_in(all, c);
    }
    return c;
}

/* ---- */

void srv_conversations_free(srv_conversations *all)
{
    for (srv_conversation *c; (c = all->oldest);) {
        take_out(all, c);
        release(c);
    }
    pthread_mutex_destroy(&all->lock);
}

static char *copy(const mfi_buf *from)
{
    char *to = from->failed ? NULL : malloc(from->len + 1);
    if (to && from->len)
        memcpy(to, from->data, from->len);
    return to;
}

bool srv_conversation_add(srv_conversations *all, const char *id, int64_t created_s,
                          const mfi_buf *metadata, const mfi_buf *items)
{
    srv_conversation *c = calloc(1, sizeof *c);
    size_t id_len = strlen(id);
    if (!c)
        return false;
    c->metadata = copy(metadata);
    c->items = copy(items);
    c->metadata_len = metadata->len;
    c->items_len = items->len;
    c->created_s = created_s;
    if (!c->metadata || !c->items || id_len >= sizeof c->id || bytes_of(c) > MFI_MAX_TALK_BYTES) {
        release(c);
        return false;
    }
    memcpy(c->id, id, id_len + 1);
    pthread_mutex_lock(&all->lock);
    make_room(all, NULL, bytes_of(c));
    put_in(all, c);
    pthread_mutex_unlock(&all->lock);
    return true;
}

bool srv_conversation_show(srv_conversations *all, const char *id, mfi_buf *out)
{
    pthread_mutex_lock(&all->lock);
    const srv_conversation *c = find(all, id);
    if (c) {
        mfi_buf_fmt(out,
                    "{\"id\":\"%s\",\"object\":\"conversation\",\"created_at\":%" PRId64
                    ",\"metadata\":",
                    c->id, c->created_s);
        mfi_buf_append(out, c->metadata, c->metadata_len);
        mfi_buf_str(out, "}");
    }
    pthread_mutex_unlock(&all->lock);
    return c != NULL;
}

bool srv_conversation_items(srv_conversations *all, const char *id, mfi_buf *out)
{
    pthread_mutex_lock(&all->lock);
    const srv_conversation *c = find(all, id);
    if (c)
        mfi_buf_append(out, c->items, c->items_len);
    pthread_mutex_unlock(&all->lock);
    return c != NULL;
}

bool srv_conversation_drop(srv_conversations *all, const char *id)
{
    pthread_mutex_lock(&all->lock);
    srv_conversation *c = find(all, id);
    if (c) {
        take_out(all, c);
        release(c);
    }
    pthread_mutex_unlock(&all->lock);
    return c != NULL;
}

bool srv_conversation_describe(srv_conversations *all, const char *id, const mfi_buf *metadata,
                               bool *fits)
{
    char *text = copy(metadata);
    pthread_mutex_lock(&all->lock);
    srv_conversation *c = find(all, id);
    *fits = c && text && bytes_of(c) - c->metadata_len + metadata->len <= MFI_MAX_TALK_BYTES;
    if (*fits) {
        make_room(all, c, metadata->len);
        all->bytes += metadata->len;
        all->bytes -= c->metadata_len;
        free(c->metadata);
        c->metadata = text;
        c->metadata_len = metadata->len;
        text = NULL;
    }
    pthread_mutex_unlock(&all->lock);
    free(text);
    return c != NULL;
}

bool srv_conversation_append(srv_conversations *all, const char *id, const mfi_buf *items,
                             bool *fits)
{
    pthread_mutex_lock(&all->lock);
    srv_conversation *c = find(all, id);
    size_t more = c ? items->len + (c->items_len && items->len) : 0;
    *fits = c && !items->failed && bytes_of(c) + more <= MFI_MAX_TALK_BYTES;
    char *grown = *fits && more ? realloc(c->items, c->items_len + more) : NULL;
    *fits = *fits && (grown || !more);
    if (grown) {
        make_room(all, c, more);
        c->items = grown;
        if (c->items_len)
            c->items[c->items_len] = ',';
        memcpy(c->items + c->items_len + more - items->len, items->data, items->len);
        c->items_len += more;
        all->bytes += more;
    }
    pthread_mutex_unlock(&all->lock);
    return c != NULL;
}

bool srv_conversation_item(srv_conversations *all, const char *id, const char *item, mfi_buf *out,
                           bool *found)
{
    size_t at, len;
    pthread_mutex_lock(&all->lock);
    const srv_conversation *c = find(all, id);
    *found = c && srv_items_find(c->items, c->items_len, item, &at, &len);
    if (*found)
        mfi_buf_append(out, c->items + at, len);
    pthread_mutex_unlock(&all->lock);
    return c != NULL;
}

bool srv_conversation_drop_item(srv_conversations *all, const char *id, const char *item,
                                bool *found)
{
    size_t at, len;
    pthread_mutex_lock(&all->lock);
    srv_conversation *c = find(all, id);
    *found = c && srv_items_find(c->items, c->items_len, item, &at, &len);
    if (*found) {
        if (at + len < c->items_len) { /* with the comma behind it, or that before it */
            len++;
        } else if (at) {
            at--;
            len++;
        }
        memmove(c->items + at, c->items + at + len, c->items_len - at - len);
        c->items_len -= len;
        all->bytes -= len;
    }
    pthread_mutex_unlock(&all->lock);
    return c != NULL;
}
