/* A connection: what has come, what is to go, and whose turn it is. The loop's thread only. */
#ifndef SRV_CONN_H
#define SRV_CONN_H

#include "loop.h"

typedef enum srv_conn_state {
    SRV_CONN_READING, /* a request, or waiting for one */
    SRV_CONN_ANSWERING,
    SRV_CONN_LINGERING, /* the last answer is out; what still comes is thrown away */
    SRV_CONN_CLOSED
} srv_conn_state;

typedef struct srv_conn {
    int fd;
    bool local;
    srv_conn_state state;
    srv_parser parser;
    mfi_buf ahead; /* bytes of the next requests */
    mfi_buf out;   /* bytes to send, from out_at on */
    size_t out_at;
    srv_exchange *x; /* NULL unless answering */
    bool head_sent, keep_alive, head_only, continued, checked;
    uint64_t since_ns; /* of the state, or of the request's first byte */
    uint64_t wrote_ns; /* when something was last sent, or there was nothing to send */
} srv_conn;

srv_conn *srv_conn_new(int fd, bool local, srv_loop *loop, uint64_t now_ns);
void srv_conn_free(srv_conn *conn);

/* What poll() shall wait for. */
short srv_conn_events(const srv_conn *conn);
/* Reads and writes what can be; afterwards the state says what became of it. */
void srv_conn_serve(srv_loop *loop, srv_conn *conn, short revents, uint64_t now_ns);
/* Takes what the exchange has made, sends it, and goes on to the next request. */
void srv_conn_pull(srv_loop *loop, srv_conn *conn, uint64_t now_ns);
/* Closes it if it is over time, or pings; returns when to look again. */
uint64_t srv_conn_tick(srv_loop *loop, srv_conn *conn, uint64_t now_ns);
/* Waits for a request that hasn't begun. */
bool srv_conn_idle(const srv_conn *conn);

#endif
