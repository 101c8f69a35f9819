/* The statistics file: a line of JSON for each evaluation (a token of an answer, a chunk of a
 * prompt), with where its time went and what it read (docs/streaming.md has the fields). Owns its
 * file; called on the engine's thread at the end of each run of the forward pass. Every line goes
 * out with one write, so that who reads the file meanwhile sees whole lines and a killed process
 * loses none. After the first failure it stays silent until it is asked. It measures nothing itself
 * and changes nothing. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine_int.h"

/* All a line can need: 40 numbers of at most 20 digits with their names. */
#define LINE_BYTES ((size_t)2048)

struct mfi_stats_log {
    int fd;
    int failed; /* errno of the first failure */
    char *path;
    const mfi_store *store;
    mfi_io *io;
    uint64_t mirror_bytes;       /* read from it before */
    double drive_rate;           /* bytes a second; 0: not known */
    const mfi_io *tier;          /* may be NULL, as the next */
    const mfi_store *host_store; /* below a device's */
    mfi_store_stats before, host_before;
    uint64_t fetched_before;
    uint64_t end_ns; /* of the evaluation before; 0: there was none */
    size_t len;
    char line[LINE_BYTES];
};

static void put(mfi_stats_log *log, const char *fmt, ...) MFI_PRINTF(2, 3);
static void put(mfi_stats_log *log, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(log->line + log->len, LINE_BYTES - log->len, fmt, args);
    va_end(args);
    MFI_ASSERT(n >= 0 && (size_t)n < LINE_BYTES - log->len);
    log->len += (size_t)n;
}

static void write_line(mfi_stats_log *log)
{
    size_t at = 0;
    while (at < log->len && log->failed == 0) {
        ssize_t n = write(log->fd, log->line + at, log->len - at);
        if (n > 0)
            at += (size_t)n;
        else if (n == 0 || errno != EINTR)
            log->failed = n == 0 ? EIO : errno;
    }
    log->len = 0;
}

static void put_rate(mfi_stats_log *log, const char *key, double value, bool known)
{
    put(log, ",\"%s\":", key);
    if (known)
        put(log, "%.4f", value);
    else
        put(log, "null");
}

/* Counters that were set back since the last line begin from nothing. */
static uint64_t since(uint64_t now, uint64_t before)
{
    return now >= before ? now - before : now;
}

/* Of the links below and to a device. */
static void put_tiers(mfi_stats_log *log, uint64_t copied, const mfi_store_stats *now,
                      const mfi_store_stats *host)
{
    mfi_tier_stats tier = {0};
    if (log->host_store)
        mfi_tier_stats_get(log->tier, &tier);
    put(log,
        ",\"host_hits\":%" PRIu64 ",\"bytes_copied\":%" PRIu64 ",\"copying_ns\":%" PRIu64
        ",\"bytes_fetched\":%" PRIu64,
        since(host->hits, log->host_before.hits), copied,
        since(now->reading_ns, log->before.reading_ns), tier.fetched_bytes - log->fetched_before);
    log->fetched_before = tier.fetched_bytes;
}

void mfi_stats_log_run(void *user, const mfi_run_facts *run)
{
    mfi_stats_log *log = user;
    mfi_store_stats now, host = {0};
    mfi_io_stats io;
    const mfi_store_stats *was = &log->before;
    mfi_store_stats_get(log->store, &now);
    if (log->host_store)
        mfi_store_stats_get(log->host_store, &host);
    log->io->stats(log->io, &io);
    uint64_t stall_ns = since(now.stall_ns, was->stall_ns);
    uint64_t bytes = since(now.bytes_read, was->bytes_read), copied = bytes;
    uint64_t reading_ns = since(now.reading_ns, was->reading_ns);
    if (log->tier) { /* the store's reads are copies to the device */
        bytes = since(host.bytes_read, log->host_before.bytes_read);
        reading_ns = since(host.reading_ns, log->host_before.reading_ns);
    }
    uint64_t known_ns = run->arith_ns + stall_ns;
    put(log,
        "{\"pos\":%" PRIu32 ",\"tokens\":%" PRIu32 ",\"sequences\":%" PRIu32
        ",\"between_ns\":%" PRIu64,
        run->pos, run->n_tok, run->n_seqs, log->end_ns ? run->begin_ns - log->end_ns : 0);
    put(log,
        ",\"wall_ns\":%" PRIu64 ",\"arithmetic_ns\":%" PRIu64 ",\"experts_ns\":%" PRIu64
        ",\"stall_ns\":%" PRIu64 ",\"other_ns\":%" PRIu64,
        run->wall_ns, run->arith_ns, run->experts_ns, stall_ns,
        run->wall_ns > known_ns ? run->wall_ns - known_ns : 0);
    put(log,
        ",\"hits\":%" PRIu64 ",\"misses\":%" PRIu64 ",\"evictions\":%" PRIu64
        ",\"bytes_read\":%" PRIu64 ",\"reading_ns\":%" PRIu64,
        since(now.hits, was->hits), since(now.misses, was->misses),
        since(now.evictions, was->evictions), bytes, reading_ns);
    if (log->tier)
        put_tiers(log, copied, &now, &host);
    put_rate(log, "drive", (double)bytes * 1e9 / (double)run->wall_ns / log->drive_rate,
             log->drive_rate > 0 && run->wall_ns > 0);
    put(log,
        ",\"hint_bytes\":%" PRIu64 ",\"hints_useful\":%" PRIu64 ",\"hints_late\":%" PRIu64
        ",\"hints_wasted\":%" PRIu64 ",\"hints_dropped\":%" PRIu64 ",\"mirror_bytes\":%" PRIu64
        "}\n",
        since(now.hint_bytes, was->hint_bytes), since(now.hints_useful, was->hints_useful),
        since(now.hints_late, was->hints_late), since(now.hints_wasted, was->hints_wasted),
        since(now.hints_dropped, was->hints_dropped), io.mirror_bytes - log->mirror_bytes);
    write_line(log);
    log->before = now;
    log->host_before = host;
    log->mirror_bytes = io.mirror_bytes;
    log->end_ns = run->begin_ns + run->wall_ns;
}

static void put_header(mfi_stats_log *log, const mfi_stats_log_options *o)
{
    const mfi_plan *plan = o->plan;
    const mfi_shape *s = &plan->program.shape;
    put(log, "{\"schema\":1,\"layers\":%" PRIu32 ",\"experts\":%" PRIu32 ",\"top_k\":%" PRIu32,
        s->n_layers, s->n_experts, s->top_k);
    put(log,
        ",\"slots\":%" PRIu32 ",\"slot_bytes\":%" PRIu64 ",\"budget_bytes\":%" PRIu64
        ",\"policy\":\"%s\"",
        plan->n_slots, plan->slot_stride, plan->budget_bytes, plan->policy);
    put(log, ",\"reader\":\"%s\",\"direct\":%s", o->io->reader, o->io->direct ? "true" : "false");
    if (o->io->bytes_per_second > 0)
        put(log, ",\"drive_bytes_per_second\":%.0f}\n", o->io->bytes_per_second);
    else
        put(log, ",\"drive_bytes_per_second\":null}\n");
    write_line(log);
}

mf_status mfi_stats_log_open(mfi_stats_log **out, const mfi_stats_log_options *o, mf_error *err)
{
    mfi_stats_log *log = calloc(1, sizeof *log);
    if (log)
        log->path = strdup(o->path);
    if (!log || !log->path) {
        free(log);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: out of memory", o->path);
    }
    log->fd = open(o->path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (log->fd < 0) {
        mf_status status = errno == ENOENT ? MF_ERR_FILE_MISSING : MF_ERR_IO;
        mfi_fail(err, status, "%s: can't write statistics here: %s", o->path, strerror(errno));
        mfi_stats_log_close(&log);
        return status;
    }
    log->store = o->store;
    log->tier = o->tier;
    log->host_store = o->host_store;
    if (log->host_store) {
        mfi_tier_stats tier;
        mfi_tier_stats_get(log->tier, &tier);
        mfi_store_stats_get(log->host_store, &log->host_before);
        log->fetched_before = tier.fetched_bytes;
    }
    log->drive_rate = o->io->bytes_per_second;
    log->io = o->io->io;
    mfi_io_stats io;
    log->io->stats(log->io, &io);
    log->mirror_bytes = io.mirror_bytes;
    mfi_store_stats_get(log->store, &log->before);
    put_header(log, o);
    *out = log;
    return MF_OK;
}

mf_status mfi_stats_log_status(const mfi_stats_log *log, mf_error *err)
{
    int e = log->failed;
    if (e == 0)
        return MF_OK;
    return mfi_fail(err, e == ENOSPC || e == EDQUOT ? MF_ERR_DISK_FULL : MF_ERR_IO,
                    "%s: the statistics are incomplete: %s", log->path, strerror(e));
}

void mfi_stats_log_close(mfi_stats_log **log_ref)
{
    mfi_stats_log *log = *log_ref;
    if (!log)
        return;
    if (log->fd >= 0)
        close(log->fd);
    free(log->path);
    free(log);
    *log_ref = NULL;
}
