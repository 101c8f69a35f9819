/* Sockets to listen on; see listen.h. Called at start and at the end, on the main thread. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG      256
#define FIRST_GIVEN  3 /* SD_LISTEN_FDS_START */
#define UNIX_MODE    0660
#define HOST_MAX_LEN 255

static bool prepare(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0 &&
           fcntl(fd, F_SETFD, FD_CLOEXEC) == 0;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)address;
        return ntohl(in->sin_addr.s_addr) >> 24 == 127;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in = (const void *)address;
        return IN6_IS_ADDR_LOOPBACK(&in->sin6_addr);
    }
    return address->sa_family == AF_UNIX;
}

/* Fills in what the socket's own address says. */
static void describe(srv_listener *l)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof address;
    char host[NI_MAXHOST], port[NI_MAXSERV];
    memset(&address, 0, sizeof address);
    if (getsockname(l->fd, (struct sockaddr *)&address, &len) != 0)
        return;
    l->loopback = is_loopback((struct sockaddr *)&address);
    l->local = address.ss_family == AF_UNIX;
    if (l->local) {
        const struct sockaddr_un *un = (const void *)&address;
        snprintf(l->address, sizeof l->address, "unix:%.107s", un->sun_path);
    } else if (getnameinfo((struct sockaddr *)&address, len, host, sizeof host, port, sizeof port,
                           NI_NUMERICHOST | NI_NUMERICSERV) == 0) {
        bool six = strchr(host, ':') != NULL;
        snprintf(l->address, sizeof l->address, "http://%s%.90s%s:%.6s", six ? "[" : "", host,
                 six ? "]" : "", port);
    }
}

static mf_status add(srv_listeners *ls, int fd, mf_error *err)
{
    if (ls->n == MFI_MAX_HTTP_LISTENERS) {
        close(fd);
        return mfi_fail(err, MF_ERR_LIMIT, "more than %d sockets to listen on",
                        MFI_MAX_HTTP_LISTENERS);
    }
    ls->at[ls->n] = (srv_listener){.fd = fd};
    describe(&ls->at[ls->n++]);
    return MF_OK;
}

static mf_status open_address(srv_listeners *ls, const struct addrinfo *info, const char *host,
                              unsigned port, mf_error *err)
{
    int fd = socket(info->ai_family, SOCK_STREAM, 0), on = 1;
    if (fd < 0)
        return mfi_fail(err, MF_ERR_STATE, "%s port %u: %s", host, port, strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (info->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
    if (!prepare(fd) || bind(fd, info->ai_addr, info->ai_addrlen) != 0 ||
        listen(fd, BACKLOG) != 0) {
        int error = errno;
        close(fd);
        return mfi_fail(err, MF_ERR_STATE, "can't listen on %s port %u: %s", host, port,
                        strerror(error));
    }
    return add(ls, fd, err);
}

static mf_status open_host(srv_listeners *ls, const char *host, unsigned port, mf_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    struct addrinfo *infos = NULL;
    char service[8];
    snprintf(service, sizeof service, "%u", port);
    int error = getaddrinfo(host, service, &hints, &infos);
    if (error)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s: %s", host, gai_strerror(error));
    size_t before = ls->n;
    mf_status status = MF_OK;
    for (const struct addrinfo *i = infos; i; i = i->ai_next) {
        mf_status one = open_address(ls, i, host, port, err);
        status = status ? status : one;
    }
    freeaddrinfo(infos);
    return ls->n > before ? MF_OK : status; /* localhost may have an address that isn't up */
}

mf_status srv_listen_tcp(srv_listeners *ls, const char *host, unsigned port, mf_error *err)
{
    for (const char *p = host; *p;) {
        char one[HOST_MAX_LEN + 1];
        size_t n = strcspn(p, ",");
        if (n == 0 || n > HOST_MAX_LEN)
            return mfi_fail(err, MF_ERR_ARGUMENT, "'%s' is no list of hosts", host);
        memcpy(one, p, n);
        one[n] = 0;
        MFI_TRY(open_host(ls, one, port, err));
        p += n + (p[n] == ',');
    }
    return MF_OK;
}

/* True if somebody answers there. */
static bool in_use(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    bool used = fd >= 0 && connect(fd, (const void *)address, sizeof *address) == 0;
    if (fd >= 0)
        close(fd);
    return used;
}

mf_status srv_listen_unix(srv_listeners *ls, const char *path, mf_error *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat st;
    if (strlen(path) >= sizeof address.sun_path)
        return mfi_fail(err, MF_ERR_ARGUMENT, "%s: longer than the path of a socket may be", path);
    memcpy(address.sun_path, path, strlen(path));
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return mfi_fail(err, MF_ERR_ARGUMENT, "%s exists and is no socket", path);
        if (in_use(&address))
            return mfi_fail(err, MF_ERR_STATE, "%s: somebody listens there", path);
        unlink(path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0)
        return mfi_fail(err, MF_ERR_STATE, "%s: %s", path, strerror(errno));
    mode_t mask = umask(0777 & ~UNIX_MODE); /* nobody gets in between bind and chmod */
    bool bound = bind(fd, (const void *)&address, sizeof address) == 0;
    int error = errno;
    umask(mask);
    if (!bound || !prepare(fd) || listen(fd, BACKLOG) != 0) {
        error = bound ? errno : error;
        close(fd);
        return mfi_fail(err, MF_ERR_STATE, "can't listen on %s: %s", path, strerror(error));
    }
    MFI_TRY(add(ls, fd, err));
    memcpy(ls->at[ls->n - 1].unlink_at, path, strlen(path));
    return MF_OK;
}

mf_status srv_listen_inherited(srv_listeners *ls, unsigned n, mf_error *err)
{
    for (unsigned i = 0; i < n; i++) {
        int fd = FIRST_GIVEN + (int)i, type = 0;
        socklen_t len = sizeof type;
        if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM ||
            !prepare(fd))
            return mfi_fail(err, MF_ERR_ARGUMENT,
                            "LISTEN_FDS: descriptor %d is no stream socket to listen on", fd);
        MFI_TRY(add(ls, fd, err));
    }
    return MF_OK;
}

void srv_listeners_close(srv_listeners *ls)
{
    for (size_t i = 0; i < ls->n; i++) {
        close(ls->at[i].fd);
        if (ls->at[i].unlink_at[0])
            unlink(ls->at[i].unlink_at);
    }
    ls->n = 0;
}

void srv_notify(const char *notify_socket, const char *text)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t len = notify_socket ? strlen(notify_socket) : 0;
    if (!len || len >= sizeof address.sun_path ||
        (notify_socket[0] != '/' && notify_socket[0] != '@'))
        return;
    memcpy(address.sun_path, notify_socket, len);
    if (address.sun_path[0] == '@') /* of the abstract name space */
        address.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (fd < 0)
        return;
    (void)!sendto(fd, text, strlen(text), 0, (const void *)&address,
                  (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}
