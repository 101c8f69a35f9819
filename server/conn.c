/* Connections; see conn.h. Owns a socket and its buffers; lives on the loop's thread, and meets the
 * other threads only in its exchange. Never blocks. */
#include "conn.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "access.h"

#ifndef POLLRDHUP
#define POLLRDHUP 0
#endif
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define SECOND_NS      ((uint64_t)1000000000)
#define READ_BYTES     16384
#define OUT_HIGH_BYTES ((size_t)256 << 10) /* more is left with the exchange */
#define LINGER_S       2

srv_conn *srv_conn_new(int fd, bool local, srv_loop *loop, uint64_t now_ns)
{
    srv_conn *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->fd = fd;
    c->local = local;
    c->since_ns = c->wrote_ns = now_ns;
    srv_parser_init(&c->parser, loop->options->max_body_bytes, &loop->room);
    return c;
}

void srv_conn_free(srv_conn *c)
{
    if (!c)
        return;
    if (c->x) { /* whoever answers need not */
        atomic_store(&c->x->gone, true);
        srv_exchange_release(c->x);
    }
    close(c->fd);
    srv_request_free(&c->parser.request);
    mfi_buf_free(&c->ahead);
    mfi_buf_free(&c->out);
    free(c);
}

bool srv_conn_idle(const srv_conn *c)
{
    return c->state == SRV_CONN_READING && !c->parser.begun && c->out_at == c->out.len;
}

/* An answer that runs is read on, so that a client that leaves is seen at once. */
short srv_conn_events(const srv_conn *c)
{
    short events = c->out_at < c->out.len ? POLLOUT : 0;
    if (c->state != SRV_CONN_ANSWERING || c->ahead.len < MFI_MAX_HTTP_AHEAD_BYTES)
        events |= POLLIN;
    return (short)(events | POLLRDHUP);
}

/* ---- sending ---- */

static void send_out(srv_conn *c, uint64_t now_ns)
{
    while (c->out_at < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->out_at, c->out.len - c->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            if (c->out_at > c->out.len / 2) { /* what was sent goes; moves less than that */
                c->out.len -= c->out_at;
                memmove(c->out.data, c->out.data + c->out_at, c->out.len);
                c->out_at = 0;
            }
            return;
        }
        if (n <= 0) {
            c->state = SRV_CONN_CLOSED;
            return;
        }
        c->out_at += (size_t)n;
        c->wrote_ns = now_ns;
    }
    if (c->out.cap > 4 * OUT_HIGH_BYTES)
        mfi_buf_free(&c->out);
    c->out.len = c->out_at = 0;
    c->wrote_ns = now_ns;
    if (c->state == SRV_CONN_LINGERING)
        shutdown(c->fd, SHUT_WR);
}

static const char *reason(int status)
{
    static const struct {
        int status;
        const char *text;
    } reasons[] = {{200, "OK"},
                   {204, "No Content"},
                   {304, "Not Modified"},
                   {400, "Bad Request"},
                   {401, "Unauthorized"},
                   {403, "Forbidden"},
                   {404, "Not Found"},
                   {405, "Method Not Allowed"},
                   {408, "Request Timeout"},
                   {413, "Content Too Large"},
                   {414, "URI Too Long"},
                   {415, "Unsupported Media Type"},
                   {417, "Expectation Failed"},
                   {429, "Too Many Requests"},
                   {431, "Request Header Fields Too Large"},
                   {500, "Internal Server Error"},
                   {501, "Not Implemented"},
                   {503, "Service Unavailable"},
                   {505, "HTTP Version Not Supported"},
                   {529, "Overloaded"}};
    for (size_t i = 0; i < MFI_ARRAY_LEN(reasons); i++)
        if (reasons[i].status == status)
            return reasons[i].text;
    return "Unknown";
}

static void put_date(mfi_buf *out)
{
    static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                         "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm))
        mfi_buf_fmt(out, "Date: %s, %02d %s %d %02d:%02d:%02d GMT\r\n", days[tm.tm_wday],
                    tm.tm_mday, months[tm.tm_mon], 1900 + tm.tm_year, tm.tm_hour, tm.tm_min,
                    tm.tm_sec);
}

/* The exchange is locked. */
static void put_head(srv_conn *c, const srv_exchange *x)
{
    mfi_buf *out = &c->out;
    if (x->stream && x->request.http_1_0)
        c->keep_alive = false;
    mfi_buf_fmt(out, "HTTP/1.1 %d %s\r\nServer: moeflux/%s\r\n", x->status, reason(x->status),
                mf_version());
    put_date(out);
    mfi_buf_fmt(out, "X-Request-Id: %s\r\n", x->id);
    if (x->dialect == SRV_ANTHROPIC)
        mfi_buf_fmt(out, "Request-Id: %s\r\n", x->id);
    if (x->content_type)
        mfi_buf_fmt(out, "Content-Type: %s\r\n", x->content_type);
    mfi_buf_str(out, "X-Content-Type-Options: nosniff\r\n");
    if (x->stream)
        mfi_buf_str(out, "Cache-Control: no-store\r\nX-Accel-Buffering: no\r\n");
    if (x->more_headers)
        mfi_buf_str(out, x->more_headers);
    if (x->retry_after_s)
        mfi_buf_fmt(out, "Retry-After: %d\r\n", x->retry_after_s);
    if (x->status == 401)
        mfi_buf_str(out, "WWW-Authenticate: Bearer\r\n");
    if (x->cors)
        mfi_buf_fmt(out, "Access-Control-Allow-Origin: %s\r\nVary: Origin\r\n", x->cors);
    if (x->cors && x->status == 204)
        mfi_buf_str(out, "Access-Control-Allow-Methods: GET, POST, DELETE, OPTIONS\r\n"
                         "Access-Control-Allow-Headers: authorization, content-type, x-api-key, "
                         "anthropic-version, anthropic-beta\r\nAccess-Control-Max-Age: 600\r\n");
    if (x->stream && !x->request.http_1_0)
        mfi_buf_str(out, "Transfer-Encoding: chunked\r\n");
    else if (!x->stream && x->status != 204 && x->status != 304)
        mfi_buf_fmt(out, "Content-Length: %zu\r\n", x->out.len);
    mfi_buf_str(out,
                c->keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
}

static void put_piece(srv_conn *c, const char *bytes, size_t len)
{
    bool chunked = c->x->stream && !c->x->request.http_1_0;
    if (!len || c->head_only)
        return;
    if (chunked)
        mfi_buf_fmt(&c->out, "%zx\r\n", len);
    mfi_buf_append(&c->out, bytes, len);
    if (chunked)
        mfi_buf_str(&c->out, "\r\n");
}

/* ---- requests ---- */

static void linger(srv_conn *c, uint64_t now_ns)
{
    c->state = SRV_CONN_LINGERING;
    c->since_ns = now_ns;
    if (c->out_at == c->out.len)
        shutdown(c->fd, SHUT_WR);
}

static srv_dialect dialect_of(const srv_request *r)
{
    bool anthropic = srv_request_has(r, "anthropic-version") ||
                     (r->path.data && strstr(r->path.data, "/messages"));
    return anthropic ? SRV_ANTHROPIC : SRV_OPENAI;
}

/* Answers what can't be read on; nothing is read after it. */
static void refuse(srv_conn *c, int status, const char *text, uint64_t now_ns)
{
    mfi_buf body = {0};
    srv_dialect dialect = dialect_of(&c->parser.request);
    int retry_after_s = status == 503;
    if (dialect == SRV_ANTHROPIC && status == 503)
        status = 529;
    srv_exchange empty = {.status = status,
                          .dialect = dialect,
                          .content_type = SRV_JSON,
                          .id = "none",
                          .retry_after_s = retry_after_s};
    srv_put_error(&body, dialect, &(srv_error){.status = status, .message = text}, empty.id);
    c->keep_alive = false;
    empty.out = body;
    put_head(c, &empty);
    mfi_buf_append(&c->out, body.data, body.len);
    mfi_buf_free(&body);
    linger(c, now_ns);
    send_out(c, now_ns);
}

/* Before a body is waited for: who may not ask sends none. */
static void check_head(srv_loop *loop, srv_conn *c, uint64_t now_ns)
{
    const srv_request *r = &c->parser.request;
    const char *why = NULL, *cors = NULL;
    c->checked = true;
    int status = r->path.failed || r->host.failed
                     ? 503
                     : srv_access_check(loop->options, r, c->local, loop->open_path(r->path.data),
                                        &why, &cors);
    if (status)
        refuse(c, status, why ? why : "out of memory", now_ns);
}

/* The request is whole: hands it over. */
static void begin_exchange(srv_loop *loop, srv_conn *c, uint64_t now_ns)
{
    const char *why = NULL, *cors = NULL;
    srv_exchange *x = srv_exchange_new(&loop->wake, now_ns);
    if (!x || c->parser.request.path.failed || c->parser.request.host.failed) {
        srv_exchange_release(x);
        refuse(c, 503, "out of memory", now_ns);
        return;
    }
    x->request = c->parser.request;
    c->parser.request = (srv_request){0};
    x->dialect = dialect_of(&x->request);
    c->x = x;
    c->state = SRV_CONN_ANSWERING;
    c->head_sent = false;
    c->keep_alive = x->request.keep_alive;
    c->head_only = strcmp(x->request.method, "HEAD") == 0;
    c->since_ns = now_ns;
    atomic_fetch_add(&loop->stats.requests, 1);
    int status = srv_access_check(loop->options, &x->request, c->local,
                                  loop->open_path(x->request.path.data), &why, &cors);
    x->cors = cors;
    if (status) {
        srv_reply_error(x, status, NULL, NULL, "%s", why);
        return;
    }
    if (cors && strcmp(x->request.method, "OPTIONS") == 0) {
        srv_reply(x, 204, NULL, "", 0);
        return;
    }
    srv_exchange_hold(x);
    loop->handle(loop->user, x);
}

/* Feeds the parser; what is left over goes to the next request. Returns how much was taken. */
static size_t feed(srv_loop *loop, srv_conn *c, const char *bytes, size_t len, uint64_t now_ns)
{
    size_t at = 0;
    while (at < len && c->state == SRV_CONN_READING) {
        bool begun = c->parser.begun;
        size_t n = srv_parser_feed(&c->parser, bytes + at, len - at);
        at += n;
        if (!begun && c->parser.begun) {
            c->since_ns = now_ns;
            c->continued = c->checked = false;
        }
        if (c->parser.state == SRV_PARSE_BODY && !c->checked)
            check_head(loop, c, now_ns);
        if (c->parser.state == SRV_PARSE_FAILED)
            refuse(c, c->parser.fail_status, c->parser.fail_text, now_ns);
        else if (c->parser.state == SRV_PARSE_DONE)
            begin_exchange(loop, c, now_ns);
    }
    if (c->state == SRV_CONN_READING && c->parser.wants_continue && !c->continued) {
        c->continued = true;
        mfi_buf_str(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
        send_out(c, now_ns);
    }
    return at;
}

/* The answer is out: on to the next request, or to the end. */
static void finish_exchange(srv_loop *loop, srv_conn *c, uint64_t now_ns)
{
    srv_exchange_release(c->x);
    c->x = NULL;
    if (!c->keep_alive) {
        linger(c, now_ns);
        return;
    }
    c->state = SRV_CONN_READING;
    c->since_ns = now_ns;
    srv_parser_reset(&c->parser);
    mfi_buf ahead = c->ahead;
    c->ahead = (mfi_buf){0};
    size_t taken = feed(loop, c, ahead.data, ahead.len, now_ns);
    if (taken < ahead.len)
        mfi_buf_append(&c->ahead, ahead.data + taken, ahead.len - taken);
    mfi_buf_free(&ahead);
}

void srv_conn_pull(srv_loop *loop, srv_conn *c, uint64_t now_ns)
{
    while (c->state == SRV_CONN_ANSWERING && c->out.len - c->out_at < OUT_HIGH_BYTES) {
        srv_exchange *x = c->x;
        pthread_mutex_lock(&x->lock);
        bool begun = x->begun, ended = x->ended;
        if (begun && !c->head_sent) {
            put_head(c, x);
            c->head_sent = true;
        }
        if (begun) {
            put_piece(c, x->out.data, x->out.len);
            x->out.len = 0;
            atomic_store(&x->waiting_bytes, 0);
        }
        if (begun && ended && x->stream && !x->request.http_1_0 && !c->head_only)
            mfi_buf_str(&c->out, "0\r\n\r\n");
        pthread_mutex_unlock(&x->lock);
        if (c->out.failed) {
            c->state = SRV_CONN_CLOSED;
            return;
        }
        send_out(c, now_ns);
        if (c->state == SRV_CONN_CLOSED || !begun || !ended)
            return;
        finish_exchange(loop, c, now_ns);
    }
}

/* ---- events ---- */

static void take(srv_loop *loop, srv_conn *c, const char *bytes, size_t len, uint64_t now_ns)
{
    size_t taken = 0;
    if (c->state == SRV_CONN_LINGERING)
        return;
    if (c->state == SRV_CONN_READING)
        taken = feed(loop, c, bytes, len, now_ns);
    if (c->state == SRV_CONN_ANSWERING && taken < len)
        mfi_buf_append(&c->ahead, bytes + taken, len - taken);
    if (c->ahead.failed)
        c->state = SRV_CONN_CLOSED;
}

static void receive(srv_loop *loop, srv_conn *c, uint64_t now_ns)
{
    char bytes[READ_BYTES];
    ssize_t n;
    do
        n = recv(c->fd, bytes, sizeof bytes, 0);
    while (n < 0 && errno == EINTR);
    if (n > 0)
        take(loop, c, bytes, (size_t)n, now_ns);
    else if (n == 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
        c->state = SRV_CONN_CLOSED; /* also while an answer runs: nobody waits for it */
}

void srv_conn_serve(srv_loop *loop, srv_conn *c, short revents, uint64_t now_ns)
{
    bool reads = c->state != SRV_CONN_ANSWERING || c->ahead.len < MFI_MAX_HTTP_AHEAD_BYTES;
    if (revents & (POLLERR | POLLNVAL) || (!reads && revents & (POLLRDHUP | POLLHUP)))
        c->state = SRV_CONN_CLOSED;
    if (c->state != SRV_CONN_CLOSED && reads && revents & (POLLIN | POLLHUP | POLLRDHUP))
        receive(loop, c, now_ns);
    if (c->state != SRV_CONN_CLOSED && c->out_at < c->out.len)
        send_out(c, now_ns);
    srv_conn_pull(loop, c, now_ns);
}

static void ping(srv_conn *c, uint64_t now_ns)
{
    pthread_mutex_lock(&c->x->lock);
    const char *text = c->x->ping ? c->x->ping : ": ping\n\n";
    bool stream = c->x->stream;
    pthread_mutex_unlock(&c->x->lock);
    if (stream && c->head_sent) {
        put_piece(c, text, strlen(text));
        send_out(c, now_ns);
    }
}

uint64_t srv_conn_tick(srv_loop *loop, srv_conn *c, uint64_t now_ns)
{
    const srv_options *o = loop->options;
    uint64_t due = UINT64_MAX;
    if (c->out_at < c->out.len) {
        due = c->wrote_ns + o->write_s * SECOND_NS;
        if (now_ns >= due)
            c->state = SRV_CONN_CLOSED;
        return due;
    }
    switch (c->state) {
    case SRV_CONN_READING:
        due = c->since_ns + (c->parser.begun ? o->request_s : o->idle_s) * SECOND_NS;
        if (now_ns >= due && c->parser.begun)
            refuse(c, 408, "the request took too long to arrive", now_ns);
        else if (now_ns >= due)
            c->state = SRV_CONN_CLOSED;
        break;
    case SRV_CONN_ANSWERING:
        if (atomic_load(&c->x->gone)) { /* its answer couldn't be made */
            c->state = SRV_CONN_CLOSED;
            break;
        }
        due = c->wrote_ns + o->ping_s * SECOND_NS;
        if (now_ns >= due) {
            ping(c, now_ns);
            c->wrote_ns = now_ns;
            due = now_ns + o->ping_s * SECOND_NS;
        }
        break;
    case SRV_CONN_LINGERING:
        due = c->since_ns + LINGER_S * SECOND_NS;
        if (now_ns >= due)
            c->state = SRV_CONN_CLOSED;
        break;
    case SRV_CONN_CLOSED:
        break;
    }
    return due;
}
