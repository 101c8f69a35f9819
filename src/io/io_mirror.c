/* Sharing reads with a mirror; see io_mirror.h. Owns the reader inside and the two sides' loads;
 * borrows requests while they are under way, whose file it changes for that time. Called by the
 * reader's owner on its thread; allocates at open only. Which side reads changes no byte: the
 * copies were compared when they were opened, as far as that is done (engine_mirror.c), and one
 * that changes later is found by who looks after the files (engine.c). */
#include "io/io_mirror.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/limits.h"

/* Speeds are those of about this much time of reading; older ones fade. */
#define MEMORY_NS ((uint64_t)1000000000)

typedef struct side {
    uint64_t under_way; /* bytes */
    uint64_t from_ns;   /* since when the side was seen to read */
    uint64_t bytes, ns; /* of late: the speed is their quotient */
} side;

typedef struct io_mirror {
    mfi_io base;
    mfi_io *inner;
    uint32_t n_files;
    side sides[2]; /* the files, the mirror */
    uint64_t mirror_bytes;
    bool gone;        /* the mirror failed */
    mf_error failure; /* how */
} io_mirror;

/* Nanoseconds until a side would have read `len` bytes more. Both are taken for equal until both
 * are known. */
static double time_of(const io_mirror *m, uint32_t which, uint64_t len)
{
    const side *s = &m->sides[which];
    bool known = m->sides[0].bytes > 0 && m->sides[1].bytes > 0;
    double per_byte = known ? (double)s->ns / (double)s->bytes : 1;
    return (double)(s->under_way + len) * per_byte;
}

static void send(io_mirror *m, mfi_io_req *req, uint64_t now_ns)
{
    bool mirror = !m->gone && time_of(m, 1, req->len) < time_of(m, 0, req->len);
    side *s = &m->sides[mirror];
    MFI_ASSERT(req->file < m->n_files);
    if (s->under_way == 0)
        s->from_ns = now_ns;
    s->under_way += req->len;
    if (mirror)
        req->file += m->n_files;
}

/* Takes a request back; false if it has to be read again and was sent off. */
static bool take(io_mirror *m, mfi_io_req *req)
{
    bool mirror = req->file >= m->n_files;
    side *s = &m->sides[mirror];
    uint64_t now_ns = mfi_clock_ns();
    s->under_way -= req->len;
    if (req->status == MF_OK && now_ns > s->from_ns) {
        s->bytes += req->len;
        s->ns += now_ns - s->from_ns;
        if (s->ns > MEMORY_NS) {
            s->ns /= 2;
            s->bytes /= 2;
        }
    }
    s->from_ns = now_ns;
    if (!mirror)
        return true;
    req->file -= m->n_files;
    if (req->status == MF_OK) {
        m->mirror_bytes += req->len;
        return true;
    }
    if (!m->gone)
        m->failure = req->error;
    m->gone = true;
    send(m, req, now_ns);
    m->inner->submit(m->inner, &req, 1);
    return false;
}

static void mirror_submit(mfi_io *io, mfi_io_req *const *reqs, uint32_t n)
{
    io_mirror *m = (io_mirror *)io;
    uint64_t now_ns = mfi_clock_ns();
    for (uint32_t i = 0; i < n; i++)
        send(m, reqs[i], now_ns);
    m->inner->submit(m->inner, reqs, n);
}

static mfi_io_req *mirror_poll(mfi_io *io)
{
    io_mirror *m = (io_mirror *)io;
    mfi_io_req *req = m->inner->poll(m->inner);
    while (req && !take(m, req))
        req = m->inner->poll(m->inner);
    return req;
}

static mfi_io_req *mirror_wait(mfi_io *io)
{
    io_mirror *m = (io_mirror *)io;
    mfi_io_req *req = m->inner->wait(m->inner);
    while (req && !take(m, req))
        req = m->inner->wait(m->inner);
    return req;
}

static void mirror_stats(const mfi_io *io, mfi_io_stats *stats)
{
    const io_mirror *m = (const io_mirror *)io;
    m->inner->stats(m->inner, stats);
    stats->mirror_bytes = m->mirror_bytes;
}

static void mirror_close(mfi_io *io)
{
    io_mirror *m = (io_mirror *)io;
    m->inner->close(m->inner);
    free(m);
}

mf_status mfi_io_mirror_open(mfi_io **io, mfi_io *inner, uint32_t n_files, mf_error *err)
{
    io_mirror *m = calloc(1, sizeof *m);
    if (!m) {
        inner->close(inner);
        return mfi_fail(err, MF_ERR_NO_MEMORY, "no memory for a mirror's reader");
    }
    m->base = (mfi_io){mirror_submit, mirror_poll, mirror_wait, mirror_stats, mirror_close};
    m->inner = inner;
    m->n_files = n_files;
    *io = &m->base;
    return MF_OK;
}

const mf_error *mfi_io_mirror_failure(const mfi_io *io)
{
    const io_mirror *m = (const io_mirror *)io;
    return m->gone ? &m->failure : NULL;
}
