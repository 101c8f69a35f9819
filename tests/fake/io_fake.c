/* The fake reader; see io_fake.h. One thread, no clock, all randomness from the seed. */
#include "fake/io_fake.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

typedef struct pending {
    mfi_io_req *req;
    uint64_t due;    /* step */
    uint64_t order;  /* of submission */
    uint64_t n_done; /* bytes */
    bool fails, retried;
} pending;

typedef struct io_fake {
    mfi_io base;
    mft_io_fake_config config;
    mfi_rng rng;
    uint64_t now, n_submitted;
    uint32_t n_pending;
    uint32_t plant_file, plant_times;
    uint64_t plant_offset;
    mfi_io_stats stats;
    mft_io_fake_stats counts;
    pending pending[]; /* [n_reqs_max] */
} io_fake;

static uint64_t latency(io_fake *fake)
{
    uint64_t span = fake->config.latency_max - fake->config.latency_min + 1u;
    return fake->config.latency_min + mfi_rng_below(&fake->rng, span);
}

static void fake_submit(mfi_io *io, mfi_io_req *const *reqs, uint32_t n)
{
    io_fake *fake = (io_fake *)io;
    for (uint32_t i = 0; i < n; i++) {
        MFI_ASSERT(fake->n_pending < fake->config.n_reqs_max);
        MFI_ASSERT(reqs[i]->file < fake->config.n_files);
        for (uint32_t k = 0; k < fake->n_pending; k++)
            MFI_ASSERT(fake->pending[k].req != reqs[i]);
        fake->pending[fake->n_pending++] = (pending){
            .req = reqs[i],
            .due = fake->now + latency(fake),
            .order = fake->n_submitted++,
            .fails = mfi_rng_unit(&fake->rng) < fake->config.error_chance,
        };
        memset(reqs[i]->dst, (int)mfi_rng_below(&fake->rng, 256), reqs[i]->len);
    }
    fake->counts.n_under_way_most = MFI_MAX(fake->counts.n_under_way_most, fake->n_pending);
}

static const char *file_name(const io_fake *fake, uint32_t file)
{
    const mfi_file *f = fake->config.files[file].file;
    return f ? f->path : "fake";
}

/* One attempt; true if the request is finished, well or not. */
static bool attempt(io_fake *fake, pending *p)
{
    mfi_io_req *req = p->req;
    const mft_io_fake_file *file = &fake->config.files[req->file];
    bool planted = fake->plant_times > 0 && req->file == fake->plant_file &&
                   fake->plant_offset - req->offset < req->len;
    if (planted) {
        fake->plant_times--;
        if (!p->retried) {
            p->retried = true;
            fake->counts.n_retried++;
            return false;
        }
    }
    if (planted || p->fails) {
        req->status = mfi_fail(&req->error, MF_ERR_IO,
                               "%s: reading %" PRIu64 " bytes at offset %" PRIu64 ": injected",
                               file_name(fake, req->file), req->len, req->offset);
        return true;
    }
    uint64_t size = file->file ? UINT64_MAX : file->len;
    if (req->offset > size || req->len > size - req->offset) {
        req->status =
            mfi_fail(&req->error, MF_ERR_FILE_TRUNCATED, "%s: ends before offset %" PRIu64,
                     file_name(fake, req->file), req->offset + req->len);
        return true;
    }
    uint64_t left = req->len - p->n_done;
    if (left > 1 && mfi_rng_unit(&fake->rng) < fake->config.short_chance) {
        left = 1 + mfi_rng_below(&fake->rng, left - 1);
        fake->counts.n_short++;
    }
    char *dst = (char *)req->dst + p->n_done;
    req->status = MF_OK;
    if (file->file)
        req->status = mfi_file_read(file->file, dst, left, req->offset + p->n_done, &req->error);
    else
        memcpy(dst, file->bytes + req->offset + p->n_done, left);
    p->n_done += left;
    return req->status != MF_OK || p->n_done == req->len;
}

static mfi_io_req *fake_poll(mfi_io *io)
{
    io_fake *fake = (io_fake *)io;
    fake->now++;
    uint32_t start = fake->n_pending ? (uint32_t)mfi_rng_below(&fake->rng, fake->n_pending) : 0;
    for (uint32_t i = 0; i < fake->n_pending; i++) {
        uint32_t k = (start + i) % fake->n_pending;
        pending *p = &fake->pending[k];
        if (p->due > fake->now)
            continue;
        if (!attempt(fake, p)) {
            p->due = fake->now + 1 + latency(fake);
            continue;
        }
        mfi_io_req *req = p->req;
        for (uint32_t j = 0; j < fake->n_pending; j++) {
            if (fake->pending[j].order < p->order) {
                fake->counts.n_reordered++;
                break;
            }
        }
        *p = fake->pending[--fake->n_pending];
        req->done_ns = fake->now;
        fake->stats.n_reads++;
        if (req->status == MF_OK)
            fake->stats.bytes += req->len;
        else
            fake->counts.n_failed++;
        return req;
    }
    return NULL;
}

static mfi_io_req *fake_wait(mfi_io *io)
{
    io_fake *fake = (io_fake *)io;
    mfi_io_req *req = NULL;
    while (fake->n_pending > 0 && !req)
        req = fake_poll(io);
    return req;
}

static void fake_stats(const mfi_io *io, mfi_io_stats *stats)
{
    *stats = ((const io_fake *)io)->stats;
}

static void fake_close(mfi_io *io)
{
    while (fake_wait(io))
        ;
    free(io);
}

mf_status mft_io_fake_open(mfi_io **io, const mft_io_fake_config *config, mf_error *err)
{
    io_fake *fake = calloc(1, sizeof *fake + config->n_reqs_max * sizeof *fake->pending);
    if (!fake)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "out of memory");
    fake->base = (mfi_io){fake_submit, fake_poll, fake_wait, fake_stats, fake_close};
    fake->config = *config;
    fake->rng.state = config->seed;
    *io = &fake->base;
    return MF_OK;
}

void mft_io_fake_plant(mfi_io *io, uint32_t file, uint64_t offset, uint32_t times)
{
    io_fake *fake = (io_fake *)io;
    fake->plant_file = file;
    fake->plant_offset = offset;
    fake->plant_times = times;
}

mft_io_fake_stats mft_io_fake_stats_get(const mfi_io *io)
{
    const io_fake *fake = (const io_fake *)io;
    mft_io_fake_stats counts = fake->counts;
    counts.steps = fake->now;
    counts.n_under_way = fake->n_pending;
    return counts;
}
