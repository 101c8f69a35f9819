/* /v1/conversations: made, shown, described, and their items. All of it on the desk's thread;
 * /v1/responses goes on from them (responses_input.c) and appends to them (api_responses.c). */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "responses.h"

#define ITEMS_MAX 20 /* that are sent at once */

static void not_found(srv_exchange *x, const char *id)
{
    srv_reply_error(x, 404, "invalid_request_error", NULL,
                    "Conversation with id '%.64s' not found.", id);
}

static void no_item(srv_exchange *x, const char *item)
{
    srv_reply_error(x, 404, "invalid_request_error", NULL, "Item with id '%.64s' not found.", item);
}

static void too_long(srv_exchange *x)
{
    srv_reply_error(x, 400, NULL, "items",
                    "the conversation would be longer than all together may "
                    "be, or there is no memory for it");
}

static void fresh_id(const srv_exchange *x, char out[48])
{
    uint64_t random[2] = {0};
    if (getentropy(random, sizeof random) != 0)
        random[0] = x->came_ns;
    snprintf(out, 48, "conv_%016" PRIx64 "%08" PRIx64, random[0], random[1] >> 32);
}

static void show(srv_server *server, srv_exchange *x, const char *id)
{
    mfi_buf out = {0};
    if (srv_conversation_show(&server->conversations, id, &out))
        srv_reply_buf(x, 200, SRV_JSON, &out);
    else
        not_found(x, id);
}

/* Items of a request as they are kept, in r->input. */
static bool read_items(srv_fields *f, srv_server *server, srv_responses *r)
{
    const mfi_json *list = srv_field(f, "items", MFI_JSON_ARRAY);
    char id[48];
    if (f->refused)
        return false;
    if (mfi_json_len(list) > ITEMS_MAX)
        return srv_refuse(f, "items", "items: more than %d at once", ITEMS_MAX);
    fresh_id(f->x, id); /* what items are named after that have no id */
    r->keep = true;
    return srv_responses_read_items(f, server, id, list, r);
}

static void put_metadata(const srv_fields *f, mfi_buf *out)
{
    const mfi_json *v = mfi_json_get(f->body, "metadata");
    if (mfi_json_typeof(v) == MFI_JSON_NULL)
        mfi_buf_str(out, "{}");
    else
        mfi_json_put(out, v);
}

void srv_conversations_create(srv_server *server, srv_exchange *x, const mfi_json *body)
{
    srv_fields f = {.x = x, .body = body};
    srv_responses r = {.n_input = 0};
    mfi_buf metadata = {0};
    char id[48];
    if (srv_responses_metadata(&f) && read_items(&f, server, &r)) {
        fresh_id(x, id);
        put_metadata(&f, &metadata);
        if (srv_conversation_add(&server->conversations, id, (int64_t)time(NULL), &metadata,
                                 &r.input))
            show(server, x, id);
        else
            too_long(x);
    }
    mfi_buf_free(&metadata);
    mfi_buf_free(&r.input);
}

static void describe(srv_server *server, srv_exchange *x, const char *id, const char *item)
{
    mfi_json *body = srv_parse_body(x);
    srv_fields f = {.x = x, .body = body};
    mfi_buf metadata = {0};
    bool fits;
    (void)item;
    if (body && srv_responses_metadata(&f)) {
        put_metadata(&f, &metadata);
        if (!srv_conversation_describe(&server->conversations, id, &metadata, &fits))
            not_found(x, id);
        else if (!fits)
            too_long(x);
        else
            show(server, x, id);
    }
    mfi_buf_free(&metadata);
    mfi_json_free(&body);
}

static void get(srv_server *server, srv_exchange *x, const char *id, const char *item)
{
    (void)item;
    show(server, x, id);
}

static void drop(srv_server *server, srv_exchange *x, const char *id, const char *item)
{
    mfi_buf out = {0};
    (void)item;
    if (!srv_conversation_drop(&server->conversations, id)) {
        not_found(x, id);
        return;
    }
    mfi_buf_fmt(&out, "{\"id\":\"%s\",\"object\":\"conversation.deleted\",\"deleted\":true}", id);
    srv_reply_buf(x, 200, SRV_JSON, &out);
}

static void list_items(srv_server *server, srv_exchange *x, const char *id, const char *item)
{
    mfi_buf items = {0};
    (void)item;
    if (srv_conversation_items(&server->conversations, id, &items))
        srv_show_items(x, &items, false);
    else
        not_found(x, id);
    mfi_buf_free(&items);
}

static void add_items(srv_server *server, srv_exchange *x, const char *id, const char *item)
{
    mfi_json *body = srv_parse_body(x);
    srv_fields f = {.x = x, .body = body};
    srv_responses r = {.n_input = 0};
    bool fits;
    (void)item;
    if (body && read_items(&f, server, &r)) {
        if (!srv_conversation_append(&server->conversations, id, &r.input, &fits))
            not_found(x, id);
        else if (!fits)
            too_long(x);
        else
            srv_show_items(x, &r.input, true);
    }
    mfi_buf_free(&r.input);
    mfi_json_free(&body);
}

static void get_item(srv_server *server, srv_exchange *x, const char *id, const char *item)
{
    mfi_buf out = {0};
    bool found;
    if (!srv_conversation_item(&server->conversations, id, item, &out, &found))
        not_found(x, id);
    else if (!found)
        no_item(x, item);
    else
        srv_reply_buf(x, 200, SRV_JSON, &out);
}

static void drop_item(srv_server *server, srv_exchange *x, const char *id, const char *item)
{
    bool found;
    if (!srv_conversation_drop_item(&server->conversations, id, item, &found))
        not_found(x, id);
    else if (!found)
        no_item(x, item);
    else
        show(server, x, id);
}

void srv_conversation_route(srv_server *server, srv_exchange *x, const char *rest)
{
    static const struct {
        const char *method, *below;
        void (*answer)(srv_server *server, srv_exchange *x, const char *id, const char *item);
    } routes[] = {{"GET", "", get},
                  {"POST", "", describe},
                  {"DELETE", "", drop},
                  {"GET", "/items", list_items},
                  {"POST", "/items", add_items},
                  {"GET", "/items/", get_item},
                  {"DELETE", "/items/", drop_item}};
    const char *method = strcmp(x->request.method, "HEAD") == 0 ? "GET" : x->request.method;
    size_t n = strcspn(rest, "/");
    const char *below = rest + n, *item = "";
    bool known = false;
    char id[64] = "";
    if (n < sizeof id)
        memcpy(id, rest, n);
    if (strncmp(below, "/items/", 7) == 0 && below[7] && !strchr(below + 7, '/')) {
        item = below + 7;
        below = "/items/";
    }
    for (size_t i = 0; i < MFI_ARRAY_LEN(routes); i++) {
        if (strcmp(below, routes[i].below) != 0 || (strcmp(below, "/items/") == 0 && !*item))
            continue;
        known = true;
        if (strcmp(method, routes[i].method) == 0) {
            routes[i].answer(server, x, id, item);
            return;
        }
    }
    if (known)
        srv_reply_error(x, 405, NULL, NULL, "%.200s doesn't take %s", x->request.path.data,
                        x->request.method);
    else
        srv_reply_error(x, 404, NULL, NULL, "there is no %.200s", x->request.path.data);
}
