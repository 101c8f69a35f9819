/* A client of HTTP for moeflux's own programs: one GET a connection, bounded in time and bytes; see
 * server.h. On the caller's thread. */
#include <errno.h>
#include <fcntl.h>
#include <llhttp.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "server.h"

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0
#endif

#define PIECE_BYTES 16384
#define POLL_MS     100 /* and then it is asked whether the caller still wants it */

typedef struct call {
    const srv_peer *peer;
    uint64_t until_ns;
    int fd;
    int status;
    mfi_buf *body;
    bool over, too_long;
} call;

/* ---- waiting ---- */

/* MF_OK: the socket is ready, or broken, which the next call on it tells. */
static mf_status wait_for(const call *c, short events, mf_error *err)
{
    struct pollfd fd = {.fd = c->fd, .events = events};
    for (;;) {
        if (c->peer->stop && c->peer->stop())
            return mfi_fail(err, MF_ERR_CANCELLED, "interrupted");
        uint64_t now = mfi_clock_ns();
        if (now >= c->until_ns)
            return mfi_fail(err, MF_ERR_IO, "%s: no answer in time", c->peer->name);
        int n = poll(&fd, 1, (int)MFI_MIN((c->until_ns - now) / 1000000 + 1, (uint64_t)POLL_MS));
        if (n > 0)
            return MF_OK;
        if (n < 0 && errno != EINTR)
            return mfi_fail(err, MF_ERR_IO, "%s: %s", c->peer->name, strerror(errno));
    }
}

/* ---- connecting ---- */

static mf_status connect_to(call *c, const struct sockaddr *address, socklen_t len, mf_error *err)
{
    c->fd = socket(address->sa_family, SOCK_STREAM, 0);
    if (c->fd < 0)
        return mfi_fail(err, MF_ERR_IO, "%s: %s", c->peer->name, strerror(errno));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    fcntl(c->fd, F_SETFD, FD_CLOEXEC);
    int error = connect(c->fd, address, len) == 0 ? 0 : errno;
    mf_status status = MF_OK;
    if (error == EINPROGRESS || error == EINTR) {
        socklen_t size = sizeof error;
        status = wait_for(c, POLLOUT, err);
        if (status == MF_OK && getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
            error = errno;
    }
    if (status == MF_OK && !error)
        return MF_OK;
    close(c->fd);
    c->fd = -1;
    return status != MF_OK ? status
                           : mfi_fail(err, MF_ERR_IO, "%s: %s", c->peer->name, strerror(error));
}

static mf_status connect_unix(call *c, mf_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(c->peer->unix_path) >= sizeof address.sun_path)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s: the path is too long", c->peer->unix_path);
    strcpy(address.sun_path, c->peer->unix_path);
    return connect_to(c, (const struct sockaddr *)&address, sizeof address, err);
}

static mf_status connect_tcp(call *c, mf_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *list = NULL;
    char port[8];
    snprintf(port, sizeof port, "%u", c->peer->port);
    int error = getaddrinfo(c->peer->host, port, &hints, &list);
    if (error)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s: %s", c->peer->name, gai_strerror(error));
    mf_status status = MF_ERR_IO;
    for (const struct addrinfo *a = list; a && status == MF_ERR_IO; a = a->ai_next)
        status = connect_to(c, a->ai_addr, a->ai_addrlen, err);
    freeaddrinfo(list);
    return status;
}

/* ---- asking and being answered ---- */

static mf_status send_all(call *c, const mfi_buf *text, mf_error *err)
{
    for (size_t at = 0; at < text->len;) {
        MFI_TRY(wait_for(c, POLLOUT, err));
        ssize_t n = send(c->fd, text->data + at, text->len - at, MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN && errno != EINTR)
            return mfi_fail(err, MF_ERR_IO, "%s: %s", c->peer->name, strerror(errno));
        at += n > 0 ? (size_t)n : 0;
    }
    return MF_OK;
}

static int on_body(llhttp_t *http, const char *at, size_t len)
{
    call *c = http->data;
    c->too_long = c->body->len + len > MFI_MAX_CLIENT_BODY_BYTES;
    if (!c->too_long)
        mfi_buf_append(c->body, at, len);
    return c->too_long || c->body->failed ? -1 : 0;
}

static int on_complete(llhttp_t *http)
{
    call *c = http->data;
    c->over = true;
    c->status = http->status_code;
    return HPE_PAUSED;
}

static mf_status read_answer(call *c, mf_error *err)
{
    static const llhttp_settings_t settings = {.on_body = on_body,
                                               .on_message_complete = on_complete};
    char bytes[PIECE_BYTES];
    uint64_t n_read = 0;
    llhttp_t http;
    llhttp_init(&http, HTTP_RESPONSE, &settings);
    http.data = c;
    while (!c->over) {
        MFI_TRY(wait_for(c, POLLIN, err));
        ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (n < 0)
            return mfi_fail(err, MF_ERR_IO, "%s: %s", c->peer->name, strerror(errno));
        n_read += (uint64_t)n;
        llhttp_errno_t e = n ? llhttp_execute(&http, bytes, (size_t)n) : llhttp_finish(&http);
        if (!c->over && c->body->failed)
            return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for the answer", c->peer->name);
        if (!c->over && (e != HPE_OK || n == 0 || n_read > 2 * MFI_MAX_CLIENT_BODY_BYTES))
            return mfi_fail(err, MF_ERR_FORMAT, "%s: %s", c->peer->name,
                            c->too_long ? "the answer is too long" : "this is no answer of HTTP");
    }
    return MF_OK;
}

mf_status srv_get(const srv_peer *peer, const char *path, int *http_status, mfi_buf *body,
                  mf_error *err)
{
    call c = {.peer = peer, .fd = -1, .body = body};
    mfi_buf text = {0};
    body->len = 0;
    c.until_ns = mfi_clock_ns() + (uint64_t)peer->timeout_ms * 1000000;
    bool colon = peer->host && strchr(peer->host, ':');
    mfi_buf_fmt(&text, "GET %s HTTP/1.1\r\nHost: ", path);
    if (peer->unix_path)
        mfi_buf_str(&text, "localhost");
    else
        mfi_buf_fmt(&text, "%s%s%s:%u", colon ? "[" : "", peer->host, colon ? "]" : "", peer->port);
    mfi_buf_str(&text, "\r\nAccept: application/json\r\nConnection: close\r\n");
    if (peer->key)
        mfi_buf_fmt(&text, "Authorization: Bearer %s\r\n", peer->key);
    mfi_buf_str(&text, "\r\n");
    mf_status status = text.failed       ? mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory")
                       : peer->unix_path ? connect_unix(&c, err)
                                         : connect_tcp(&c, err);
    if (status == MF_OK)
        status = send_all(&c, &text, err);
    if (status == MF_OK)
        status = read_answer(&c, err);
    if (c.fd >= 0)
        close(c.fd);
    mfi_buf_free(&text);
    *http_status = c.status;
    return status;
}
