/* Sockets to listen on, and telling a supervisor. */
#ifndef SRV_LISTEN_H
#define SRV_LISTEN_H

#include "base/limits.h"
#include "base/status.h"

typedef struct srv_listener {
    int fd;
    bool local;          /* a unix socket: no Host to check */
    bool loopback;       /* reachable from this machine only */
    char address[128];   /* for people: "http://127.0.0.1:8080" */
    char unlink_at[108]; /* a unix socket's file, which is ours; "" : none */
} srv_listener;

typedef struct srv_listeners {
    srv_listener at[MFI_MAX_HTTP_LISTENERS];
    size_t n;
} srv_listeners;

/* host: names or addresses, separated by commas. port 0: any free one. */
mf_status srv_listen_tcp(srv_listeners *listeners, const char *host, unsigned port, mf_error *err);
/* A socket file that nobody answers at is replaced, any other file is not. */
mf_status srv_listen_unix(srv_listeners *listeners, const char *path, mf_error *err);
/* Sockets that were opened for us: n from descriptor 3 on. */
mf_status srv_listen_inherited(srv_listeners *listeners, unsigned n, mf_error *err);
void srv_listeners_close(srv_listeners *listeners);

/* Sends a line such as "READY=1" to the socket that NOTIFY_SOCKET names; NULL or "": to nobody. */
void srv_notify(const char *notify_socket, const char *text);

#endif
