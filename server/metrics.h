/* What the server counts, and how Prometheus gets it. */
#ifndef SRV_METRICS_H
#define SRV_METRICS_H

#include "job.h"

#define SRV_BUCKETS 22 /* and the rest */

typedef struct srv_histogram {
    uint64_t counts[SRV_BUCKETS + 1];
    uint64_t n;
    double sum_s;
} srv_histogram;

typedef struct srv_metrics {
    pthread_mutex_t lock; /* for all of it */
    uint64_t prompt_tokens, generation_tokens, cached_tokens, queried_tokens;
    uint64_t finished[4]; /* by srv_finish */
    uint64_t aborted, failed, refused_full;
    uint64_t passes;
    srv_histogram first_token, between_tokens, whole, queue, prefill, decode;
    mf_stats engine; /* as of the last pass */
    size_t kv_used_tokens, kv_tokens;
} srv_metrics;

void srv_metrics_init(srv_metrics *metrics);
void srv_metrics_free(srv_metrics *metrics);
/* A token came, before the choice's own times are moved. */
void srv_metrics_token(srv_metrics *metrics, const srv_choice *choice, uint64_t now_ns);
void srv_metrics_started(srv_metrics *metrics, const srv_choice *choice, uint64_t now_ns);
void srv_metrics_choice(srv_metrics *metrics, const srv_choice *choice, uint64_t now_ns);
void srv_metrics_count(srv_metrics *metrics, uint64_t *counter);

#endif
