/* GET /api/cache: hits against the size of the cache, for the engine's last choices; see status.h.
 * The loop's thread answers with what was made a moment ago, or leaves the exchange to the thread
 * here, which replays. That costs time of a processor, so it is done when somebody asks only, for
 * all that ask at one time, and with the lowest priority there is. The engine waits for nothing. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#ifdef __linux__
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "base/clock.h"
#include "server_int.h"

#define FRESH_NS ((uint64_t)5000000000)
#define REST_TIMES                                                                                 \
    20 /* as long as it took: a twentieth of one processor, however large the model */

/* Of all experts, in percent. */
static const uint8_t sizes[] = {2, 5, 10, 20, 30, 45, 60, 80, 100};

void srv_curves_init(srv_curves *c)
{
    *c = (srv_curves){0};
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->wake, NULL);
}

void srv_curves_free(srv_curves *c)
{
    for (size_t i = 0; i < c->n_waiting; i++)
        srv_exchange_release(c->waiting[i]);
    mfi_buf_free(&c->text);
    pthread_cond_destroy(&c->wake);
    pthread_mutex_destroy(&c->lock);
}

/* ---- on the thread ---- */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* The sizes that are replayed, in slots, ascending: the engine's own among them. */
static size_t choose_slots(uint32_t n_total, uint32_t n_own, uint32_t top_k,
                           uint32_t slots[MFI_ARRAY_LEN(sizes) + 1])
{
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < MFI_ARRAY_LEN(sizes); i++)
        slots[n++] = MFI_MAX((uint32_t)((uint64_t)n_total * sizes[i] / 100), top_k);
    slots[n++] = MFI_MAX(MFI_MIN(n_own, n_total), top_k);
    qsort(slots, n, sizeof *slots, compare);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || slots[i] != slots[kept - 1])
            slots[kept++] = slots[i];
    return kept;
}

/* Breaks off once the server stops: it would wait for this. */
static mf_status put_curve(const srv_server *server, const mf_replay *replay, const char *name,
                           const char *policy, const uint32_t *slots, size_t n, mfi_buf *out,
                           mf_error *err)
{
    mf_replay_info info = {.struct_size = sizeof info};
    mf_replay_info_get(replay, &info);
    mfi_buf_fmt(out, ",\"%s\":[", name);
    for (size_t i = 0; i < n; i++) {
        uint64_t hits = 0;
        if (atomic_load(&server->stopping))
            return mfi_fail(err, MF_ERR_CANCELLED, "the server is stopping");
        MFI_TRY(mf_replay_hits(replay, policy, slots[i], &hits, err));
        mfi_buf_str(out, i ? "," : "");
        mfi_json_put_f64(out, (double)hits / (double)info.n_choices);
    }
    mfi_buf_str(out, "]");
    return MF_OK;
}

static mf_status put_curves(const srv_server *server, const mf_replay *replay, mfi_buf *out,
                            mf_error *err)
{
    uint32_t slots[MFI_ARRAY_LEN(sizes) + 1];
    mf_replay_info info = {.struct_size = sizeof info};
    const mf_model_info *m = &server->info;
    mf_replay_info_get(replay, &info);
    pthread_mutex_lock((pthread_mutex_t *)&server->metrics.lock);
    uint32_t n_total = server->metrics.engine.n_experts_total;
    pthread_mutex_unlock((pthread_mutex_t *)&server->metrics.lock);
    size_t n = choose_slots(n_total, m->n_slots, m->top_k, slots);
    mfi_buf_fmt(out, "{\"tokens\":%" PRIu64 ",\"choices\":%" PRIu64 ",\"slots\":[", info.n_tokens,
                info.n_choices);
    for (size_t i = 0; i < n; i++)
        mfi_buf_fmt(out, i ? ",%u" : "%u", slots[i]);
    mfi_buf_str(out, "]");
    MFI_TRY(put_curve(server, replay, "lru", "lru", slots, n, out, err));
    MFI_TRY(put_curve(server, replay, "lfu", "lfu", slots, n, out, err));
    MFI_TRY(put_curve(server, replay, "odds", "odds", slots, n, out, err));
    return put_curve(server, replay, "bound", NULL, slots, n, out, err);
}

/* False: there was nothing to replay, which may be otherwise in a moment. */
static bool make(const srv_server *server, mfi_buf *out)
{
    const mf_model_info *m = &server->info;
    mf_replay *replay = NULL;
    mf_error err = {0};
    mf_status status = mf_replay_recent(&replay, server->engine, &err);
    if (status == MF_OK)
        status = put_curves(server, replay, out, &err);
    else if (status == MF_ERR_STATE)
        mfi_buf_str(out, "{\"tokens\":0,\"choices\":0,\"slots\":[],\"lru\":[],\"lfu\":[],"
                         "\"odds\":[],\"bound\":[]");
    mf_replay_close(&replay);
    mfi_buf_fmt(out, ",\"own\":{\"slots\":%u,\"slot_bytes\":%" PRIu64 ",\"policy\":\"%s\"}}",
                m->n_slots, m->slot_bytes, m->policy);
    out->failed |= status != MF_OK && status != MF_ERR_STATE; /* no memory, or the server stops */
    return status == MF_OK;
}

static void yield_to_all(void)
{
#ifdef __linux__
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19); /* of this thread alone */
#endif
}

/* Of this thread: it is made to wait for others. */
static uint64_t cpu_ns(void)
{
    struct timespec t = {0};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void *run(void *user)
{
    srv_server *server = user;
    srv_curves *c = &server->curves;
    yield_to_all();
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->n_waiting && !c->stop)
            pthread_cond_wait(&c->wake, &c->lock);
        if (c->stop)
            break;
        pthread_mutex_unlock(&c->lock);
        mfi_buf text = {0};
        uint64_t begin_ns = cpu_ns();
        bool lasts = make(server, &text);
        pthread_mutex_lock(&c->lock);
        mfi_buf_free(&c->text);
        c->text = text;
        c->lasts = lasts && !text.failed;
        c->until_ns = mfi_clock_ns() + MFI_MAX(FRESH_NS, REST_TIMES * (cpu_ns() - begin_ns));
        for (size_t i = 0; i < c->n_waiting; i++) {
            if (text.failed)
                srv_reply_error(c->waiting[i], 503, NULL, NULL, "not now");
            else
                srv_reply(c->waiting[i], 200, SRV_JSON, text.data, text.len);
            srv_exchange_release(c->waiting[i]);
        }
        c->n_waiting = 0;
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

bool srv_curves_start(srv_server *server)
{
    srv_curves *c = &server->curves;
    c->runs = pthread_create(&c->thread, NULL, run, server) == 0;
    return c->runs;
}

void srv_curves_stop(srv_server *server)
{
    srv_curves *c = &server->curves;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->wake);
    pthread_mutex_unlock(&c->lock);
    if (c->runs)
        pthread_join(c->thread, NULL);
    c->runs = false;
}

/* ---- on the loop's ---- */

void srv_show_curves(srv_server *server, srv_exchange *x)
{
    srv_curves *c = &server->curves;
    bool full = false;
    if (!atomic_load(&server->ready)) {
        srv_reply_error(x, 503, NULL, NULL, "Loading model");
        return;
    }
    pthread_mutex_lock(&c->lock);
    if (c->lasts && mfi_clock_ns() < c->until_ns) {
        srv_reply(x, 200, SRV_JSON, c->text.data, c->text.len);
    } else if (c->stop || c->n_waiting == MFI_ARRAY_LEN(c->waiting)) {
        full = true;
    } else {
        srv_exchange_hold(x);
        c->waiting[c->n_waiting++] = x;
        pthread_cond_signal(&c->wake);
    }
    pthread_mutex_unlock(&c->lock);
    if (full)
        srv_reply_error(x, 503, NULL, NULL, "as many as are taken wait for this already");
}
