/* GET /api/status and /api/experts; see docs/server.md for every member. On the loop's thread; the
 * engine's thread notes here how far its sessions are, and is asked for nothing. */
#include "status.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "server_int.h"

#define SECOND_NS       ((uint64_t)1000000000)
#define SAMPLE_EVERY_NS (SECOND_NS / 5)
#define RATE_OVER_NS    (10 * SECOND_NS)
#define LAST_AUTO       32
#define LAST_MAX        128

bool srv_status_init(srv_status *s, uint32_t n_seats)
{
    *s = (srv_status){.seats = calloc(n_seats, sizeof *s->seats)};
    pthread_mutex_init(&s->lock, NULL);
    return s->seats != NULL;
}

void srv_status_free(srv_status *s)
{
    free(s->seats);
    pthread_mutex_destroy(&s->lock);
}

/* ---- the engine's thread ---- */

static srv_seat seat_of(const srv_choice *c, const mf_session *session)
{
    srv_seat seat = {.n_used = mf_session_length(session)};
    mf_generate_result result = {.struct_size = sizeof result};
    if (!c)
        return seat;
    seat.busy = true;
    seat.n_prompt = c->n_ids;
    seat.n_generated = c->n_tokens;
    seat.since_ns = c->begun ? c->started_ns : c->job->queued_ns;
    seat.n_evaluated = c->n_echoed;
    if (c->generation) {
        (void)mf_generation_result(c->generation, &result, NULL);
        seat.n_evaluated = c->job->echo ? c->n_ids : result.n_cached + result.n_prompt_done;
    }
    return seat;
}

void srv_status_note(srv_server *server)
{
    srv_status *s = &server->status;
    srv_worker *w = &server->worker;
    pthread_mutex_lock(&server->metrics.lock);
    srv_sample sample = {mfi_clock_ns(), server->metrics.generation_tokens,
                         server->metrics.engine.tokens_evaluated};
    pthread_mutex_unlock(&server->metrics.lock);
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < server->options->parallel; i++)
        s->seats[i] = seat_of(w->busy[i], w->sessions[i]);
    if (!s->n_samples ||
        sample.at_ns - s->samples[(s->n_samples - 1) % SRV_SAMPLES].at_ns >= SAMPLE_EVERY_NS)
        s->samples[s->n_samples++ % SRV_SAMPLES] = sample;
    pthread_mutex_unlock(&s->lock);
}

/* ---- the loop's ---- */

static void put_text(mfi_buf *out, const char *before, const char *text)
{
    mfi_buf_str(out, before);
    mfi_json_put_str(out, text, strlen(text));
}

static void put_number(mfi_buf *out, const char *before, double value, bool known)
{
    mfi_buf_str(out, before);
    if (known)
        mfi_json_put_f64(out, value);
    else
        mfi_buf_str(out, "null");
}

static void put_u64(mfi_buf *out, const char *before, uint64_t value)
{
    mfi_buf_fmt(out, "%s%" PRIu64, before, value);
}

static bool loading(srv_server *server, srv_exchange *x)
{
    if (atomic_load(&server->ready))
        return false;
    srv_reply_error(x, 503, NULL, NULL, "Loading model");
    return true;
}

static void put_model(const srv_server *server, mfi_buf *out)
{
    const mf_model_info *m = &server->info;
    put_text(out, "\"model\":{\"name\":", server->model);
    put_text(out, ",\"family\":", m->family);
    put_text(out, ",\"weights\":", m->weights);
    put_text(out, ",\"activations\":", m->activations);
    put_text(out, ",\"cache_type_k\":", m->cache_type_k);
    put_text(out, ",\"cache_type_v\":", m->cache_type_v);
    put_text(out, ",\"isa\":", m->isa);
    put_text(out, ",\"device\":", m->device);
    mfi_buf_fmt(out,
                ",\"layers\":%u,\"experts\":%u,\"top_k\":%u,\"ctx\":%u,\"ctx_model\":%u,"
                "\"threads\":%u,\"chunk\":%u",
                m->n_layers, m->n_experts, m->top_k, m->ctx, m->ctx_model, m->n_threads, m->chunk);
    put_u64(out, ",\"weight_bytes\":", m->weight_bytes);
    put_u64(out, ",\"token_bytes\":", m->token_bytes);
    mfi_buf_str(out, "}");
}

static void put_memory(const srv_server *server, const mf_stats *e, mfi_buf *out)
{
    const mf_model_info *m = &server->info;
    put_u64(out, ",\"memory\":{\"budget_bytes\":", e->budget_bytes);
    put_u64(out, ",\"peak_bytes\":", e->peak_bytes);
    put_u64(out, ",\"dense_bytes\":", e->dense_bytes);
    put_u64(out, ",\"slots_bytes\":", e->slot_bytes);
    put_u64(out, "},\"cache\":{\"slots\":", m->n_slots);
    put_u64(out, ",\"host_slots\":", m->n_host_slots);
    put_u64(out, ",\"slot_bytes\":", m->slot_bytes);
    put_u64(out, ",\"experts_total\":", e->n_experts_total);
    put_u64(out, ",\"experts_bytes\":", e->expert_bytes_total);
    put_text(out, ",\"policy\":", m->policy);
    put_u64(out, ",\"hits\":", e->expert_hits);
    put_u64(out, ",\"misses\":", e->expert_misses);
    put_u64(out, ",\"evictions\":", e->expert_evictions);
    put_u64(out, "},\"hints\":{\"bytes\":", e->hint_bytes);
    put_u64(out, ",\"useful\":", e->hints_useful);
    put_u64(out, ",\"late\":", e->hints_late);
    put_u64(out, ",\"wasted\":", e->hints_wasted);
    put_u64(out, ",\"dropped\":", e->hints_dropped);
    mfi_buf_str(out, "}");
}

/* Of the evaluations that ended within the last seconds: how busy the drive was. */
static void put_drive(const srv_server *server, const mf_stats *e, const mf_evaluation *list,
                      size_t n, uint64_t now_ns, mfi_buf *out)
{
    const mf_model_info *m = &server->info;
    uint64_t bytes = 0, reading_ns = 0, span_ns = 0;
    for (size_t i = n; i-- > 0;) {
        if (now_ns - MFI_MIN(list[i].begin_ns + list[i].wall_ns, now_ns) >= RATE_OVER_NS)
            break;
        bytes += list[i].bytes_read;
        reading_ns += list[i].reading_ns;
        span_ns = now_ns - list[i].begin_ns;
    }
    put_text(out, ",\"drive\":{\"reader\":", m->reader);
    mfi_buf_fmt(out, ",\"direct\":%s", m->direct ? "true" : "false");
    put_number(out, ",\"ceiling_bytes_per_second\":", m->drive_bytes_per_second,
               m->drive_bytes_per_second > 0);
    put_number(out, ",\"bytes_per_second\":", span_ns ? (double)bytes * 1e9 / (double)span_ns : 0,
               true);
    put_number(out, ",\"reading\":", span_ns ? fmin((double)reading_ns / (double)span_ns, 1) : 0,
               true);
    put_u64(out, ",\"bytes_read\":", e->expert_bytes_read);
    put_u64(out, ",\"bytes_copied\":", e->expert_bytes_copied);
    put_u64(out, ",\"mirror_bytes\":", e->mirror_bytes_read);
    put_u64(out, ",\"stall_ns\":", e->stall_ns);
    mfi_buf_str(out, "}");
}

static void put_requests(srv_server *server, const srv_metrics *m, mfi_buf *out)
{
    srv_worker *w = &server->worker;
    pthread_mutex_lock(&w->lock);
    uint32_t running = w->n_running, waiting = w->n_waiting;
    pthread_mutex_unlock(&w->lock);
    mfi_buf_fmt(out, ",\"requests\":{\"running\":%u,\"waiting\":%u,\"parallel\":%u,\"queue\":%u",
                running, waiting, server->options->parallel, server->options->queue);
    put_u64(out,
            ",\"finished\":", m->finished[0] + m->finished[1] + m->finished[2] + m->finished[3]);
    put_u64(out, ",\"aborted\":", m->aborted);
    put_u64(out, ",\"failed\":", m->failed);
    put_u64(out, ",\"refused\":", m->refused_full);
    put_u64(out, "},\"kv\":{\"used_tokens\":", m->kv_used_tokens);
    put_u64(out, ",\"tokens\":", (uint64_t)server->info.ctx * server->options->parallel);
    put_u64(out, "},\"prefix\":{\"queried_tokens\":", m->queried_tokens);
    put_u64(out, ",\"cached_tokens\":", m->cached_tokens);
    mfi_buf_str(out, "}");
}

static void put_seats(const srv_server *server, const srv_status *s, uint64_t now_ns, mfi_buf *out)
{
    mfi_buf_str(out, ",\"sessions\":[");
    for (uint32_t i = 0; i < server->options->parallel; i++) {
        const srv_seat *seat = &s->seats[i];
        const char *state = !seat->busy ? "idle" : seat->n_generated ? "decode" : "prompt";
        mfi_buf_fmt(out,
                    "%s{\"state\":\"%s\",\"used_tokens\":%zu,\"prompt_tokens\":%zu,"
                    "\"prompt_done\":%zu,\"generated_tokens\":%zu",
                    i ? "," : "", state, seat->n_used, seat->n_prompt, seat->n_evaluated,
                    seat->n_generated);
        put_number(out, ",\"seconds\":", (double)(now_ns - seat->since_ns) / 1e9, seat->busy);
        mfi_buf_str(out, "}");
    }
    mfi_buf_str(out, "]");
}

/* Since the oldest sample that is recent enough and no newer than the counters. */
static void put_tokens(const srv_status *s, const srv_metrics *m, uint64_t now_ns, mfi_buf *out)
{
    uint64_t n = MFI_MIN(s->n_samples, (uint64_t)SRV_SAMPLES),
             evaluated = m->engine.tokens_evaluated;
    double generated_rate = 0, evaluated_rate = 0;
    for (uint64_t i = s->n_samples - n; i < s->n_samples; i++) {
        const srv_sample *was = &s->samples[i % SRV_SAMPLES];
        if (now_ns - was->at_ns > RATE_OVER_NS || now_ns <= was->at_ns ||
            was->generated > m->generation_tokens || was->evaluated > evaluated)
            continue;
        double seconds = (double)(now_ns - was->at_ns) / 1e9;
        generated_rate = (double)(m->generation_tokens - was->generated) / seconds;
        evaluated_rate = (double)(evaluated - was->evaluated) / seconds;
        break;
    }
    put_u64(out, ",\"tokens\":{\"prompt\":", m->prompt_tokens);
    put_u64(out, ",\"generated\":", m->generation_tokens);
    put_u64(out, ",\"evaluated\":", evaluated);
    put_number(out, ",\"generated_per_second\":", generated_rate, true);
    put_number(out, ",\"evaluated_per_second\":", evaluated_rate, true);
    mfi_buf_str(out, "}");
}

static void put_evaluations(const mf_evaluation *list, size_t n, mfi_buf *out)
{
    mfi_buf_str(out, ",\"evaluations\":{\"fields\":[\"number\",\"pos\",\"tokens\",\"sequences\","
                     "\"begin_ns\",\"between_ns\",\"wall_ns\",\"arithmetic_ns\",\"experts_ns\","
                     "\"stall_ns\",\"other_ns\",\"hits\",\"misses\",\"evictions\",\"bytes_read\","
                     "\"bytes_copied\",\"reading_ns\",\"hint_bytes\",\"hints_useful\","
                     "\"hints_late\",\"hints_wasted\",\"hints_dropped\"],\"rows\":[");
    for (size_t i = 0; i < n; i++) {
        const mf_evaluation *e = &list[i];
        const uint64_t fields[] = {
            e->number,       e->pos,          e->n_tokens,      e->n_sequences,  e->begin_ns,
            e->between_ns,   e->wall_ns,      e->arithmetic_ns, e->experts_ns,   e->stall_ns,
            e->other_ns,     e->hits,         e->misses,        e->evictions,    e->bytes_read,
            e->bytes_copied, e->reading_ns,   e->hint_bytes,    e->hints_useful, e->hints_late,
            e->hints_wasted, e->hints_dropped};
        for (size_t k = 0; k < MFI_ARRAY_LEN(fields); k++)
            put_u64(out, k ? "," : i ? ",[" : "[", fields[k]);
        mfi_buf_str(out, "]");
    }
    mfi_buf_str(out, "]}");
}

/* "last=N" of the query, and nothing else. */
static bool take_last(srv_exchange *x, size_t *last)
{
    const char *query = x->request.query.data;
    *last = LAST_AUTO;
    if (!query || !*query)
        return true;
    char *end = NULL;
    unsigned long n = 0;
    if (strncmp(query, "last=", 5) == 0 && query[5] >= '0' && query[5] <= '9')
        n = strtoul(query + 5, &end, 10);
    if (!end || *end || n > LAST_MAX) {
        srv_reply_error(x, 400, NULL, "last", "the query may be last=N, N at most %d", LAST_MAX);
        return false;
    }
    *last = n;
    return true;
}

void srv_show_status(srv_server *server, srv_exchange *x)
{
    mf_evaluation list[LAST_MAX];
    srv_status *s = &server->status;
    size_t last, n;
    mfi_buf out = {0};
    if (loading(server, x) || !take_last(x, &last))
        return;
    pthread_mutex_lock(&server->metrics.lock);
    srv_metrics m = server->metrics;
    pthread_mutex_unlock(&server->metrics.lock);
    n = mf_engine_evaluations(server->engine, list, LAST_MAX);
    uint64_t now_ns = mfi_clock_ns(); /* none of them ends later */
    mfi_buf_fmt(&out, "{\"version\":\"%s\",\"state\":\"%s\",\"now_ns\":%" PRIu64 ",", mf_version(),
                atomic_load(&server->stopping) ? "stopping" : "ready", now_ns);
    put_model(server, &out);
    put_memory(server, &m.engine, &out);
    put_drive(server, &m.engine, list, n, now_ns, &out);
    put_requests(server, &m, &out);
    pthread_mutex_lock(&s->lock);
    now_ns = MFI_MAX(now_ns, mfi_clock_ns()); /* nothing noted is later */
    put_seats(server, s, now_ns, &out);
    put_tokens(s, &m, now_ns, &out);
    pthread_mutex_unlock(&s->lock);
    last = MFI_MIN(last, n);
    put_evaluations(list + n - last, last, &out);
    mfi_buf_str(&out, "}");
    srv_reply_buf(x, 200, SRV_JSON, &out);
}

/* ---- experts ---- */

static void put_base64(mfi_buf *out, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)bytes[i] << 16 | (i + 1 < n ? (uint32_t)bytes[i + 1] << 8 : 0) |
                     (i + 2 < n ? bytes[i + 2] : 0);
        char four[4] = {digits[v >> 18], digits[v >> 12 & 63], digits[v >> 6 & 63], digits[v & 63]};
        if (i + 1 >= n)
            four[2] = '=';
        if (i + 2 >= n)
            four[3] = '=';
        mfi_buf_append(out, four, 4);
    }
}

/* Moves the layers that have experts to the front and lists them; returns how many there are. */
static size_t pack_layers(const mf_model_info *m, uint8_t *tiers, uint8_t *use, mfi_buf *out)
{
    size_t n = m->n_experts, n_rows = 0;
    mfi_buf_str(out, "{\"layers\":[");
    for (size_t layer = 0; layer < m->n_layers; layer++) {
        if (tiers[layer * n] == MF_EXPERT_ABSENT)
            continue;
        mfi_buf_fmt(out, n_rows ? ",%zu" : "%zu", layer);
        memmove(tiers + n_rows * n, tiers + layer * n, n);
        memmove(use + n_rows * n, use + layer * n, n);
        n_rows++;
    }
    mfi_buf_fmt(out, "],\"experts\":%zu,\"top_k\":%u", n, m->top_k);
    return n_rows;
}

static void put_experts(const mf_model_info *m, uint8_t *tiers, uint8_t *use, mfi_buf *out)
{
    size_t counts[4] = {0}, n = pack_layers(m, tiers, use, out) * m->n_experts;
    for (size_t i = 0; i < n; i++)
        counts[tiers[i] & 3]++;
    mfi_buf_fmt(out,
                ",\"counts\":{\"drive\":%zu,\"loading\":%zu,\"host\":%zu,\"device\":%zu},"
                "\"tiers\":\"",
                counts[MF_EXPERT_DRIVE], counts[MF_EXPERT_LOADING], counts[MF_EXPERT_HOST],
                counts[MF_EXPERT_DEVICE]);
    put_base64(out, tiers, n);
    mfi_buf_str(out, "\",\"use\":\"");
    put_base64(out, use, n);
    mfi_buf_str(out, "\"}");
}

void srv_show_experts(srv_server *server, srv_exchange *x)
{
    const mf_model_info *m = &server->info;
    mf_error err = {0};
    mfi_buf out = {0};
    if (loading(server, x))
        return;
    size_t n = (size_t)m->n_layers * m->n_experts;
    float *use = malloc(n * sizeof *use);
    uint8_t *bytes = malloc(2 * n);
    if (!use || !bytes || mf_engine_experts(server->engine, bytes, use, &err) != MF_OK) {
        srv_reply_error(x, 500, NULL, NULL, "%s", err.message[0] ? err.message : "out of memory");
    } else {
        for (size_t i = 0; i < n; i++)
            bytes[n + i] = (uint8_t)lrintf(255 * sqrtf(fminf(use[i], 1)));
        put_experts(m, bytes, bytes + n, &out);
        srv_reply_buf(x, 200, SRV_JSON, &out);
    }
    free(use);
    free(bytes);
}
