/* Counters and histograms, in vLLM's names under our prefix, in the text format 0.0.4; see
 * metrics.h. Any thread; one short lock. */
#include "metrics.h"

#include <inttypes.h>
#include <string.h>

#include "server_int.h"

/* vLLM's, for the time to the first token. */
static const double bounds_s[SRV_BUCKETS] = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                             0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10,
                                             20,    40,    80,   160,  640,  2560};

void srv_metrics_init(srv_metrics *m)
{
    *m = (srv_metrics){.engine.struct_size = sizeof m->engine};
    pthread_mutex_init(&m->lock, NULL);
}

void srv_metrics_free(srv_metrics *m)
{
    pthread_mutex_destroy(&m->lock);
}

static void observe(srv_histogram *h, uint64_t ns)
{
    double s = (double)ns / 1e9;
    size_t i = 0;
    while (i < SRV_BUCKETS && s > bounds_s[i])
        i++;
    h->counts[i]++;
    h->n++;
    h->sum_s += s;
}

void srv_metrics_token(srv_metrics *m, const srv_choice *c, uint64_t now_ns)
{
    pthread_mutex_lock(&m->lock);
    m->generation_tokens++;
    if (!c->first_ns)
        observe(&m->first_token, now_ns - c->job->x->came_ns);
    else
        observe(&m->between_tokens, now_ns - c->last_ns);
    pthread_mutex_unlock(&m->lock);
}

void srv_metrics_started(srv_metrics *m, const srv_choice *c, uint64_t now_ns)
{
    pthread_mutex_lock(&m->lock);
    observe(&m->queue, now_ns - c->job->queued_ns);
    pthread_mutex_unlock(&m->lock);
}

void srv_metrics_choice(srv_metrics *m, const srv_choice *c, uint64_t now_ns)
{
    pthread_mutex_lock(&m->lock);
    if (atomic_load(&c->job->x->gone))
        m->aborted++;
    else if (!c->done)
        m->failed++;
    else
        m->finished[c->finish]++;
    m->queried_tokens += c->n_ids;
    m->cached_tokens += c->job->echo ? 0 : c->result.n_cached;
    m->prompt_tokens += c->job->echo ? c->n_echoed : c->result.n_prompt_done;
    observe(&m->whole, now_ns - c->job->x->came_ns);
    if (c->first_ns) {
        observe(&m->prefill, c->first_ns - c->started_ns);
        observe(&m->decode, c->last_ns - c->first_ns);
    }
    pthread_mutex_unlock(&m->lock);
}

void srv_metrics_count(srv_metrics *m, uint64_t *counter)
{
    pthread_mutex_lock(&m->lock);
    ++*counter;
    pthread_mutex_unlock(&m->lock);
}

/* ---- the text ---- */

static void head(mfi_buf *out, const char *name, const char *type, const char *help)
{
    mfi_buf_fmt(out, "# HELP moeflux_%s %s\n# TYPE moeflux_%s %s\n", name, help, name, type);
}

static void counter(mfi_buf *out, const char *name, uint64_t value, const char *help)
{
    head(out, name, "counter", help);
    mfi_buf_fmt(out, "moeflux_%s %" PRIu64 "\n", name, value);
}

static void gauge(mfi_buf *out, const char *name, double value, const char *help)
{
    head(out, name, "gauge", help);
    mfi_buf_fmt(out, "moeflux_%s ", name);
    mfi_json_put_f64(out, value);
    mfi_buf_str(out, "\n");
}

static void histogram(mfi_buf *out, const char *name, const srv_histogram *h, const char *help)
{
    uint64_t n = 0;
    head(out, name, "histogram", help);
    for (size_t i = 0; i < SRV_BUCKETS; i++) {
        n += h->counts[i];
        mfi_buf_fmt(out, "moeflux_%s_bucket{le=\"%g\"} %" PRIu64 "\n", name, bounds_s[i], n);
    }
    mfi_buf_fmt(out, "moeflux_%s_bucket{le=\"+Inf\"} %" PRIu64 "\nmoeflux_%s_sum ", name, h->n,
                name);
    mfi_json_put_f64(out, h->sum_s);
    mfi_buf_fmt(out, "\nmoeflux_%s_count %" PRIu64 "\n", name, h->n);
}

static void put_requests(srv_server *server, const srv_metrics *m, mfi_buf *out)
{
    static const char *const reasons[] = {"stop", "stop", "length", "tool_calls"};
    srv_worker *w = &server->worker;
    pthread_mutex_lock(&w->lock);
    uint32_t running = w->n_running, waiting = w->n_waiting;
    pthread_mutex_unlock(&w->lock);
    gauge(out, "num_requests_running", running, "Answers being generated.");
    gauge(out, "num_requests_waiting", waiting, "Answers waiting for a session.");
    gauge(out, "kv_cache_usage_perc",
          m->kv_tokens ? (double)m->kv_used_tokens / (double)m->kv_tokens : 0,
          "Positions of all sessions in use, 0 to 1.");
    counter(out, "prefix_cache_queries_total", m->queried_tokens, "Prompt tokens asked for.");
    counter(out, "prefix_cache_hits_total", m->cached_tokens,
            "Of them, those that were evaluated already.");
    counter(out, "prompt_tokens_total", m->prompt_tokens, "Prompt tokens evaluated.");
    counter(out, "generation_tokens_total", m->generation_tokens, "Tokens generated.");
    head(out, "request_success_total", "counter", "Answers that ended, by reason.");
    for (size_t i = 1; i < MFI_ARRAY_LEN(reasons); i++)
        mfi_buf_fmt(out, "moeflux_request_success_total{finished_reason=\"%s\"} %" PRIu64 "\n",
                    reasons[i], m->finished[i] + (i == 1 ? m->finished[0] : 0));
    counter(out, "request_aborted_total", m->aborted, "Answers whose client left.");
    counter(out, "request_failed_total", m->failed, "Answers that failed.");
    counter(out, "request_refused_total", m->refused_full, "Requests refused for a full queue.");
}

static void put_engine(const srv_metrics *m, mfi_buf *out)
{
    const mf_stats *e = &m->engine;
    head(out, "expert_requests_total", "counter", "Experts wanted, by whether they were cached.");
    mfi_buf_fmt(out, "moeflux_expert_requests_total{result=\"hit\"} %" PRIu64 "\n", e->expert_hits);
    mfi_buf_fmt(out, "moeflux_expert_requests_total{result=\"miss\"} %" PRIu64 "\n",
                e->expert_misses);
    counter(out, "expert_evictions_total", e->expert_evictions, "Experts dropped from the cache.");
    counter(out, "expert_bytes_read_total", e->expert_bytes_read, "Bytes read of experts.");
    head(out, "expert_stall_seconds_total", "counter", "Time that compute waited for experts.");
    mfi_buf_str(out, "moeflux_expert_stall_seconds_total ");
    mfi_json_put_f64(out, (double)e->stall_ns / 1e9);
    mfi_buf_str(out, "\n");
    gauge(out, "expert_cache_bytes", (double)e->slot_bytes, "Room for experts in memory.");
    gauge(out, "memory_budget_bytes", (double)e->budget_bytes, "The bound for the whole process.");
    gauge(out, "memory_peak_bytes", (double)e->peak_bytes, "Highest resident set so far.");
    counter(out, "iterations_total", m->passes, "Passes over the model.");
    counter(out, "iteration_tokens_total", e->tokens_evaluated,
            "Tokens that went through the layers.");
}

void srv_show_metrics(srv_server *server, srv_exchange *x)
{
    srv_loop_stats *http = &server->loop.stats;
    mfi_buf out = {0};
    pthread_mutex_lock(&server->metrics.lock);
    srv_metrics m = server->metrics;
    pthread_mutex_unlock(&server->metrics.lock);
    put_requests(server, &m, &out);
    histogram(&out, "time_to_first_token_seconds", &m.first_token,
              "From the request to its first token.");
    histogram(&out, "inter_token_latency_seconds", &m.between_tokens, "Between two tokens.");
    histogram(&out, "e2e_request_latency_seconds", &m.whole, "From the request to the end.");
    histogram(&out, "request_queue_time_seconds", &m.queue, "Waiting for a session.");
    histogram(&out, "request_prefill_time_seconds", &m.prefill, "From the start to a token.");
    histogram(&out, "request_decode_time_seconds", &m.decode, "From the first token to the last.");
    put_engine(&m, &out);
    gauge(&out, "http_connections", atomic_load(&http->open), "Open connections.");
    gauge(&out, "http_body_bytes", atomic_load(&server->loop.room.used),
          "Of bodies that arrive, and of what waits.");
    counter(&out, "http_connections_total", atomic_load(&http->accepted), "Connections so far.");
    counter(&out, "http_connections_refused_total", atomic_load(&http->refused),
            "Connections turned away.");
    counter(&out, "http_requests_total", atomic_load(&http->requests), "Requests so far.");
    srv_reply_buf(x, 200, "text/plain; version=0.0.4; charset=utf-8", &out);
}
