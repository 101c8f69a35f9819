/* What the page and `moeflux top` show: GET /api/status, /api/experts and /api/cache. */
#ifndef SRV_STATUS_H
#define SRV_STATUS_H

#include "metrics.h"

/* A session, as of the last pass. */
typedef struct srv_seat {
    size_t n_used;                /* tokens of its timeline */
    bool busy;                    /* somebody is answered in it */
    size_t n_prompt, n_evaluated; /* its prompt, and how much of it is done */
    size_t n_generated;
    uint64_t since_ns; /* when the answer was begun; until then, when it was asked for */
} srv_seat;

/* How many tokens there were, and when: for rates. */
#define SRV_SAMPLES 64

typedef struct srv_sample {
    uint64_t at_ns, generated, evaluated;
} srv_sample;

typedef struct srv_status {
    pthread_mutex_t lock; /* for all of it */
    srv_seat *seats;      /* [parallel] */
    srv_sample samples[SRV_SAMPLES];
    uint64_t n_samples; /* ever taken */
} srv_status;

/* /api/cache: what caches of other sizes would have hit. Made on a thread of its own, which yields
 * to all others, and at most every few seconds. */
typedef struct srv_curves {
    pthread_mutex_t lock; /* for all of it */
    pthread_cond_t wake;
    pthread_t thread;
    bool runs, stop;
    srv_exchange *waiting[16];
    size_t n_waiting;
    mfi_buf text;      /* the last answer */
    bool lasts;        /* it may be sent again for a while: */
    uint64_t until_ns; /* so long */
} srv_curves;

bool srv_status_init(srv_status *status, uint32_t n_seats);
void srv_status_free(srv_status *status);

void srv_curves_init(srv_curves *curves);
void srv_curves_free(srv_curves *curves);

#endif
