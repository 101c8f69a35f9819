/* Exchanges and their answers; see reply.h. Every function may be called from any thread; those
 * that answer only by the side that answers. Never blocks but for the exchange's own lock. */
#include "reply.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/json.h"

/* ---- waking the loop ---- */

bool srv_wake_open(srv_wake *wake)
{
    if (pipe(wake->fds) != 0) {
        wake->fds[0] = wake->fds[1] = -1;
        return false;
    }
    for (int i = 0; i < 2; i++) {
        fcntl(wake->fds[i], F_SETFL, O_NONBLOCK);
        fcntl(wake->fds[i], F_SETFD, FD_CLOEXEC);
    }
    return true;
}

void srv_wake_close(srv_wake *wake)
{
    for (int i = 0; i < 2; i++)
        if (wake->fds[i] >= 0)
            close(wake->fds[i]);
    wake->fds[0] = wake->fds[1] = -1;
}

void srv_wake_up(srv_wake *wake)
{
    if (!atomic_exchange(&wake->pending, true))
        (void)!write(wake->fds[1], "", 1); /* full: a byte is on its way */
}

void srv_wake_drain(srv_wake *wake)
{
    char bytes[64];
    while (read(wake->fds[0], bytes, sizeof bytes) > 0)
        ;
    atomic_store(&wake->pending, false);
}

/* ---- exchanges ---- */

srv_exchange *srv_exchange_new(srv_wake *wake, uint64_t now_ns)
{
    srv_exchange *x = calloc(1, sizeof *x);
    uint64_t random = 0;
    if (!x)
        return NULL;
    if (getentropy(&random, sizeof random) != 0)
        random = now_ns;
    atomic_init(&x->refs, 1);
    x->wake = wake;
    x->came_ns = now_ns;
    pthread_mutex_init(&x->lock, NULL);
    snprintf(x->id, sizeof x->id, "req_%016" PRIx64, random);
    return x;
}

void srv_exchange_hold(srv_exchange *x)
{
    atomic_fetch_add(&x->refs, 1);
}

void srv_exchange_release(srv_exchange *x)
{
    if (!x || atomic_fetch_sub(&x->refs, 1) != 1)
        return;
    srv_request_free(&x->request);
    mfi_buf_free(&x->out);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* ---- answers ---- */

void srv_reply(srv_exchange *x, int status, const char *content_type, const char *bytes, size_t len)
{
    pthread_mutex_lock(&x->lock);
    if (!x->begun) {
        x->status = status;
        x->content_type = content_type;
        mfi_buf_append(&x->out, bytes, len);
        atomic_store(&x->waiting_bytes, x->out.len);
        x->begun = x->ended = true;
    }
    pthread_mutex_unlock(&x->lock);
    srv_wake_up(x->wake);
}

void srv_reply_buf(srv_exchange *x, int status, const char *content_type, mfi_buf *body)
{
    if (body->failed)
        srv_reply_error(x, 500, NULL, NULL, "out of memory");
    else
        srv_reply(x, status, content_type, body->data ? body->data : "", body->len);
    mfi_buf_free(body);
}

static const char *openai_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 429:
        return "rate_limit_error";
    case 500:
        return "server_error";
    case 501:
        return "not_supported_error";
    case 503:
        return "unavailable_error";
    default:
        return "invalid_request_error";
    }
}

static const char *anthropic_type(int status)
{
    switch (status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 500:
        return "api_error";
    case 503:
    case 529:
        return "overloaded_error";
    default:
        return "invalid_request_error";
    }
}

/* What clients look at, where the status alone says too little. */
static const char *openai_code(const srv_error *e)
{
    if (e->code)
        return e->code;
    switch (e->status) {
    case 400:
        return e->param ? "invalid_value" : NULL;
    case 401:
        return "invalid_api_key";
    case 404:
        return e->param && strcmp(e->param, "model") == 0 ? "model_not_found" : NULL;
    case 429:
        return "rate_limit_exceeded";
    case 500:
        return "server_error";
    default:
        return NULL;
    }
}

static void put_or_null(mfi_buf *out, const char *text)
{
    if (text)
        mfi_json_put_str(out, text, strlen(text));
    else
        mfi_buf_str(out, "null");
}

void srv_put_error(mfi_buf *out, srv_dialect dialect, const srv_error *e, const char *request_id)
{
    if (dialect == SRV_ANTHROPIC) {
        mfi_buf_fmt(out, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":",
                    anthropic_type(e->status));
        mfi_json_put_str(out, e->message, strlen(e->message));
        mfi_buf_fmt(out, "},\"request_id\":\"%s\"}", request_id);
        return;
    }
    mfi_buf_str(out, "{\"error\":{\"message\":");
    mfi_json_put_str(out, e->message, strlen(e->message));
    mfi_buf_fmt(out, ",\"type\":\"%s\",\"param\":", e->type ? e->type : openai_type(e->status));
    put_or_null(out, e->param);
    mfi_buf_str(out, ",\"code\":");
    put_or_null(out, openai_code(e));
    mfi_buf_str(out, "}}");
}

void srv_reply_error(srv_exchange *x, int status, const char *type, const char *param,
                     const char *fmt, ...)
{
    char message[MF_ERROR_MESSAGE_BYTES + 256];
    mfi_buf body = {0};
    va_list args;
    va_start(args, fmt);
    vsnprintf(message, sizeof message, fmt, args);
    va_end(args);
    if (x->dialect == SRV_ANTHROPIC && status == 503)
        status = 529;
    const srv_error error = {status, type, x->error_code, param, message};
    srv_put_error(&body, x->dialect, &error, x->id);
    if (status == 429 || status == 503 || status == 529)
        x->retry_after_s = 1;
    if (body.failed)
        srv_reply(x, 500, SRV_JSON, "{}", 2);
    else
        srv_reply(x, status, SRV_JSON, body.data, body.len);
    mfi_buf_free(&body);
}

void srv_stream_begin(srv_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    if (!x->begun) {
        x->status = 200;
        x->content_type = SRV_EVENT_STREAM;
        x->stream = x->begun = true;
    }
    pthread_mutex_unlock(&x->lock);
    srv_wake_up(x->wake);
}

void srv_stream_write(srv_exchange *x, const char *bytes, size_t len)
{
    pthread_mutex_lock(&x->lock);
    mfi_buf_append(&x->out, bytes, len);
    if (x->out.failed)
        atomic_store(&x->gone, true);
    atomic_fetch_add(&x->waiting_bytes, len);
    pthread_mutex_unlock(&x->lock);
    srv_wake_up(x->wake);
}

void srv_stream_end(srv_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->ended = true;
    pthread_mutex_unlock(&x->lock);
    srv_wake_up(x->wake);
}
