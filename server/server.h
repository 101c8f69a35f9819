/* The server: models over HTTP. Links the public header and base/ only.
 *
 * Three threads: the caller's owns the engine and does nothing but evaluate; the loop has all
 * sockets; the desk reads requests and turns them into token ids. */
#ifndef SRV_SERVER_H
#define SRV_SERVER_H

#include "base/buf.h"
#include "base/limits.h"
#include "base/status.h"

/* All bodies together, and what they are made into, in lengths of the longest. */
#define SRV_ROOM_BODIES 4

typedef struct srv_options {
    /* Where */
    const char *host; /* names or addresses, separated by commas; NULL: no TCP */
    unsigned port;
    const char *unix_path; /* NULL: none */
    unsigned n_inherited;  /* sockets that a supervisor opened, from descriptor 3 on */
    const char *notify_socket;
    /* Who */
    const char *const *keys; /* [n_keys]; none: everybody */
    size_t n_keys;
    const char *const *allowed_hosts; /* beside addresses and localhost */
    size_t n_allowed_hosts;
    const char *const *cors_origins; /* whose pages may ask */
    size_t n_cors_origins;
    /* How much */
    uint32_t parallel; /* answers at once */
    uint32_t queue;    /* requests that may wait */
    uint32_t max_connections;
    uint64_t max_body_bytes;
    uint32_t request_s, idle_s, write_s, ping_s, drain_s;
    /* What */
    mf_engine_options engine;  /* n_sessions and grammars are set by the server */
    const char *alias;         /* how the model is called */
    const char *chat_template; /* path, NULL: the model's own */
    const char *now;           /* as in mf_template_render */
    mf_sampling sampling;      /* defaults of requests; only where `sampling_given` */
    uint32_t sampling_given;   /* bits SRV_GIVEN_... */
    bool raw_reasoning;        /* answers are left as they are written */
    /* Telling */
    void (*say)(void *user, const char *line); /* from any thread */
    void *user;
    int stop_fd; /* readable once a signal came */
    bool (*stop_wanted)(void);
} srv_options;

enum {
    SRV_GIVEN_TEMPERATURE = 1,
    SRV_GIVEN_TOP_K = 2,
    SRV_GIVEN_TOP_P = 4,
    SRV_GIVEN_MIN_P = 8,
    SRV_GIVEN_REPEAT = 16,
    SRV_GIVEN_PRESENCE = 32,
    SRV_GIVEN_FREQUENCY = 64,
    SRV_GIVEN_LAST_N = 128
};

void srv_options_default(srv_options *options);

/* Serves until stop_wanted. MF_OK then; failures are those of listening and of opening the model.
 */
mf_status srv_run(const srv_options *options, mf_error *err);

/* ---- the other side, for programs of moeflux's own ---- */

typedef struct srv_peer {
    const char *name; /* in messages */
    const char *host; /* name or address, without brackets */
    unsigned port;
    const char *unix_path; /* NULL: TCP */
    const char *key;       /* NULL: none */
    unsigned timeout_ms;   /* of a whole request */
    bool (*stop)(void);    /* asked while it waits; may be NULL */
} srv_peer;

/* GETs a path into body, which it empties first. MF_OK with any status of HTTP; MF_ERR_IO,
 * MF_ERR_ARGUMENT (no such host), MF_ERR_FORMAT (no HTTP, or too long), MF_ERR_CANCELLED. */
mf_status srv_get(const srv_peer *peer, const char *path, int *http_status, mfi_buf *body,
                  mf_error *err);

#endif
