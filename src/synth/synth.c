/* mf_synth: models of published shapes with random weights, for measuring engines.
 *
 * Checks the options, lays the file out, and fills it from front to back, a piece at a time, which
 * workers make and the caller's thread writes; calls back for progress from there. Needs a few
 * megabytes whatever the size of the model. Knows no block types (fill.c, table.c), no tensor names
 * (list.c), no keys (vocab.c).
 */
#include "synth/synth.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/pool.h"
#include "os/disk.h"
#include "os/machine.h"
#include "synth/fill.h"
#include "synth/table.h"
#include "synth/vocab.h"

#define PROGRESS_NS 200000000u

void mf_synth_options_default(mf_synth_options *options)
{
    *options = (mf_synth_options){.struct_size = sizeof *options, .seed = 1};
}

typedef struct job {
    const mf_synth_options *o;
    const mfi_synth_shape *shape;
    mfi_synth_quant quant;
    mfi_synth_list list;
    mfi_synth_tables tables;
    mfi_gguf_tensor *entries; /* [list.n] */
    mfi_filler *filler;
    unsigned char *piece;
    size_t piece_bytes;
    mfi_pool *pool;
    /* The piece at hand: */
    const mfi_synth_tensor *t;
    uint64_t first_unit, unit_bytes;
    uint32_t n_units;
    mfi_gguf_out out;
    uint64_t done, last_ns;
} job;

static mf_status check_options(const mf_synth_options *o, mf_error *err)
{
    if (o->struct_size != sizeof *o)
        return mfi_fail(err, MF_ERR_ARGUMENT, "struct_size: synth options of another version");
    if (!o->shape || !o->shape[0])
        return mfi_fail(err, MF_ERR_ARGUMENT, "shape: none given");
    if (!o->quant || !o->quant[0])
        return mfi_fail(err, MF_ERR_ARGUMENT, "quant: none given");
    if (!o->out_path || !o->out_path[0])
        return mfi_fail(err, MF_ERR_ARGUMENT, "no output given");
    if (o->routing != MF_ROUTING_UNIFORM && o->routing != MF_ROUTING_SKEWED)
        return mfi_fail(err, MF_ERR_ARGUMENT, "routing: %d is no kind of routing", (int)o->routing);
    if (o->n_threads > MFI_MAX_THREADS)
        return mfi_fail(err, MF_ERR_ARGUMENT, "n_threads: %" PRIu32 " are more than %d",
                        o->n_threads, MFI_MAX_THREADS);
    return MF_OK;
}

/* Before anything is written: reserving may take a while where it is possible, and elsewhere a
 * full drive would show only at its end. */
static mf_status check_room(const job *j, mf_error *err)
{
    uint64_t vocab = (uint64_t)j->shape->n_vocab * 32, need, room; /* at most 32 bytes a token */
    MFI_TRY(mfi_disk_free(j->o->out_path, &room, err));
    need = j->list.bytes + vocab + MFI_MIB;
    if (need > room)
        return mfi_fail(err, MF_ERR_DISK_FULL,
                        "%s: needs %" PRIu64 " MiB; the drive has %" PRIu64 " MiB free",
                        j->o->out_path, need / MFI_MIB + 1, room / MFI_MIB);
    return MF_OK;
}

static mf_status advance(job *j, uint64_t bytes, mf_error *err)
{
    j->done += bytes;
    if (!j->o->progress)
        return MF_OK;
    uint64_t now = mfi_clock_ns();
    if (j->last_ns && now - j->last_ns < PROGRESS_NS && j->done < j->list.bytes)
        return MF_OK;
    j->last_ns = now;
    if (!j->o->progress(j->o->progress_user, "writing", "bytes", j->done, j->list.bytes))
        return mfi_fail(err, MF_ERR_CANCELLED, "cancelled");
    return MF_OK;
}

static void put_keys(job *j)
{
    mfi_gguf_out *g = &j->out;
    const mfi_synth_shape *s = j->shape;
    bool skewed = j->o->routing == MF_ROUTING_SKEWED;
    char text[160];
    mfi_gguf_key_str(g, "general.architecture", mfi_synth_arch_gguf(s->kind));
    snprintf(text, sizeof text, "synthetic %s %s", mfi_synth_arch_name(s->kind), s->name);
    mfi_gguf_key_str(g, "general.name", text);
    snprintf(text, sizeof text, "random weights, %s routing, seed %" PRIu64,
             skewed ? "skewed" : "uniform", j->o->seed);
    mfi_gguf_key_str(g, "general.description", text);
    mfi_gguf_key_u32(g, "general.quantization_version", 2);
    mfi_gguf_key_u32(g, "general.file_type", mfi_synth_quant_file_type(j->quant));
    mfi_synth_put_shape(g, s, j->o->n_layers ? j->o->n_layers : s->n_layers);
    mfi_synth_put_vocab(g, s->n_vocab);
}

static mf_status lay_out(job *j, mf_error *err)
{
    j->entries = calloc(j->list.n, sizeof *j->entries);
    j->filler = malloc(sizeof *j->filler);
    j->piece = malloc(j->piece_bytes);
    if (!j->entries || !j->filler || !j->piece)
        return mfi_fail(err, MF_ERR_NO_MEMORY, "%s: no memory for buffers", j->o->out_path);
    for (uint32_t i = 0; i < j->list.n; i++) {
        const mfi_synth_tensor *t = &j->list.tensors[i];
        j->entries[i] = (mfi_gguf_tensor){.name = t->name, .type = t->type, .n_dims = t->n_dims};
        memcpy(j->entries[i].dims, t->dims, sizeof t->dims);
    }
    return mfi_gguf_layout(&j->out, j->entries, j->list.n, err);
}

static bool is_table(const mfi_synth_tensor *t)
{
    return t->fill == MFI_FILL_EMBED || t->fill == MFI_FILL_OUTPUT;
}

/* Units don't depend on those before them, so not on who makes them. */
static void make_units(void *ctx, uint32_t worker, uint32_t n_workers)
{
    const job *j = ctx;
    uint32_t begin, end;
    mfi_pool_range(j->n_units, 1, worker, n_workers, &begin, &end);
    unsigned char *out = j->piece + begin * j->unit_bytes;
    if (begin == end)
        return;
    if (is_table(j->t))
        mfi_synth_table_run(&j->tables, j->t->fill, j->t->type, j->first_unit + begin, end - begin,
                            out);
    else
        mfi_filler_run(j->filler, j->first_unit + begin, end - begin, out);
}

static mf_status write_tensor(job *j, uint32_t i, mf_error *err)
{
    const mfi_synth_tensor *t = &j->list.tensors[i];
    const mfi_gguf_tensor *entry = &j->entries[i];
    uint64_t unit_bytes;
    if (is_table(t)) {
        unit_bytes = mfi_quant_row_bytes(t->type, 0, t->dims[1]);
    } else {
        uint32_t elements, bytes;
        mfi_synth_tensor masked = *t;
        if (t->own && j->tables.topic_cols)
            masked.a /= sqrtf(j->tables.token_share);
        mfi_filler_init(j->filler, &masked, mfi_fill_key(j->o->seed, t->name));
        if (t->own)
            mfi_filler_mask(j->filler, j->tables.topic_cols, t->dims[t->n_dims - 1]);
        mfi_filler_unit(j->filler, &elements, &bytes);
        unit_bytes = bytes;
    }
    MFI_ASSERT(unit_bytes <= j->piece_bytes && entry->bytes % unit_bytes == 0);
    uint64_t n_units = entry->bytes / unit_bytes, per_piece = j->piece_bytes / unit_bytes;
    for (uint64_t at = 0; at < n_units; at += per_piece) {
        uint64_t n = MFI_MIN(per_piece, n_units - at);
        j->t = t;
        j->first_unit = at;
        j->unit_bytes = unit_bytes;
        j->n_units = (uint32_t)n; /* pieces are megabytes */
        mfi_pool_run(j->pool, make_units, j);
        MFI_TRY(mfi_gguf_write(&j->out, j->piece, n * unit_bytes, entry->offset + at * unit_bytes,
                               err));
        MFI_TRY(advance(j, n * unit_bytes, err));
    }
    return advance(j, mfi_align_up(entry->bytes, MFI_GGUF_ALIGN) - entry->bytes, err);
}

static mf_status run(job *j, mf_error *err)
{
    const mf_synth_options *o = j->o;
    MFI_TRY(mfi_synth_quant_find(o->quant, &j->quant, err));
    MFI_TRY(mfi_synth_shape_find(o->arch, o->shape, &j->shape, err));
    MFI_TRY(mfi_synth_list_open(&j->list, j->shape, j->quant, o->n_layers, err));
    MFI_TRY(check_room(j, err));
    mfi_synth_tables_init(&j->tables, j->shape, o->routing == MF_ROUTING_SKEWED, o->seed);
    j->tables.n_text = mfi_synth_n_text(j->shape->n_vocab);
    j->tables.n_special = MFI_SYNTH_N_SPECIAL;
    uint32_t n_threads = o->n_threads;
    if (n_threads == 0) {
        mfi_machine machine;
        mfi_machine_read(&machine);
        n_threads = machine.n_cpus;
    }
    MFI_TRY(mfi_pool_open(&j->pool, n_threads, err));
    MFI_TRY(mfi_gguf_create(&j->out, o->out_path, err));
    put_keys(j);
    MFI_TRY(lay_out(j, err));
    MFI_TRY(advance(j, 0, err));
    for (uint32_t i = 0; i < j->list.n; i++)
        MFI_TRY(write_tensor(j, i, err));
    return mfi_gguf_finish(&j->out, err);
}

mf_status mfi_synth(const mf_synth_options *options, size_t piece_bytes, mf_error *err)
{
    MFI_TRY(check_options(options, err));
    job j = {.o = options, .piece_bytes = piece_bytes, .out.out.fd = -1};
    mf_status status = run(&j, err);
    mfi_gguf_close(&j.out);
    mfi_pool_close(&j.pool);
    mfi_synth_list_close(&j.list);
    free(j.entries);
    free(j.filler);
    free(j.piece);
    return status;
}

mf_status mf_synth(const mf_synth_options *options, mf_error *err)
{
    return mfi_synth(options, MFI_SYNTH_PIECE_BYTES, err);
}
