/* The desk: reads requests and turns them into jobs, on a thread of its own, so that neither
 * sockets nor evaluation wait for JSON, templates or tokenizers. What it needs of the model can't
 * change. Also decides, on the loop's thread, what is answered at once. */
#include <stdlib.h>
#include <string.h>

#include "chat.h"

typedef struct route {
    const char *path; /* also without /v1 */
    srv_route_fn post;
    void (*get)(srv_server *server, srv_exchange *x);
} route;

static const route routes[] = {
    {"/v1/chat/completions", srv_chat_completions, NULL},
    {"/v1/completions", srv_completions, NULL},
    {"/v1/responses", srv_responses_route, NULL},
    {"/v1/responses/input_tokens", srv_responses_count, NULL},
    {"/v1/conversations", srv_conversations_create, NULL},
    {"/v1/messages", srv_messages, NULL},
    {"/v1/messages/count_tokens", srv_count_tokens, NULL},
    {"/v1/tokenize", srv_tokenize, NULL},
    {"/v1/detokenize", srv_detokenize, NULL},
    {"/v1/apply-template", srv_apply_template, NULL},
    {"/v1/models", NULL, srv_models},
    {"/v1/health", NULL, srv_health},
    {"/v1/metrics", NULL, srv_show_metrics},
    {"/v1/props", NULL, srv_props},
    {"/", NULL, srv_show_page}, /* some clients only look whether anybody is there */
    {"/api/status", NULL, srv_show_status},
    {"/api/experts", NULL, srv_show_experts},
    {"/api/cache", NULL, srv_show_curves},
};

bool srv_desk_init(srv_server *server)
{
    srv_desk *d = &server->desk;
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->wake, NULL);
    d->each = server->options->parallel + server->options->queue;
    d->cap = 2 * d->each;
    d->ring = calloc(d->cap, sizeof *d->ring);
    return d->ring != NULL;
}

void srv_desk_free(srv_server *server)
{
    srv_desk *d = &server->desk;
    for (size_t i = 0; i < d->n; i++)
        srv_exchange_release(d->ring[(d->at + i) % d->cap]);
    free(d->ring);
    pthread_cond_destroy(&d->wake);
    pthread_mutex_destroy(&d->lock);
}

void srv_desk_stop(srv_server *server)
{
    pthread_mutex_lock(&server->desk.lock);
    server->desk.stop = true;
    pthread_cond_signal(&server->desk.wake);
    pthread_mutex_unlock(&server->desk.lock);
}

/* ---- on the loop's thread ---- */

static const char *plain(const char *path)
{
    return strncmp(path, "/v1/", 4) == 0 ? path + 3 : path;
}

bool srv_desk_open_path(const char *path)
{
    return strcmp(plain(path), "/health") == 0 || strcmp(path, "/") == 0;
}

static const route *find(const char *path)
{
    for (size_t i = 0; i < MFI_ARRAY_LEN(routes); i++)
        if (strcmp(plain(path), plain(routes[i].path)) == 0)
            return &routes[i];
    return NULL;
}

/* What is said of stored answers and conversations is read and made by the desk. */
static const char *below(const srv_exchange *x, const char *folder)
{
    const char *path = plain(x->request.path.data);
    size_t n = strlen(folder);
    return strncmp(path, folder, n) == 0 && path[n] ? path + n : NULL;
}

static const char *below_responses(const srv_exchange *x)
{
    return below(x, "/responses/");
}

static const char *below_conversations(const srv_exchange *x)
{
    return below(x, "/conversations/");
}

/* Everything that has no body to read. */
static void answer_now(srv_server *server, srv_exchange *x, const route *r)
{
    const char *path = x->request.path.data, *method = x->request.method;
    bool get = strcmp(method, "GET") == 0 || strcmp(method, "HEAD") == 0;
    if (get && strncmp(plain(path), "/models/", 8) == 0 && plain(path)[8]) {
        srv_model(server, x, plain(path) + 8);
    } else if (!r) {
        srv_reply_error(x, 404, NULL, NULL, "there is no %.200s", path);
    } else if (!r->get || !get) {
        srv_reply_error(x, 405, NULL, NULL, "%.200s takes %s", path, r->get ? "GET" : "POST");
    } else {
        r->get(server, x);
    }
}

/* Counts the request in, or refuses it. Looks at stored answers are counted apart: what fills the
 * queue may be just what somebody asks after, or wants to cancel. */
static bool admit(srv_server *server, srv_exchange *x, _Atomic uint32_t *n)
{
    srv_desk *d = &server->desk;
    if (atomic_load(&server->stopping)) {
        srv_reply_error(x, 503, NULL, NULL, "the server is stopping");
        return false;
    }
    if (!atomic_load(&server->ready)) {
        srv_reply_error(x, 503, NULL, NULL, "Loading model");
        return false;
    }
    if (atomic_fetch_add(n, 1) < d->each)
        return true;
    atomic_fetch_sub(n, 1);
    srv_metrics_count(&server->metrics, &server->metrics.refused_full);
    srv_reply_error(x, 429, NULL, NULL, "as many requests as are taken wait already");
    return false;
}

void srv_desk_handle(void *user, srv_exchange *x)
{
    srv_server *server = user;
    srv_desk *d = &server->desk;
    const route *r = find(x->request.path.data);
    bool asks = r && r->post && strcmp(x->request.method, "POST") == 0;
    if (!asks && (r || (!below_responses(x) && !below_conversations(x)))) {
        answer_now(server, x, r);
        srv_exchange_release(x);
        return;
    }
    if (!admit(server, x, asks ? &server->n_requests : &server->n_lookups)) {
        srv_exchange_release(x);
        return;
    }
    pthread_mutex_lock(&d->lock);
    d->ring[(d->at + d->n++) % d->cap] = x; /* admit() counted, so that there is room */
    pthread_cond_signal(&d->wake);
    pthread_mutex_unlock(&d->lock);
}

/* ---- on the desk's ---- */

void srv_server_let_go(srv_server *server)
{
    atomic_fetch_sub(&server->n_requests, 1);
}

/* Values take much more room than their text, "0," most. Counts what may begin one. */
bool srv_too_many_values(const mfi_buf *text)
{
    size_t n = 0;
    bool in_string = false;
    for (size_t i = 0; i < text->len && n <= MFI_MAX_REQUEST_VALUES; i++) {
        char c = text->data[i];
        if (in_string && c == '\\')
            i++;
        else if (c == '"')
            in_string = !in_string;
        else if (!in_string)
            n += c == ',' || c == ':' || c == '[' || c == '{';
    }
    return n > MFI_MAX_REQUEST_VALUES;
}

mfi_json *srv_parse_body(srv_exchange *x)
{
    mfi_json *body = NULL;
    mf_error err = {0};
    mfi_buf *text = &x->request.body;
    if (srv_too_many_values(text))
        srv_reply_error(x, 413, NULL, NULL, "the body holds more than %d values",
                        MFI_MAX_REQUEST_VALUES);
    else if (mfi_json_parse(text->data ? text->data : "", text->len, "body", &body, &err) != MF_OK)
        srv_reply_error(x, 400, NULL, NULL, "the body is no JSON: %s", err.message);
    else if (mfi_json_typeof(body) == MFI_JSON_OBJECT)
        return body;
    else
        srv_reply_error(x, 400, NULL, NULL, "the body is no JSON object");
    mfi_json_free(&body);
    return NULL;
}

static void read_body(srv_server *server, srv_exchange *x, const route *r)
{
    mfi_json *body = srv_parse_body(x);
    if (body && !atomic_load(&x->gone))
        r->post(server, x, body);
    mfi_json_free(&body);
}

static void work(srv_server *server, srv_exchange *x)
{
    const route *r = find(x->request.path.data);
    if (!r && below_responses(x))
        srv_stored_route(server, x, below_responses(x));
    else if (!r)
        srv_conversation_route(server, x, below_conversations(x));
    else
        read_body(server, x, r);
    srv_request_drop_body(&x->request, x->kept); /* nobody else looks at it */
    if (!r)
        atomic_fetch_sub(&server->n_lookups, 1);
    else if (!x->submitted)
        srv_server_let_go(server);
}

void *srv_desk_run(void *user)
{
    srv_server *server = user;
    srv_desk *d = &server->desk;
    for (;;) {
        pthread_mutex_lock(&d->lock);
        while (!d->n && !d->stop)
            pthread_cond_wait(&d->wake, &d->lock);
        srv_exchange *x = d->n ? d->ring[d->at] : NULL;
        if (x) {
            d->at = (d->at + 1) % d->cap;
            d->n--;
        }
        pthread_mutex_unlock(&d->lock);
        if (!x)
            return NULL;
        work(server, x);
        srv_exchange_release(x);
    }
}
