/* Stored answers; see store.h. A list from the oldest to the newest, each in one block. The
 * engine's thread adds, the desk's looks up and drops. Never touches a drive: the server's end is
 * theirs. */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "base/defs.h"
#include "base/json.h"
#include "base/limits.h"

struct srv_stored {
    srv_stored *older, *newer;
    char id[48];
    size_t response_len, output_at, output_len, input_len;
    char text[]; /* [response_len + input_len] */
};

void srv_store_init(srv_store *store)
{
    *store = (srv_store){.n = 0};
    pthread_mutex_init(&store->lock, NULL);
}

static uint64_t bytes_of(const srv_stored *s)
{
    return sizeof *s + s->response_len + s->input_len;
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

bool srv_store_add(srv_store *store, const srv_answer *a)
{
    size_t id_len = strlen(a->id);
    if (a->response->failed || a->input->failed || id_len >= sizeof((srv_stored *)0)->id ||
        a->response->len > MFI_MAX_STORED_BYTES || a->input->len > MFI_MAX_STORED_BYTES)
        return false;
    size_t len = a->response->len + a->input->len;
    if (sizeof(srv_stored) + len > MFI_MAX_STORED_BYTES)
        return false;
    srv_stored *s = malloc(sizeof *s + len);
    if (!s)
        return false;
    *s = (srv_stored){.response_len = a->response->len,
                      .output_at = a->output_at,
                      .output_len = a->output_len,
                      .input_len = a->input->len};
    memcpy(s->id, a->id, id_len + 1);
    memcpy(s->text, a->response->data, a->response->len);
    if (a->input->len)
        memcpy(s->text + s->response_len, a->input->data, a->input->len);
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

/* The item among items with commas between them that begins so. An object within an item may begin
 * so, too, which is why they are gone through. */
static bool find_item(const char *items, size_t len, const mfi_buf *begin, mfi_buf *out)
{
    const char *end = items + len;
    if (!len || !memmem(items, len, begin->data, begin->len))
        return false;
    for (const char *at = items, *next; at < end; at = next + (next < end)) {
        next = object_end(at, end);
        if ((size_t)(next - at) > begin->len && memcmp(at, begin->data, begin->len) == 0) {
            mfi_buf_append(out, at, (size_t)(next - at));
            return true;
        }
    }
    return false;
}

bool srv_store_item(srv_store *store, const char *id, mfi_buf *out)
{
    mfi_buf begin = {0};
    bool found = false;
    mfi_buf_str(&begin, "{\"id\":"); /* as every stored item begins */
    mfi_json_put_str(&begin, id, strlen(id));
    pthread_mutex_lock(&store->lock);
    for (const srv_stored *s = store->newest; s && !found && !begin.failed; s = s->older)
        found = find_item(s->text + s->output_at, s->output_len, &begin, out) ||
                find_item(s->text + s->response_len, s->input_len, &begin, out);
    pthread_mutex_unlock(&store->lock);
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
