/* Stored answers; see store.h. A list from the oldest to the newest, each in one block with a table
 * of its items, so that who looks for an item doesn't go through megabytes with the store locked.
 * The engine's thread adds, the desk's looks up, drops and cancels; it also begins those in the
 * background, and the loop's closes. Never touches a drive: the server's end is theirs. */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "base/defs.h"
#include "base/json.h"
#include "base/limits.h"

#define ITEM_BEGIN "{\"id\":" /* as every item begins that can be looked for */

/* An item of the output or the input. */
typedef struct item {
    uint32_t hash;    /* of its id, with the quotes */
    uint32_t at, len; /* in the text */
} item;

struct srv_stored {
    srv_stored *older, *newer;
    char id[48];
    size_t response_len, output_at, output_len, input_len, n_items;
    bool background;
    srv_exchange *x;              /* held while it is pending; NULL: it is over */
    const char *status;           /* instead of what the text says; NULL: that */
    size_t status_at, status_len; /* of what the text says */
    char *text;                   /* [response_len + input_len], behind the items */
    item items[];                 /* [n_items]: the output's first */
};

static uint32_t hash_of(const char *bytes, size_t len)
{
    uint32_t h = 2166136261u;
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)bytes[i]) * 16777619u;
    return h;
}

/* Where the object ends that begins at `at`: behind its brace. */
static const char *object_end(const char *at, const char *end)
{
    size_t depth = 0;
    bool in_string = false;
    for (; at < end; at++) {
        if (in_string && *at == '\\')
            at++;
        else if (*at == '"')
            in_string = !in_string;
        else if (!in_string && *at == '{')
            depth++;
        else if (!in_string && *at == '}' && --depth == 0)
            return at + 1;
    }
    return end;
}

/* The length of the string at `at`, with its quotes; 0: there is none. */
static size_t string_len(const char *at, const char *end)
{
    const char *begin = at;
    if (at == end || *at != '"')
        return 0;
    for (at++; at < end && *at != '"'; at++)
        at += *at == '\\';
    return at < end ? (size_t)(at + 1 - begin) : 0;
}

/* Notes the items that lie in `items` with commas between them; `before` is what the text has
 * before those. */
static void note_items(const char *items, size_t len, size_t before, mfi_buf *out)
{
    const char *end = items + len;
    size_t n = strlen(ITEM_BEGIN);
    for (const char *at = items, *next; at < end; at = next + (next < end)) {
        next = object_end(at, end);
        if ((size_t)(next - at) < n || memcmp(at, ITEM_BEGIN, n) != 0)
            continue;
        const item it = {.hash = hash_of(at + n, string_len(at + n, next)),
                         .at = (uint32_t)(before + (size_t)(at - items)),
                         .len = (uint32_t)(next - at)};
        mfi_buf_append(out, &it, sizeof it);
    }
}

void srv_store_init(srv_store *store)
{
    *store = (srv_store){.n = 0};
    pthread_mutex_init(&store->lock, NULL);
}

static uint64_t bytes_of(const srv_stored *s)
{
    return sizeof *s + s->n_items * sizeof *s->items + s->response_len + s->input_len;
}

/* It isn't pending any more. The store is locked. */
static void settle(srv_store *store, srv_stored *s, bool unwanted)
{
    if (!s->x)
        return;
    if (unwanted)
        atomic_store(&s->x->gone, true);
    srv_exchange_release(s->x);
    s->x = NULL;
    store->n_pending--;
    store->pending_bytes -= bytes_of(s);
}

/* The store is locked. */
static void take_out(srv_store *store, srv_stored *s)
{
    settle(store, s, true);
    if (s->older)
        s->older->newer = s->newer;
    else
        store->oldest = s->newer;
    if (s->newer)
        s->newer->older = s->older;
    else
        store->newest = s->older;
    store->n--;
    store->bytes -= bytes_of(s);
    free(s);
}

void srv_store_free(srv_store *store)
{
    while (store->oldest)
        take_out(store, store->oldest);
    pthread_mutex_destroy(&store->lock);
}

/* An answer in a block of its own; NULL: it is longer than all together may be, or no memory. */
static srv_stored *copy_answer(const srv_answer *a)
{
    const mfi_buf *response = a->response, *input = a->input;
    size_t id_len = strlen(a->id);
    mfi_buf items = {0};
    if (response->failed || input->failed || id_len >= sizeof((srv_stored *)0)->id ||
        response->len > MFI_MAX_STORED_BYTES || input->len > MFI_MAX_STORED_BYTES)
        return NULL;
    note_items(response->data + a->output_at, a->output_len, a->output_at, &items);
    note_items(input->len ? input->data : "", input->len, response->len, &items);
    size_t len = items.len + response->len + input->len;
    srv_stored *s = NULL;
    if (!items.failed && sizeof *s + len <= MFI_MAX_STORED_BYTES && (s = malloc(sizeof *s + len))) {
        *s = (srv_stored){.response_len = response->len,
                          .output_at = a->output_at,
                          .output_len = a->output_len,
                          .input_len = input->len,
                          .status_at = a->status_at,
                          .status_len = a->status_len,
                          .n_items = items.len / sizeof *s->items};
        s->text = (char *)(s->items + s->n_items);
        memcpy(s->id, a->id, id_len + 1);
        if (items.len)
            memcpy(s->items, items.data, items.len);
        memcpy(s->text, response->data, response->len);
        if (input->len)
            memcpy(s->text + response->len, input->data, input->len);
    }
    mfi_buf_free(&items);
    return s;
}

/* What is asked for is most often new. The store is locked. */
static srv_stored *find(const srv_store *store, const char *id)
{
    srv_stored *s = store->newest;
    while (s && strcmp(s->id, id) != 0)
        s = s->older;
    return s;
}

/* Makes room, where there can be some, and puts it in. The store is locked. */
static bool put_in(srv_store *store, srv_stored *s)
{
    if (store->pending_bytes + bytes_of(s) > MFI_MAX_STORED_BYTES)
        return false;
    for (srv_stored *old = store->oldest, *newer; old; old = newer) {
        newer = old->newer;
        if (store->n < MFI_MAX_STORED_RESPONSES &&
            store->bytes + bytes_of(s) <= MFI_MAX_STORED_BYTES)
            break;
        if (!old->x)
            take_out(store, old);
    }
    s->older = store->newest;
    if (s->older)
        s->older->newer = s;
    else
        store->oldest = s;
    store->newest = s;
    store->n++;
    store->bytes += bytes_of(s);
    return true;
}

bool srv_store_add(srv_store *store, const srv_answer *a)
{
    srv_stored *s = copy_answer(a);
    if (!s)
        return false;
    pthread_mutex_lock(&store->lock);
    bool ok = put_in(store, s);
    pthread_mutex_unlock(&store->lock);
    if (!ok)
        free(s);
    return ok;
}

bool srv_store_response(srv_store *store, const char *id, mfi_buf *out)
{
    pthread_mutex_lock(&store->lock);
    const srv_stored *s = find(store, id);
    if (s && s->status) {
        size_t behind = s->status_at + s->status_len;
        mfi_buf_append(out, s->text, s->status_at);
        mfi_buf_str(out, s->status);
        mfi_buf_append(out, s->text + behind, s->response_len - behind);
    } else if (s) {
        mfi_buf_append(out, s->text, s->response_len);
    }
    pthread_mutex_unlock(&store->lock);
    return s != NULL;
}

bool srv_store_input(srv_store *store, const char *id, mfi_buf *out)
{
    pthread_mutex_lock(&store->lock);
    const srv_stored *s = find(store, id);
    if (s)
        mfi_buf_append(out, s->text + s->response_len, s->input_len);
    pthread_mutex_unlock(&store->lock);
    return s != NULL;
}

srv_found srv_store_history(srv_store *store, const char *id, mfi_buf *out)
{
    pthread_mutex_lock(&store->lock);
    const srv_stored *s = find(store, id);
    srv_found found = !s ? SRV_NOT_FOUND : s->x ? SRV_FOUND_PENDING : SRV_FOUND;
    if (found == SRV_FOUND) {
        mfi_buf_append(out, s->text + s->response_len, s->input_len);
        mfi_buf_str(out, s->input_len && s->output_len ? "," : "");
        mfi_buf_append(out, s->text + s->output_at, s->output_len);
    }
    pthread_mutex_unlock(&store->lock);
    return found;
}

/* The item whose id is this string with its quotes, NULL: the answer has none. */
static const item *find_item(const srv_stored *s, const mfi_buf *id, uint32_t hash)
{
    size_t n = strlen(ITEM_BEGIN);
    for (const item *it = s->items; it < s->items + s->n_items; it++)
        if (it->hash == hash && it->len > n + id->len &&
            memcmp(s->text + it->at + n, id->data, id->len) == 0)
            return it;
    return NULL;
}

bool srv_store_item(srv_store *store, const char *id, mfi_buf *out)
{
    mfi_buf quoted = {0};
    const item *it = NULL;
    mfi_json_put_str(&quoted, id, strlen(id));
    if (quoted.failed)
        return false;
    uint32_t hash = hash_of(quoted.data, quoted.len);
    pthread_mutex_lock(&store->lock);
    for (const srv_stored *s = store->newest; s && !it; s = s->older)
        if ((it = find_item(s, &quoted, hash)))
            mfi_buf_append(out, s->text + it->at, it->len);
    pthread_mutex_unlock(&store->lock);
    mfi_buf_free(&quoted);
    return it != NULL;
}

bool srv_items_find(const char *items, size_t items_len, const char *id, size_t *at, size_t *len)
{
    const char *end = items + items_len;
    mfi_buf begin = {0};
    bool found = false;
    mfi_buf_str(&begin, ITEM_BEGIN);
    mfi_json_put_str(&begin, id, strlen(id));
    for (const char *p = items, *next; p < end && !found && !begin.failed;
         p = next + (next < end)) {
        next = object_end(p, end);
        *at = (size_t)(p - items);
        *len = (size_t)(next - p);
        found = *len > begin.len && memcmp(p, begin.data, begin.len) == 0;
    }
    mfi_buf_free(&begin);
    return found;
}

bool srv_store_drop(srv_store *store, const char *id)
{
    pthread_mutex_lock(&store->lock);
    srv_stored *s = find(store, id);
    if (s)
        take_out(store, s);
    pthread_mutex_unlock(&store->lock);
    return s != NULL;
}

/* ---- answers in the background ---- */

srv_begun srv_store_begin(srv_store *store, const srv_answer *a, srv_exchange *x)
{
    srv_stored *s = copy_answer(a);
    bool too_long = a->response->len + a->input->len > MFI_MAX_STORED_BYTES / 2 ||
                    (s && bytes_of(s) > MFI_MAX_STORED_BYTES / 2);
    if (!s || too_long) {
        free(s);
        return too_long ? SRV_BEGUN_TOO_LONG : SRV_BEGUN_FULL;
    }
    pthread_mutex_lock(&store->lock);
    bool ok = !store->closed && store->n_pending < MFI_MAX_STORED_RESPONSES / 2 &&
              store->pending_bytes + bytes_of(s) <= MFI_MAX_STORED_BYTES / 2 && put_in(store, s);
    if (ok) {
        srv_exchange_hold(x);
        s->x = x;
        s->background = true;
        store->n_pending++;
        store->pending_bytes += bytes_of(s);
    }
    pthread_mutex_unlock(&store->lock);
    if (!ok)
        free(s);
    return ok ? SRV_BEGUN : SRV_BEGUN_FULL;
}

void srv_store_status(srv_store *store, const char *id, const char *status, bool over)
{
    pthread_mutex_lock(&store->lock);
    srv_stored *s = find(store, id);
    if (s && s->x) {
        s->status = status;
        if (over)
            settle(store, s, false);
    }
    pthread_mutex_unlock(&store->lock);
}

bool srv_store_finish(srv_store *store, const srv_answer *a)
{
    srv_stored *s = copy_answer(a);
    if (!s)
        return false;
    pthread_mutex_lock(&store->lock);
    srv_stored *pending = find(store, a->id);
    bool wanted = pending && pending->x, ok = true;
    if (wanted) {
        /* what it takes itself is free for it */
        ok = store->pending_bytes - bytes_of(pending) + bytes_of(s) <= MFI_MAX_STORED_BYTES;
        if (ok) {
            settle(store, pending, false);
            take_out(store, pending);
            s->background = true;
            put_in(store, s);
        }
    }
    pthread_mutex_unlock(&store->lock);
    if (!wanted || !ok)
        free(s);
    return ok;
}

bool srv_store_cancel(srv_store *store, const char *id, bool *background)
{
    pthread_mutex_lock(&store->lock);
    srv_stored *s = find(store, id);
    *background = s && s->background;
    if (s && s->x) {
        s->status = "cancelled";
        settle(store, s, true);
    }
    pthread_mutex_unlock(&store->lock);
    return s != NULL;
}

void srv_store_close(srv_store *store)
{
    pthread_mutex_lock(&store->lock);
    store->closed = true;
    for (srv_stored *s = store->oldest; s; s = s->newer)
        if (s->x) {
            s->status = "cancelled";
            settle(store, s, true);
        }
    pthread_mutex_unlock(&store->lock);
}
