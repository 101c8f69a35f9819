/* The loop; see loop.h. Runs on a thread of its own, and is the only one that touches sockets and
 * connections. Others wake it through a pipe when an exchange has something to send. */
#include "loop.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "conn.h"

#ifndef MSG_NOSIGNAL /* SIGPIPE is ignored as well */
#define MSG_NOSIGNAL 0
#endif

#define SECOND_NS   ((uint64_t)1000000000)
#define N_OWN       2                /* the wake-up pipe, the signals' pipe */
#define ACCEPTS_MAX 64               /* at a time */
#define PAUSE_NS    (SECOND_NS / 10) /* without descriptors to accept with */

typedef struct state {
    srv_loop *loop;
    srv_conn **conns; /* [n], at most max_connections */
    size_t n, cap;
    struct pollfd *fds; /* own, listeners, connections */
    bool draining;
    uint64_t drain_until_ns, accept_from_ns;
} state;

/* ---- connections come and go ---- */

static void drop(state *s, size_t i)
{
    srv_conn_free(s->conns[i]);
    s->conns[i] = s->conns[--s->n];
    atomic_store(&s->loop->stats.open, (uint32_t)s->n);
}

/* Makes room by closing who has waited longest without a request; false if all have one. */
static bool make_room(state *s)
{
    size_t oldest = s->n;
    for (size_t i = 0; i < s->n; i++)
        if (srv_conn_idle(s->conns[i]) &&
            (oldest == s->n || s->conns[i]->since_ns < s->conns[oldest]->since_ns))
            oldest = i;
    if (oldest == s->n)
        return false;
    drop(s, oldest);
    return true;
}

static void turn_away(state *s, int fd)
{
    static const char text[] = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n"
                               "Content-Length: 0\r\nConnection: close\r\n\r\n";
    (void)!send(fd, text, sizeof text - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    close(fd);
    atomic_fetch_add(&s->loop->stats.refused, 1);
}

static void add(state *s, int fd, bool local, uint64_t now_ns)
{
    int on = 1;
    if (s->n == s->cap && !make_room(s)) {
        turn_away(s, fd);
        return;
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (!local)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    srv_conn *c = srv_conn_new(fd, local, s->loop, now_ns);
    if (!c) {
        turn_away(s, fd);
        return;
    }
    s->conns[s->n++] = c;
    atomic_fetch_add(&s->loop->stats.accepted, 1);
    atomic_store(&s->loop->stats.open, (uint32_t)s->n);
}

static void accept_all(state *s, const srv_listener *l, uint64_t now_ns)
{
    for (int i = 0; i < ACCEPTS_MAX; i++) {
        int fd = accept(l->fd, NULL, NULL);
        if (fd >= 0)
            add(s, fd, l->local, now_ns);
        else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
            if (!make_room(s))
                s->accept_from_ns = now_ns + PAUSE_NS;
            return;
        } else if (errno != EINTR && errno != ECONNABORTED)
            return;
    }
}

/* ---- a round ---- */

static void begin_draining(state *s, uint64_t now_ns)
{
    s->draining = true;
    s->drain_until_ns = now_ns + s->loop->options->drain_s * SECOND_NS;
    srv_listeners_close(s->loop->listeners);
    s->loop->draining(s->loop->user);
}

/* True while somebody is answered or reads the end of an answer. */
static bool busy(const state *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (s->conns[i]->state == SRV_CONN_ANSWERING || s->conns[i]->out_at < s->conns[i]->out.len)
            return true;
    return false;
}

static int timeout_ms(uint64_t due_ns, uint64_t now_ns)
{
    if (due_ns == UINT64_MAX)
        return -1;
    uint64_t ms = due_ns > now_ns ? (due_ns - now_ns) / 1000000 + 1 : 0;
    return (int)MFI_MIN(ms, (uint64_t)60000);
}

/* Deadlines; drops what is over. Returns when the next one is. */
static uint64_t tick(state *s, uint64_t now_ns)
{
    uint64_t next = s->draining ? s->drain_until_ns : UINT64_MAX;
    if (!s->draining && s->accept_from_ns > now_ns)
        next = s->accept_from_ns;
    for (size_t i = s->n; i-- > 0;) {
        uint64_t due = srv_conn_tick(s->loop, s->conns[i], now_ns);
        next = MFI_MIN(next, due);
        if (s->conns[i]->state == SRV_CONN_CLOSED || (s->draining && srv_conn_idle(s->conns[i])))
            drop(s, i);
    }
    return next;
}

static size_t fill_fds(state *s, uint64_t now_ns)
{
    size_t n = 0;
    bool accepts = now_ns >= s->accept_from_ns;
    s->fds[n++] = (struct pollfd){.fd = s->loop->wake.fds[0], .events = POLLIN};
    s->fds[n++] =
        (struct pollfd){.fd = s->draining ? -1 : s->loop->options->stop_fd, .events = POLLIN};
    for (size_t i = 0; i < s->loop->listeners->n; i++)
        s->fds[n++] =
            (struct pollfd){.fd = accepts ? s->loop->listeners->at[i].fd : -1, .events = POLLIN};
    for (size_t i = 0; i < s->n; i++)
        s->fds[n++] =
            (struct pollfd){.fd = s->conns[i]->fd, .events = srv_conn_events(s->conns[i])};
    return n;
}

/* One look at everything. */
static void serve_round(state *s)
{
    uint64_t now_ns = mfi_clock_ns();
    uint64_t due = tick(s, now_ns);
    size_t n_listeners = s->loop->listeners->n, n_conns = s->n;
    size_t n = fill_fds(s, now_ns);
    int ready = poll(s->fds, (nfds_t)n, timeout_ms(due, now_ns));
    now_ns = mfi_clock_ns();
    bool woken = ready > 0 && s->fds[0].revents;
    if (woken)
        srv_wake_drain(&s->loop->wake);
    for (size_t i = n_conns; ready > 0 && i-- > 0;) { /* backwards: drop() moves the last here */
        srv_conn *c = s->conns[i];
        short revents = s->fds[N_OWN + n_listeners + i].revents;
        if (revents)
            srv_conn_serve(s->loop, c, revents, now_ns);
        else if (woken)
            srv_conn_pull(s->loop, c, now_ns);
        if (c->state == SRV_CONN_CLOSED)
            drop(s, i);
    }
    for (size_t i = 0; ready > 0 && i < n_listeners; i++)
        if (s->fds[N_OWN + i].revents)
            accept_all(s, &s->loop->listeners->at[i], now_ns);
}

bool srv_loop_run(srv_loop *loop)
{
    state s = {.loop = loop, .cap = loop->options->max_connections};
    s.conns = calloc(s.cap, sizeof(srv_conn *));
    s.fds = calloc(s.cap + N_OWN + MFI_MAX_HTTP_LISTENERS, sizeof *s.fds);
    bool ok = s.conns && s.fds;
    while (ok) {
        serve_round(&s);
        if (atomic_load(loop->cut))
            break;
        if (!s.draining && loop->options->stop_wanted())
            begin_draining(&s, mfi_clock_ns());
        if (s.draining && (!busy(&s) || mfi_clock_ns() >= s.drain_until_ns))
            break;
    }
    if (!s.draining) {
        srv_listeners_close(loop->listeners);
        loop->draining(loop->user);
    }
    while (s.conns && s.n)
        drop(&s, s.n - 1);
    free(s.conns);
    free(s.fds);
    return ok;
}
