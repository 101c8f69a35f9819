/* Stored answers of /v1/responses: how their input is kept, and GET, DELETE, cancel and
 * input_items. All of it on the desk's thread. */
#include <stdlib.h>
#include <string.h>

#include "responses.h"
#include "say.h"

#define PAGE_ITEMS     20 /* of input_items, if nothing is said */
#define PAGE_ITEMS_MAX 100
#define PAGE_BYTES     MFI_MIB /* behind which no further item begins: more is asked for */

/* ---- items as they are kept ---- */

static const char *string(const mfi_json *object, const char *name)
{
    return mfi_json_str(mfi_json_get(object, name), NULL);
}

static void put_parts(const char *role, const char *text, size_t len, mfi_buf *out)
{
    bool answer = role && strcmp(role, "assistant") == 0;
    mfi_buf_fmt(out, "[{\"type\":\"%s\",\"text\":", answer ? "output_text" : "input_text");
    mfi_json_put_str(out, text, len);
    mfi_buf_str(out, answer ? ",\"annotations\":[]}]" : "}]");
}

static const char *id_prefix(const char *type)
{
    return strcmp(type, "message") == 0                ? "msg"
           : strcmp(type, "reasoning") == 0            ? "rs"
           : strcmp(type, "function_call") == 0        ? "fc"
           : strcmp(type, "function_call_output") == 0 ? "fco"
                                                       : "item";
}

/* {"id":"msg_...","type":"message","status":"completed" with what the item itself says of these. */
static void begin_item(srv_responses *r, const char *response_id, const mfi_json *item,
                       const char *type)
{
    const char *id = string(item, "id"), *status = string(item, "status");
    mfi_buf *out = &r->input;
    mfi_buf_str(out, out->len ? ",{\"id\":" : "{\"id\":");
    if (id)
        mfi_json_put_str(out, id, strlen(id));
    else
        mfi_buf_fmt(out, "\"%s_%si%zu\"", id_prefix(type), response_id + strlen("resp_"),
                    r->n_input);
    mfi_buf_str(out, ",\"type\":");
    mfi_json_put_str(out, type, strlen(type));
    mfi_buf_str(out, ",\"status\":");
    mfi_json_put_str(out, status ? status : "completed", strlen(status ? status : "completed"));
    r->n_input++;
}

void srv_responses_keep_text(srv_responses *r, const char *response_id, const char *text,
                             size_t len)
{
    if (!r->keep)
        return;
    begin_item(r, response_id, NULL, "message");
    mfi_buf_str(&r->input, ",\"role\":\"user\",\"content\":");
    put_parts("user", text, len, &r->input);
    mfi_buf_str(&r->input, "}");
}

void srv_responses_keep_item(srv_responses *r, const char *response_id, const mfi_json *item)
{
    static const char *const said[] = {"id", "type", "status"};
    const char *type = string(item, "type"), *role = string(item, "role");
    if (!r->keep || mfi_json_typeof(item) != MFI_JSON_OBJECT)
        return;
    type = type ? type : "message";
    begin_item(r, response_id, item, type);
    for (size_t i = 0; i < mfi_json_len(item); i++) {
        const char *key = NULL;
        const mfi_json *v = mfi_json_member(item, i, &key);
        size_t len;
        const char *text = mfi_json_str(v, &len);
        bool skip = false;
        for (size_t k = 0; k < MFI_ARRAY_LEN(said); k++)
            skip |= strcmp(key, said[k]) == 0;
        if (skip)
            continue;
        mfi_buf_str(&r->input, ",");
        mfi_json_put_str(&r->input, key, strlen(key));
        mfi_buf_str(&r->input, ":");
        if (text && strcmp(type, "message") == 0 && strcmp(key, "content") == 0)
            put_parts(role, text, len, &r->input);
        else
            mfi_json_put(&r->input, v);
    }
    mfi_buf_str(&r->input, "}");
}

/* ---- what a query says ---- */

/* The value of "name=value" in the query, decoded; false: it isn't there. */
static bool query_value(const srv_exchange *x, const char *name, mfi_buf *out)
{
    const char *at = srv_text_of(&x->request.query);
    size_t n = strlen(name);
    while (*at) {
        size_t len = strcspn(at, "&");
        if (len > n && strncmp(at, name, n) == 0 && at[n] == '=') {
            mfi_buf_str(out, "");
            return srv_percent_decode(at + n + 1, len - n - 1, out) && !out->failed;
        }
        at += len + (at[len] == '&');
    }
    return false;
}

typedef struct page_query {
    long limit;
    bool ascending;
    mfi_buf after; /* id of an item; "": from the beginning */
} page_query;

static bool take_page(srv_exchange *x, page_query *q)
{
    mfi_buf limit = {0}, order = {0};
    const char *wrong = NULL;
    q->limit = PAGE_ITEMS;
    q->ascending = false;
    if (query_value(x, "limit", &limit)) {
        char *end;
        q->limit = strtol(srv_text_of(&limit), &end, 10);
        if (*end || q->limit < 1 || q->limit > PAGE_ITEMS_MAX)
            wrong = "limit";
    }
    if (query_value(x, "order", &order)) {
        q->ascending = strcmp(srv_text_of(&order), "asc") == 0;
        if (!q->ascending && strcmp(srv_text_of(&order), "desc") != 0)
            wrong = "order";
    }
    query_value(x, "after", &q->after);
    if (wrong)
        srv_reply_error(x, 400, NULL, wrong, "limit is a number from 1 to %d, order is asc or desc",
                        PAGE_ITEMS_MAX);
    mfi_buf_free(&limit);
    mfi_buf_free(&order);
    return !wrong;
}

/* ---- routes ---- */

static void not_found(srv_exchange *x, const char *id)
{
    srv_reply_error(x, 404, "invalid_request_error", NULL, "Response with id '%.64s' not found.",
                    id);
}

/* The item of number i in the order of the answer. */
static const mfi_json *item_at(const mfi_json *items, size_t i, bool ascending)
{
    return mfi_json_at(items, ascending ? i : mfi_json_len(items) - 1 - i);
}

static void put_page(const mfi_json *items, const page_query *q, mfi_buf *out)
{
    size_t n = mfi_json_len(items), from = 0, count = 0;
    const char *first = NULL, *last = NULL;
    for (size_t i = 0; q->after.len && i < n; i++) {
        const char *id = string(item_at(items, i, q->ascending), "id");
        if (id && strcmp(id, srv_text_of(&q->after)) == 0)
            from = i + 1;
    }
    mfi_buf_str(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = from; i < n && count < (size_t)q->limit && out->len < PAGE_BYTES;
         i++, count++) {
        const mfi_json *item = item_at(items, i, q->ascending);
        mfi_buf_str(out, count ? "," : "");
        mfi_json_put(out, item);
        last = string(item, "id");
        first = first ? first : last;
    }
    mfi_buf_fmt(out, "],\"has_more\":%s,\"first_id\":", from + count < n ? "true" : "false");
    mfi_json_put_str(out, first ? first : "", first ? strlen(first) : 0);
    mfi_buf_str(out, ",\"last_id\":");
    mfi_json_put_str(out, last ? last : "", last ? strlen(last) : 0);
    mfi_buf_str(out, "}");
}

void srv_show_items(srv_exchange *x, const mfi_buf *joined, bool all)
{
    mfi_buf text = {0}, out = {0};
    mfi_json *items = NULL;
    page_query q = {.limit = PAGE_ITEMS_MAX, .ascending = true};
    if (all || take_page(x, &q)) {
        mfi_buf_str(&text, "[");
        mfi_buf_append(&text, srv_text_of(joined), joined->len);
        mfi_buf_str(&text, "]");
        if (srv_too_many_values(&text))
            srv_reply_error(x, 400, NULL, NULL, "the conversation has too many parts to be shown");
        else if (text.failed || joined->failed ||
                 mfi_json_parse(text.data, text.len, "items", &items, NULL) != MF_OK)
            srv_reply_error(x, 500, NULL, NULL, "out of memory");
        else
            put_page(items, &q, &out);
        if (items)
            srv_reply_buf(x, 200, SRV_JSON, &out);
    }
    mfi_json_free(&items);
    mfi_buf_free(&q.after);
    mfi_buf_free(&text);
}

static void show_input(srv_server *server, srv_exchange *x, const char *id)
{
    mfi_buf items = {0};
    if (srv_store_input(&server->store, id, &items))
        srv_show_items(x, &items, false);
    else
        not_found(x, id);
    mfi_buf_free(&items);
}

static void show(srv_server *server, srv_exchange *x, const char *id)
{
    mfi_buf out = {0}, stream = {0};
    if (query_value(x, "stream", &stream) && strcmp(srv_text_of(&stream), "false") != 0)
        srv_reply_error(x, 400, NULL, "stream", "stored answers aren't streamed");
    else if (!srv_store_response(&server->store, id, &out))
        not_found(x, id);
    else
        srv_reply_buf(x, 200, SRV_JSON, &out);
    mfi_buf_free(&stream);
}

static void drop(srv_server *server, srv_exchange *x, const char *id)
{
    mfi_buf out = {0};
    if (!srv_store_drop(&server->store, id)) {
        not_found(x, id);
        return;
    }
    mfi_buf_str(&out, "{\"id\":");
    mfi_json_put_str(&out, id, strlen(id));
    mfi_buf_str(&out, ",\"object\":\"response\",\"deleted\":true}");
    srv_reply_buf(x, 200, SRV_JSON, &out);
}

/* Only what is made in the background can be found here before it is over. What is over stays as it
 * is, so that cancelling twice does no harm. */
static void cancel(srv_server *server, srv_exchange *x, const char *id)
{
    mfi_buf out = {0};
    bool background;
    if (!srv_store_cancel(&server->store, id, &background)) {
        not_found(x, id);
    } else if (!background) {
        srv_reply_error(x, 400, NULL, NULL, "Cannot cancel a synchronous response.");
    } else if (!srv_store_response(&server->store, id, &out)) { /* it had to go meanwhile */
        not_found(x, id);
    } else {
        srv_reply_buf(x, 200, SRV_JSON, &out);
    }
}

void srv_stored_route(srv_server *server, srv_exchange *x, const char *rest)
{
    static const struct {
        const char *method, *below;
        void (*answer)(srv_server *server, srv_exchange *x, const char *id);
    } routes[] = {{"GET", "", show},
                  {"DELETE", "", drop},
                  {"POST", "/cancel", cancel},
                  {"GET", "/input_items", show_input}};
    const char *method = x->request.method;
    size_t n = strcspn(rest, "/");
    bool known = false;
    char id[64] = "";
    if (n < sizeof id)
        memcpy(id, rest, n);
    if (strcmp(method, "HEAD") == 0)
        method = "GET";
    for (size_t i = 0; i < MFI_ARRAY_LEN(routes); i++) {
        if (strcmp(rest + n, routes[i].below) != 0)
            continue;
        known = true;
        if (strcmp(method, routes[i].method) == 0) {
            routes[i].answer(server, x, id);
            return;
        }
    }
    if (known)
        srv_reply_error(x, 405, NULL, NULL, "%.200s doesn't take %s", x->request.path.data,
                        x->request.method);
    else
        srv_reply_error(x, 404, NULL, NULL, "there is no %.200s", x->request.path.data);
}
