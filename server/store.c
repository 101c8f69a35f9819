/* Stored answers; see store.h. A list from the oldest to the newest, each in one block with a table
 * of its items, so that who looks for an item doesn't go through megabytes with the store locked.
 * The engine's thread adds, the desk's looks up and drops. Never touches a drive: the server's end
 * is theirs. */
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
    char *text;   /* [response_len + input_len], behind the items */
    item items[]; /* [n_items]: the output's first */
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

/* The store is locked. */
static void take_out(srv_store *store, srv_stored *s)
{
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

bool srv_store_add(srv_store *store, const srv_answer *a)
{
    srv_stored *s = copy_answer(a);
    if (!s)
        return false;
    pthread_mutex_lock(&store->lock);
    while (store->oldest && (store->n == MFI_MAX_STORED_RESPONSES ||
                             store->bytes + bytes_of(s) > MFI_MAX_STORED_BYTES))
        take_out(store, store->oldest);
    s->older = store->newest;
    if (s->older)
        s->older->newer = s;
    else
        store->oldest = s;
    store->newest = s;
    store->n++;
    store->bytes += bytes_of(s);
    pthread_mutex_unlock(&store->lock);
    return true;
}

/* What is asked for is most often new. The store is locked. */
static srv_stored *find(const srv_store *store, const char *id)
{
    srv_stored *s = store->newest;
    while (s && strcmp(s->id, id) != 0)
        s = s->older;
    return s;
}

bool srv_store_response(srv_store *store, const char *id, mfi_buf *out)
{
    pthread_mutex_lock(&store->lock);
    const srv_stored *s = find(store, id);
    if (s)
        mfi_buf_append(out, s->text, s->response_len);
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

bool srv_store_history(srv_store *store, const char *id, mfi_buf *out)
{
    pthread_mutex_lock(&store->lock);
    const srv_stored *s = find(store, id);
    if (s) {
        mfi_buf_append(out, s->text + s->response_len, s->input_len);
        mfi_buf_str(out, s->input_len && s->output_len ? "," : "");
        mfi_buf_append(out, s->text + s->output_at, s->output_len);
    }
    pthread_mutex_unlock(&store->lock);
    return s != NULL;
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

bool srv_store_drop(srv_store *store, const char *id)
{
    pthread_mutex_lock(&store->lock);
    srv_stored *s = find(store, id);
    if (s)
        take_out(store, s);
    pthread_mutex_unlock(&store->lock);
    return s != NULL;
}
