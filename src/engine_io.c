/* Choosing the reader: the kernel's ring or threads, through the page cache or past it. Called once
 * at open, on the engine's thread, when the plan stands and nothing of it is allocated. What it
 * measures it measures on the model's own experts, with the reader that would be used; nothing it
 * chooses changes a byte that is read. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "engine_int.h"
#include "io/io_mirror.h"
#include "io/page_cache.h"
#include "os/vmem.h"

/* Less than this isn't worth a measurement. */
#define PROBE_STREAM_BYTES_MIN ((uint64_t)1 << 30)
#define PROBE_READ_BYTES       ((uint64_t)1 << 20)
#define PROBE_READS            16
#define HUGE_PAGE              ((uint64_t)2 << 20)
#define PROBE_NS_MIN           ((uint64_t)4000000)
#define PROBE_LOAD_SHARE       100 /* each way reads this part of the load, or PROBE_READS pieces */
#define RING_DEPTH             16
/* A direct read takes a fifth of the processor's time; that is worth a little bandwidth. */
#define DIRECT_WORTH 0.9

typedef struct probe {
    mfi_engine_io *out;
    const mfi_io_request *ask;
    const mfi_file *const *files;
    uint32_t n_files;
    mfi_rng rng;
    char *memory; /* [PROBE_READS] of PROBE_READ_BYTES and a block, aligned, in huge pages like
                     slots */
} probe;

/* ---- opening one ---- */

/* Of the first n_files files: with a mirror's or without. */
static mf_status open_reader(probe *p, uint32_t n_files, bool direct, mfi_io **io, mf_error *err)
{
    const mfi_plan *plan = p->ask->plan;
    mfi_io_options options = {.n_readers = plan->n_io_threads,
                              .page_cache_bytes = plan->page_cache_bytes - plan->write_cache_bytes,
                              .direct = direct};
    bool ring = p->ask->reader ? strcmp(p->ask->reader, "uring") == 0 : direct;
    if (ring) {
        mfi_io_options deep = options;
        /* What can't be read directly takes page cache, a piece a read. */
        uint64_t most = options.page_cache_bytes / MFI_IO_READER_CACHE_BYTES;
        if (!p->ask->n_readers_asked)
            deep.n_readers = (uint32_t)MFI_MAX(MFI_MIN(most, RING_DEPTH), options.n_readers);
        mf_status status = mfi_io_uring_open(io, p->files, n_files, &deep, err);
        if (status != MF_ERR_UNSUPPORTED || p->ask->reader) {
            p->out->reader = "uring";
            return status;
        }
    }
    p->out->reader = "threads";
    return mfi_io_threads_open(io, p->files, n_files, &options, err);
}

/* ---- measuring ---- */

/* A piece of a random expert, at most PROBE_READ_BYTES of it. */
static mfi_extent random_piece(probe *p)
{
    const mfi_expert_table *t = p->ask->table;
    uint64_t n = (uint64_t)t->n_layers * t->n_experts * t->n_parts;
    const mfi_expert_part *part;
    do {
        part = &t->parts[mfi_rng_below(&p->rng, n)];
    } while (part->len == 0); /* every expert has one */
    return (mfi_extent){
        .file = part->file, .offset = part->offset, .len = MFI_MIN(part->len, PROBE_READ_BYTES)};
}

/* The part of sampled experts that the page cache holds. */
static double cached_part(probe *p)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), missing = 0, total = 0;
    void *map = MAP_FAILED;
    uint32_t mapped = UINT32_MAX;
    for (uint32_t i = 0; i < 2 * PROBE_READS; i++) {
        mfi_extent x = random_piece(p);
        mfi_page_run runs[MFI_PAGE_RUNS];
        if (x.file != mapped) {
            if (map != MAP_FAILED)
                munmap(map, (size_t)p->files[mapped]->size);
            map = mfi_page_map(p->files[x.file]);
            mapped = x.file;
        }
        uint32_t n = mfi_page_missing(p->files[x.file], map, page, x.offset, x.len, runs);
        for (uint32_t k = 0; k < n; k++)
            missing += runs[k].end - runs[k].begin;
        total += x.len;
    }
    if (map != MAP_FAILED)
        munmap(map, (size_t)p->files[mapped]->size);
    return missing < total ? 1.0 - (double)missing / (double)total : 0.0;
}

/* Asks for a random piece with request i, which is free; returns its bytes. */
static uint64_t ask_piece(probe *p, mfi_io *io, mfi_io_req *reqs, uint32_t i)
{
    mfi_extent x = random_piece(p);
    char *dst = p->memory + i * (PROBE_READ_BYTES + 4096) + x.offset % 4096;
    mfi_io_req *req = &reqs[i];
    *req = (mfi_io_req){.file = x.file, .offset = x.offset, .len = x.len, .dst = dst};
    io->submit(io, &req, 1);
    return x.len;
}

/* Bytes a second of reads of that kind, PROBE_READS under way until as many were asked for as a way
 * may take. 0 if reading failed: the load will say why. */
static double measure_rate(probe *p, mfi_io *io)
{
    mfi_io_req reqs[PROBE_READS], *req;
    const uint64_t most = p->ask->load_bytes / PROBE_LOAD_SHARE;
    uint64_t begin_ns = mfi_clock_ns(), asked = 0, bytes = 0, ns = 0;
    bool failed = false;
    for (uint32_t i = 0; i < PROBE_READS; i++)
        asked += ask_piece(p, io, reqs, i);
    while ((req = io->wait(io)) != NULL) {
        failed |= req->status != MF_OK;
        bytes += req->len;
        ns = mfi_clock_ns() - begin_ns;
        if (!failed && (asked < most || ns < PROBE_NS_MIN))
            asked += ask_piece(p, io, reqs, (uint32_t)(req - reqs));
    }
    return failed ? 0 : (double)bytes * 1e9 / (double)ns;
}

/* ---- what was measured before ---- */

static bool file_system_key(const probe *p, char *key, size_t cap)
{
    struct statvfs fs;
    if (!p->ask->cache_path || statvfs(p->files[0]->path, &fs) != 0)
        return false;
    /* "2": lines without it were measured with memory in small pages, up to 2.5 times too slow. */
    snprintf(key, cap, "2:%lx:%" PRIx64, fs.f_fsid, p->files[0]->dev);
    return true;
}

/* A line a file system: key, bytes a second directly, through the page cache. */
static bool recall(const probe *p, double *direct, double *buffered)
{
    char key[64], line[256];
    FILE *f = file_system_key(p, key, sizeof key) ? fopen(p->ask->cache_path, "re") : NULL;
    bool known = false;
    while (f && fgets(line, sizeof line, f)) {
        size_t n = strlen(key);
        if (strncmp(line, key, n) != 0 || line[n] != ' ')
            continue;
        char *end;
        uint64_t d = strtoull(line + n, &end, 10), b = strtoull(end, NULL, 10);
        if (d > 0 && b > 0) {
            *direct = (double)d;
            *buffered = (double)b;
            known = true;
        }
    }
    if (f)
        fclose(f);
    return known;
}

/* One line more; a folder that can't be written to costs the next start a measurement. */
static void remember(const probe *p, double direct, double buffered)
{
    char key[64];
    FILE *f = file_system_key(p, key, sizeof key) ? fopen(p->ask->cache_path, "ae") : NULL;
    if (!f)
        return;
    fprintf(f, "%s %.0f %.0f\n", key, direct, buffered);
    fclose(f);
}

/* ---- deciding ---- */

static mf_status measure_both(probe *p, double *direct, double *buffered, mf_error *err)
{
    mf_status status = MF_OK;
    mfi_vmem memory = {0};
    MFI_TRY(mfi_vmem_alloc(&memory, PROBE_READS * (PROBE_READ_BYTES + 4096) + HUGE_PAGE, err));
    p->memory = (char *)memory.base + mfi_align_up((uintptr_t)memory.base, HUGE_PAGE) -
                (uintptr_t)memory.base;
    /* Neither finding memory nor the splitting of reads into small pages is to be measured. */
    memset(p->memory, 1, PROBE_READS * (PROBE_READ_BYTES + 4096));
    for (int way = 0; way < 2 && status == MF_OK; way++) {
        mfi_io *io = NULL;
        status = open_reader(p, p->n_files, way == 0, &io, err);
        if (status != MF_OK)
            break;
        double rate = measure_rate(p, io);
        mfi_io_stats stats;
        io->stats(io, &stats);
        io->close(io);
        if (way == 0) /* reads that went through the page cache after all prove nothing */
            *direct = stats.direct_bytes > stats.bytes / 2 ? rate : 0;
        else
            *buffered = rate;
    }
    mfi_vmem_release(&memory);
    return status;
}

static mf_status decide(probe *p, bool *direct, mf_error *err)
{
    mfi_engine_io *out = p->out;
    const mfi_plan *plan = p->ask->plan;
    size_t cap = sizeof out->reason;
    if (p->ask->direct) {
        *direct = strcmp(p->ask->direct, "on") == 0;
        snprintf(out->reason, cap, "as asked");
        return MF_OK;
    }
    *direct = false;
    if (p->ask->load_bytes < PROBE_STREAM_BYTES_MIN &&
        plan->expert_bytes_total < PROBE_STREAM_BYTES_MIN) {
        snprintf(out->reason, cap, "too little is read to measure the drive");
        return MF_OK;
    }
    double cached = cached_part(p), d = 0, b = 0;
    if (cached > 0.9) {
        snprintf(out->reason, cap, "the page cache holds %.0f %% of the experts", cached * 100);
        return MF_OK;
    }
    bool known = recall(p, &d, &b);
    if (!known) {
        MFI_TRY(measure_both(p, &d, &b, err));
        if (d > 0 && b > 0 && cached < 0.1)
            remember(p, d, b);
    }
    *direct = d > DIRECT_WORTH * b;
    out->bytes_per_second = *direct ? d : b;
    snprintf(out->reason, cap, "%s: %.2f GB/s past the page cache, %.2f through it",
             known ? "measured before on this file system" : "measured", d / 1e9, b / 1e9);
    return MF_OK;
}

mf_status mfi_engine_io_open(mfi_engine_io *out, const mfi_io_request *ask,
                             const mfi_file *const *files, uint32_t n_files, mf_error *err)
{
    probe p = {.out = out, .ask = ask, .files = files, .n_files = n_files};
    p.rng.state = mfi_clock_ns(); /* other places each time: drives have caches, too */
    bool direct;
    MFI_TRY(decide(&p, &direct, err));
    MFI_TRY(open_reader(&p, ask->mirror ? 2 * n_files : n_files, direct, &out->io, err));
    if (ask->mirror) {
        mfi_io *inner = out->io;
        out->io = NULL;
        MFI_TRY(mfi_io_mirror_open(&out->io, inner, n_files, err));
    }
    out->mirror = ask->mirror;
    out->direct = direct;
    return MF_OK;
}
