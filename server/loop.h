/* The loop: all connections, on one thread, in one poll(). */
#ifndef SRV_LOOP_H
#define SRV_LOOP_H

#include "listen.h"
#include "reply.h"
#include "server.h"

/* A request is whole and allowed; the callee has a reference of its own to let go of, and answers
 * now or later, from any thread. */
typedef void (*srv_handle_fn)(void *user, srv_exchange *x);

typedef struct srv_loop_stats {
    _Atomic uint64_t accepted, refused, requests;
    _Atomic uint32_t open;
} srv_loop_stats;

typedef struct srv_loop {
    const srv_options *options;
    srv_listeners *listeners;
    srv_wake wake;
    srv_handle_fn handle;
    bool (*open_path)(const char *path); /* needs no key */
    void (*draining)(void *user);        /* no more requests come; called once */
    const _Atomic bool *cut;             /* end now: there will be no answers */
    void *user;
    srv_loop_stats stats;
    srv_room room;
} srv_loop;

/* Runs until a stop is wanted and what runs has ended, or the grace is over. False with errno if
 * there is no memory to begin. */
bool srv_loop_run(srv_loop *loop);

#endif
